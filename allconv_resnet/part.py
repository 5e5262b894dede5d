"""The decorator of the parts of a recipe, which are frozen dataclasses that check their fields.

pydantic checks types and ranges. The annotation of a field states its range. It is checked only here, whether the value
comes from Python, from the command line or from a JSON file.
"""

import dataclasses
import functools
import re
from typing import Annotated, TypeVar, dataclass_transform, get_args, get_origin

import pydantic
from annotated_types import Ge, Gt, Lt
from pydantic.dataclasses import dataclass

from allconv_resnet.errors import BadInput

T = TypeVar("T")

LARGEST = 2**40  # steps, images and seeds beyond it overflow 64-bit products
LARGEST_SIZE = 2**16
LARGEST_FLOAT = 1e30  # squares and products of larger numbers are not finite in float32


def _not_blank(value, info):
    if not value.strip() or not value.isprintable():
        problem = "have no control characters" if value.strip() else "not be empty"
        raise BadInput(f"{info.field_name} must {problem}. Received: {info.field_name}={value!r}")
    return value


Count = Annotated[int, Ge(1), Lt(LARGEST)]
Size = Annotated[int, Ge(1), Lt(LARGEST_SIZE)]  # size of a kernel or an image, or number of channels
Border = Annotated[int, Ge(0), Lt(LARGEST_SIZE)]
Natural = Annotated[int, Ge(0), Lt(LARGEST)]
Int32 = Annotated[int, Ge(1), Lt(2**31)]  # steps, which backends count in 32 bits, and images of a batch
Natural32 = Annotated[int, Ge(0), Lt(2**31)]
Positive = Annotated[float, Gt(0), Lt(LARGEST_FLOAT)]
NotNegative = Annotated[float, Ge(0), Lt(LARGEST_FLOAT)]
Fraction = Annotated[float, Ge(0), Lt(1)]
Seconds = Annotated[float, Gt(0), Lt(2**31)]
Minutes = Annotated[float, Ge(0), Lt(2**31)]
Name = Annotated[str, pydantic.AfterValidator(_not_blank)]


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def part(cls: type[T]) -> type[T]:
    """Makes a class a frozen dataclass whose constructor raises `BadInput` if a value does not fit its annotation.

    A method `__post_init__` may check fields against each other. It raises `BadInput` itself.

    Args:
        cls: Class with annotated fields.

    Returns:
        The dataclass.
    """
    config = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
    cls = dataclass(cls, frozen=True, config=config)
    for name, field in cls.__pydantic_fields__.items():
        # The help of the command line would keep the line breaks of the docstrings.
        if field.description:
            cls.__dataclass_fields__[name].metadata = {"help": " ".join(field.description.split())}
    checked = cls.__init__

    @functools.wraps(checked)
    def construct(self, *args, **kwargs):
        try:
            checked(self, *args, **kwargs)
        except pydantic.ValidationError as error:
            raise BadInput(_sentence(error)) from error

    cls.__init__ = construct
    return cls


def from_json(cls, values):
    """Returns the part that a dictionary of JSON values describes.

    Args:
        cls: Class of the part.
        values: Dictionary of its fields. Missing fields have their defaults.

    Raises:
        BadInput: if a field is unknown, or a value has another type than its field or is out of range.
    """
    unknown = sorted(set(values) - set(cls.__dataclass_fields__))
    if unknown:
        known = ", ".join(cls.__dataclass_fields__)
        raise BadInput(f"{cls.__name__} has no field {', '.join(unknown)}. Its fields are: {known}")
    for name, value in values.items():
        if isinstance(value, bool | str) and _numeric(cls, name):
            raise BadInput(f"{name} must be a number. Received: {name}={value!r}")
    return cls(**{name: as_tuples(value) for name, value in values.items()})


def _numeric(cls, name):
    """Returns whether a field is a number or None. Python's own conversions would accept "5" and true as numbers."""
    kinds = _kinds(cls.__dataclass_fields__[name].type)
    return bool(kinds & {int, float}) and not kinds & {bool, str}


def _kinds(annotation):
    """Returns the types that an annotation such as `Annotated[float, Gt(0)] | None` is made of."""
    inner = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    return {kind for each in inner for kind in _kinds(each)} or {annotation}


def flat_fields(content):
    """Returns the fields of a dataclass, and of the dataclasses in it, as one dictionary by their own names."""
    fields = {}
    for field in dataclasses.fields(content):
        value = getattr(content, field.name)
        fields.update(flat_fields(value) if dataclasses.is_dataclass(value) else {field.name: value})
    return fields


def as_tuples(value):
    """Returns nested lists as nested tuples."""
    return tuple(map(as_tuples, value)) if isinstance(value, list | tuple) else value


def as_lists(value):
    """Returns nested tuples as nested lists, which JSON can represent."""
    return list(map(as_lists, value)) if isinstance(value, list | tuple) else value


def _sentence(error):
    first = error.errors()[0]
    if first["type"] == "value_error":  # raised by a __post_init__
        return str(first["ctx"]["error"])
    name = str(first["loc"][0]) if first["loc"] else error.title
    message = re.sub(r"^(Input|Value|Tuple|String) ", "", first["msg"])
    if first["type"] in ("unexpected_keyword_argument", "missing_argument", "missing"):
        return f"{error.title}: {message.lower()}: {name}"
    message = message.replace("should be", "must be").replace("should have", "must have")
    where = f" (entry {'.'.join(str(index + 1) for index in first['loc'][1:])})" if len(first["loc"]) > 1 else ""
    return f"{name}{where} {message}. Received: {name}={first['input']!r}"
