"""Conversion of the config.json of older versions."""

from allconv_resnet.errors import BadInput
from allconv_resnet.part import as_lists, flat_fields
from allconv_resnet.recipes.parts import KINDS, Run

OWN = {"name", "seed", "precision"}
CHOICES = {"network", "optimizer", "linear_decay", "decay_epochs"}  # fields that chose a kind
DEFAULTS = {"decay_factor": 0.1, "nesterov": False, "weight_decay": 1e-4}  # where today's defaults differ


def nest_fields(values, sessions=()):
    """Returns the content of a config.json with one dictionary for each part, as this version writes it.

    Version 0.1 had all fields in one flat dictionary, and the part of an image that evaluation shows, `centre`, in
    environment.json. Where no session has it, `centre` is None.

    Args:
        values: Dictionary, the content of a config.json of any version.
        sessions: The sessions of the environment.json beside it.

    Raises:
        BadInput: if a field is unknown or missing.
    """
    if "run" in values:
        return values
    known = {field for table in KINDS.values() for part in table.values() for field in flat_fields(part)}
    if unknown := sorted(set(values) - known - set(flat_fields(Run())) - OWN - CHOICES):
        raise BadInput(f"A recipe has no field {', '.join(unknown)}")
    if missing := [name for name in ("name", "dataset", "num_classes") if name not in values]:
        raise BadInput(f"A recipe must have the fields name, dataset and num_classes. Missing: {', '.join(missing)}")
    centre = next((session["centre"] for session in reversed(sessions) if "centre" in session), None)
    # Version 0.1 did not write the kind of the data. It evaluated records on the middle of their images.
    records = values["dataset"] == "imagenet2012" or centre not in (None, 1.0)
    decays = "epochs" if values.get("decay_epochs") is not None else "steps"
    kinds = {
        "data": "records" if records else "arrays",
        "network": values.get("network", "allconv_resnet"),
        "optimizer": values.get("optimizer", "momentum"),
        "schedule": "linear" if values.get("linear_decay") else decays,
    }
    content = {name: values[name] for name in OWN if name in values}
    content["run"] = _taken(Run(), values)
    for name, kind in kinds.items():
        if kind not in KINDS[name]:
            raise BadInput(f"{name} must be one of {', '.join(KINDS[name])}. Received: {name}={kind!r}")
        part = KINDS[name][kind]
        own = values if name != "network" or kind == "allconv_resnet" else {}  # the others had no fields of their own
        content[name] = {"kind": part.kind, **_taken(part, {**DEFAULTS, **own})}
    content["data"]["centre"] = centre
    return content


def _taken(part, values):
    return {name: values.get(name, as_lists(default)) for name, default in flat_fields(part).items()}
