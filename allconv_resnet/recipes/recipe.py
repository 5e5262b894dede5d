"""Recipes. A recipe contains everything that determines the weights after N steps.

It contains neither the run directory nor the directory of the data nor the number of devices.
"""

import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from allconv_resnet import memory
from allconv_resnet.errors import BadInput
from allconv_resnet.part import Name, Natural, as_lists, as_tuples, flat_fields, from_json, part
from allconv_resnet.recipes import parts
from allconv_resnet.recipes.migrate import nest_fields
from allconv_resnet.recipes.parts.data import Arrays, Images
from allconv_resnet.recipes.parts.network import AllConv, Network
from allconv_resnet.recipes.parts.optimizer import Momentum, Optimizer
from allconv_resnet.recipes.parts.run import Run
from allconv_resnet.recipes.parts.schedule import Schedule, Steps
from allconv_resnet.types import StrPath

if TYPE_CHECKING:
    import keras
    import numpy as np

POLICIES = {"auto": None, "float32": "float32", "bfloat16": "mixed_bfloat16"}

MAY_CHANGE = ("steps", "patience", "log_every", "evaluate_every", "checkpoint_every", "bad_images")
"""These fields do not affect the weights, so they may change on resume."""


@part
class Recipe:
    """An experiment, made of parts. Sections and tables are those of Hardt & Ma (arXiv 1611.04231).

    Example:

    >>> recipe = acr.recipes.CIFAR10.replace(steps=1_000, boundaries=(500,), optimizer="muon")
    >>> recipe.run.steps, recipe.optimizer.kind, recipe.network.stages
    (1000, 'muon', ((9, 64, 1), (9, 128, 2), (9, 256, 2)))
    >>> acr.recipes.Recipe.from_dict(recipe.to_dict()) == recipe
    True
    """

    name: Name
    """Name of the experiment."""
    data: Images = Arrays()
    network: Network = AllConv()
    optimizer: Optimizer = Momentum()
    schedule: Schedule = Steps()
    run: Run = Run()
    seed: Natural = 0
    """Determines the initial weights, the projection, the order of the images and their augmentation."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`float32`, `bfloat16` (with float32 weights), or `auto`, which is bfloat16 if the hardware has it."""

    def __post_init__(self) -> None:
        self.schedule.check(self.run)
        if self.run.patience and not self.data.holdout:
            raise BadInput(f"patience needs --holdout to choose by. Received: patience={self.run.patience}, holdout=0")

    def replace(self, **changes: Any) -> Self:
        """Returns the recipe with some fields changed.

        Args:
            **changes: Values by the short names of fields (`steps`, `padding`, ...) or of parts. The value for a part
                is an object or the name of a kind (`network="resnet20"`). A new kind has its defaults, but data,
                optimizers and schedules keep the values of the fields that both kinds have.

        Raises:
            BadInput: if the recipe's parts have no such field, or a value is not valid.
        """
        recipe = self
        for name in parts.KINDS:
            if isinstance(changes.get(name), str):
                recipe = recipe.with_kind(name, changes.pop(name))
        given = {name: changes.get(name, getattr(recipe, name)) for name in (*parts.KINDS, "run")}
        known = {key for value in given.values() if dataclasses.is_dataclass(value) for key in flat_fields(value)}
        own = {field.name for field in dataclasses.fields(recipe)}
        if unknown := sorted(set(changes) - set(known) - own):
            raise BadInput(_no_such_field(recipe, unknown[0]))
        return _replaced(recipe, changes)

    def with_kind(self, name: str, kind: str) -> Self:
        """Returns the recipe with another kind of a part, see `replace`.

        Args:
            name: Name of the part: `data`, `network`, `optimizer` or `schedule`.
            kind: String, a key of the part's table.

        Raises:
            BadInput: if there is no such kind.
        """
        table = parts.KINDS[name]
        if kind not in table:
            raise BadInput(f"{name} must be one of {', '.join(table)}. Received: {name}={kind!r}")
        old, new = getattr(self, name), table[kind]
        if type(old) is type(new) and kind == new.kind:
            return self
        if type(old) is not type(new) and name != "network":  # fields of the same name differ between networks
            values = flat_fields(old)
            other = {"centre", "test_split", "weight_decay", "nesterov"}  # these differ in their meaning
            shared = set(values) & set(flat_fields(new)) - other
            new = _replaced(new, {field: values[field] for field in shared})
        return dataclasses.replace(self, **{name: new})

    def fields(self) -> dict[str, Any]:
        """Returns all fields of the parts by their short names, as a flat dictionary."""
        names = (*parts.KINDS, "run")
        return {key: value for name in names for key, value in flat_fields(getattr(self, name)).items()}

    def flat(self) -> dict[str, Any]:
        """Returns the whole recipe as a flat dictionary: its own fields, the kinds of its parts, and their fields."""
        kinds = {name: getattr(self, name).kind for name in parts.KINDS}
        return {"name": self.name, **kinds, **self.fields(), "seed": self.seed, "precision": self.precision}

    def build_model(self, images: "np.ndarray | None" = None) -> "keras.Model":
        """Returns the network with its initial weights in the recipe's precision (for `auto`, Keras's dtype policy).

        Args:
            images: uint8 array `[n, h, w, c]` of training images that determine a whitened stem, or None if the weights
                will be loaded.

        Raises:
            BadInput: if the fields of the recipe do not describe a valid network, or its weights do not fit into the
                memory.
        """
        weights, _ = self.sizes()
        memory.require(self._received("network"), weights=4 * weights)
        return self._build(images)

    def sizes(self) -> tuple[int, int]:
        """Returns the number of the network's weights, and of the values of its layers for one image.

        Raises:
            BadInput: if the fields of the recipe do not describe a valid network.
        """
        return memory.sizes(self._build)

    def _build(self, images=None):
        name = re.sub(r"[^A-Za-z0-9_.]", "_", self.name)
        name = name if name[:1].isalnum() else f"network{name}"  # TensorFlow has no scopes with other names
        try:
            model = self.network.build(self.data, self.seed, POLICIES[self.precision], name, images)
        except Exception as error:  # Keras raises many types of errors for names and sizes that do not fit
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise BadInput(f"The network cannot be built: {reason}") from error
        from allconv_resnet.transfer import freeze

        freeze(model, self.run.start.freeze)
        return model

    def require_memory(self, devices: int = 1, accelerators: bool = False) -> None:
        """Raises `BadInput` if one step of training certainly needs more memory than this machine has.

        What is counted is a lower bound: the weights, their velocities and gradients, the outputs of the layers for the
        images of one device, these images before they are cropped, and the undecoded images of records.

        Args:
            devices: Integer, number of devices that share a batch.
            accelerators: Boolean, whether the network is computed on accelerators, which have a memory of their own.
        """
        images = -(-self.run.batch_size // devices)
        height, width, channels = self.data.image_size
        border = 2 * self.fields().get("padding", 0)
        needs = {"images": images * (height + border) * (width + border) * channels}
        if not accelerators:
            weights, outputs = self.sizes()
            size = 2 if self.precision == "bfloat16" else 4
            needs |= {"weights_and_gradients": 3 * 4 * weights, "outputs_of_layers": images * outputs * size}
        memory.require(self._received("run", "data", "network"), **needs)

    def _received(self, *names):
        asked = {key: value for name in names for key, value in flat_fields(getattr(self, name)).items()}
        names = ("batch_size", "image_size", "padding", "num_classes", "stem", "stages", "kernel_sizes", "depth")
        return ", ".join(f"{name}={asked[name]}" for name in (*names, "growth") if name in asked)

    def build_schedule(self) -> "keras.optimizers.schedules.LearningRateSchedule":
        """Returns the learning rate as a Keras schedule, a function of the step."""
        return self.schedule.build(self.run)

    def build_optimizer(self, **arguments: Any) -> "keras.optimizers.Optimizer":
        """Returns the recipe's Keras optimizer with its schedule.

        The optimizer does not clip gradients, see `Optimizer.arguments`. For `fit` on one device pass
        `global_clipnorm=recipe.optimizer.clip_norm`.

        Args:
            **arguments: Further arguments of the Keras optimizer.
        """
        return self.optimizer.build(self.build_schedule(), **arguments)

    def to_dict(self) -> dict[str, Any]:
        """Returns the recipe in the form of config.json: a dictionary for each part with its kind, and no tuples."""
        content = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if dataclasses.is_dataclass(value):
                kind = {"kind": value.kind} if field.name in parts.KINDS else {}
                content[field.name] = {**kind, **{key: as_lists(entry) for key, entry in flat_fields(value).items()}}
            else:
                content[field.name] = value
        return content

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Returns the recipe that `to_dict` of this or an older version has written.

        Args:
            values: Dictionary, the content of a config.json.

        Raises:
            BadInput: if a field or a kind is unknown, or a value is not valid.
        """
        if not isinstance(values, dict):
            raise BadInput(f"A recipe must be a JSON object. Received: {values!r}")
        values = dict(nest_fields(values))
        content = {}
        for name, table in {**parts.KINDS, "run": {"run": Run()}}.items():
            fields = dict(values.pop(name, {}))
            kind = fields.pop("kind", "run") if name == "run" else fields.pop("kind", None)
            if kind not in table:
                raise BadInput(f"{name} must have a kind among {', '.join(table)}. Received: kind={kind!r}")
            default = table[kind]
            known = flat_fields(default)
            if unknown := sorted(set(fields) - set(known)):
                raise BadInput(f"{name} {kind} has no field {', '.join(unknown)}. Its fields are: {', '.join(known)}")
            content[name] = _from_json(default, fields)
        return from_json(cls, {**values, **content})

    @classmethod
    def read(cls, path: StrPath) -> Self:
        """Returns the recipe in a JSON file, for instance the config.json of a run.

        Args:
            path: Path of the file.

        Raises:
            BadInput: if the file cannot be read or has no recipe.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise BadInput(f"{path} cannot be read as a recipe: {str(error).splitlines()[0]}") from error


def kinds_with(field: str) -> list[tuple[str, str]]:
    """Returns the kinds of parts that have a field, as a list of pairs such as `("data", "arrays")`.

    Example:

    >>> from allconv_resnet.recipes.recipe import kinds_with
    >>> kinds_with("depth")
    [('network', 'resnet'), ('network', 'densenet_bc')]
    """
    return [
        (name, kind)
        for name, table in parts.KINDS.items()
        for kind, value in table.items()
        if field in flat_fields(value) and kind == value.kind
    ]


def _replaced(content, changes):
    """Returns a copy of a dataclass with the values of `changes`, also in nested dataclasses."""
    new = {}
    for field in dataclasses.fields(content):
        value = getattr(content, field.name)
        if field.name in changes:
            value = changes[field.name]
            new[field.name] = _replaced(value, changes) if dataclasses.is_dataclass(value) else value
        elif dataclasses.is_dataclass(value):
            changed = _replaced(value, changes)
            if changed != value:
                new[field.name] = changed
    return dataclasses.replace(content, **new) if new else content


def _from_json(default, fields):
    """Returns a part with the values of a dictionary of JSON values and the defaults of its kind."""
    own = {}
    for field in dataclasses.fields(default):
        value = getattr(default, field.name)
        if dataclasses.is_dataclass(value):
            own[field.name] = _from_json(value, {k: v for k, v in fields.items() if k in flat_fields(value)})
        else:
            own[field.name] = as_tuples(fields.get(field.name, value))
    return from_json(type(default), own)


def _no_such_field(recipe, name):
    kinds = kinds_with(name)
    if not kinds:
        return f"A recipe has no field {name}. The fields of this one are: {', '.join(recipe.fields())}"
    part_name = kinds[0][0]
    owners = " and ".join(kind for _, kind in kinds)
    return (
        f"{name} is a field of {part_name} {owners}, but this recipe has {part_name} {getattr(recipe, part_name).kind}"
    )
