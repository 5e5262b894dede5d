"""How the helps of the commands look: the spelling of values and defaults, and an example at the end of the text."""

import dataclasses
import inspect
import re
import shutil
import textwrap
import types
from pathlib import Path
from typing import Union, get_args, get_origin

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

NONE = ("none", "None")

REGISTRY = ConstructorRegistry()
"""The rules by which tyro reads values and spells them."""


@REGISTRY.primitive_rule
def _text(info: PrimitiveTypeInfo):
    """Spells text as NAME: what the commands take as text are names."""
    if info.type is not str:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="NAME",
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: isinstance(value, str),
        str_from_instance=lambda value: [value],
    )


@REGISTRY.primitive_rule
def _path(info: PrimitiveTypeInfo):
    """Refuses an empty path, which `Path` takes as the current directory. Scripts have one if a variable is unset.

    A leading `~/` is the home directory: shells expand it in `--output ~/x`, but not in `--output=~/x`.
    """
    if info.type is not Path:
        return None

    def read(words):
        if not words[0]:
            raise ValueError("a path must not be empty")
        return Path(words[0]).expanduser() if words[0].split("/")[0] == "~" else Path(words[0])

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda value: [str(value)],
    )


@REGISTRY.primitive_rule
def _optional(info: PrimitiveTypeInfo):
    """Spells `X | None` as `X|none`, where tyro has `{None}|X`. With `DisallowNone` it is `X`."""
    kinds = [kind for kind in get_args(info.type) if kind is not types.NoneType]
    if get_origin(info.type) not in (Union, types.UnionType) or len(kinds) != 1 or len(get_args(info.type)) != 2:
        return None
    inner = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kinds[0], info.markers))
    if not isinstance(inner, PrimitiveConstructorSpec) or inner.nargs != 1:
        return None
    allowed = tyro.conf.DisallowNone not in info.markers
    return dataclasses.replace(
        inner,
        metavar=f"{inner.metavar}|none" if allowed else inner.metavar,
        instance_from_str=lambda words: None if allowed and words[0] in NONE else inner.instance_from_str(words),
        is_instance=lambda value: value is None or inner.is_instance(value),
        str_from_instance=lambda value: ["none"] if value is None else inner.str_from_instance(value),
        choices=inner.choices and (*inner.choices, *(NONE if allowed else ())),
    )


@REGISTRY.primitive_rule
def _several(info: PrimitiveTypeInfo):
    """Spells `tuple[X, ...]` as `[X ...]`, and an empty default as "none"."""
    if get_origin(info.type) is not tuple or get_args(info.type)[1:] != (Ellipsis,):
        return None
    inner = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(get_args(info.type)[0], info.markers))
    if not isinstance(inner, PrimitiveConstructorSpec) or not isinstance(inner.nargs, int):
        return None

    def read(words):
        if len(words) % inner.nargs:
            raise ValueError(f"the number of values must be a multiple of {inner.nargs}, and it is {len(words)}")
        return tuple(inner.instance_from_str(list(part)) for part in zip(*[iter(words)] * inner.nargs, strict=True))

    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"[{inner.metavar} ...]",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, tuple) and all(map(inner.is_instance, value)),
        str_from_instance=lambda value: [word for each in value for word in inner.str_from_instance(each)] or ["none"],
        choices=inner.choices,
    )


def default(text, metavar):
    """Returns what the help says of an option whose default, None, stands for something else.

    Args:
        text: String, what it stands for.
        metavar: String that stands for the value of the option.
    """
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {text})")


DATA_DIR = default("$TFDS_DATA_DIR or ~/tensorflow_datasets", "DIR")
"""What the help says of the option for the directory of tensorflow-datasets."""


def several(metavar):
    """Returns what the help says of a positional argument that stands for one thing or several.

    Args:
        metavar: String that stands for one of them.
    """
    return tyro.conf.arg(metavar=f"{metavar} ...", help_behavior_hint="(one or more)")


def parse(command, arguments, program, example, **options):
    """Returns what a function or a dataclass returns for the arguments of a command line.

    Args:
        command: Function or dataclass with annotated arguments. Its docstring is the text of the help.
        arguments: List of strings.
        program: String, the command for the help.
        example: String, one command, which the help shows after the text.
        **options: Further arguments of `tyro.cli`.

    Raises:
        SystemExit: with status 0 for `--help`, and 2 for arguments that do not fit.
    """
    text = options.pop("description", None) or paragraph(command.__doc__)
    if {"-h", "--help"} & set(arguments):  # tyro would make one long line of it
        paragraphs = [textwrap.fill(each, _columns()) for each in text.split("\n\n")]
        print("\n\n".join([*paragraphs, f"Example: {example}"]), end="\n\n")
    if inspect.isfunction(command):  # tyro would keep the line breaks in the texts of the arguments
        command.__doc__ = re.sub(r"\n {12,}", " ", command.__doc__)
    return tyro.cli(command, args=arguments, prog=program, description="", registry=REGISTRY, **options)


def paragraph(docstring):
    """Returns the text of a docstring up to its arguments, with one line for each paragraph."""
    text = textwrap.dedent(f"    {docstring}").split("\n\nArgs:")[0]
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def page(program, metavar, text, example, groups, footer):
    """Returns the help of a program with several commands, as wide as the terminal.

    Args:
        program: String.
        metavar: String that stands for one of the commands.
        text: String, what the program is for.
        example: String, one command.
        groups: Dictionary from the title of a group to a dictionary from the names of commands to what they do.
        footer: String, the last line.
    """
    columns = _columns()
    longest = max(len(name) for commands in groups.values() for name in commands)

    def wrapped(text, indent=""):
        return textwrap.fill(text, columns, initial_indent=indent, subsequent_indent=" " * (longest + 4))

    parts = [f"usage: {program} {metavar} ...", textwrap.fill(text, columns), f"Example: {example}"]
    for title, commands in groups.items():
        lines = [wrapped(summary, f"  {name:{longest}}  ") for name, summary in commands.items()]
        parts.append("\n".join([f"{title}:", *lines]))
    return "\n\n".join([*parts, textwrap.fill(footer, columns)])


def _columns():
    """Returns the number of columns of the text of a help."""
    return min(max(shutil.get_terminal_size().columns, 40), 100) - 1
