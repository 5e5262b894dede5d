"""Converts the config.json of older versions to today's form."""

from allconv_resnet.errors import BadInput

# The fields of the flat recipes of version 0.1, by the part that has them today.
RUN = ("batch_size", "steps", "label_smoothing", "log_every", "evaluate_every", "checkpoint_every")
IMAGES = ("dataset", "num_classes", "image_size")
ARRAYS = ("padding", "flip", "cutout")
RECORDS = ("flip", "cutout", "smallest_crop", "shuffle_buffer", "bad_images")
ALL_CONV = ("stem", "stages", "kernel_sizes", "activation", "final_activation", "use_bias", "whitened_stem")
ALL_CONV += ("trainable_head", "initialization", "normalization", "shortcut", "mirror_average")
OPTIMIZER = ("momentum", "nesterov", "weight_decay", "clip_norm")
SCHEDULE = ("learning_rate", "warmup_steps")
OTHERS = ("name", "seed", "precision")
KINDS = ("network", "optimizer", "linear_decay")
DECAYS = ("boundaries", "decay_factor", "decay_epochs", "epoch_images")

NETWORKS = {
    "all_cnn_c": {"kind": "all_cnn_c"},
    "resnet20": {"kind": "resnet", "depth": 20},
    "resnet20_plain": {"kind": "resnet", "depth": 20, "normalization": None},
    "resnet110": {"kind": "resnet", "depth": 110},
    "densenet_bc": {"kind": "densenet_bc"},
}


def nest_fields(values, sessions=()):
    """Returns the content of a config.json in today's form, which has a dictionary for each part.

    Version 0.1 had all fields in one flat dictionary. `centre`, the fraction of an image that evaluation shows, was in
    environment.json. If no session has it, `centre` is None, and functions that need it raise `BadInput`.

    Args:
        values: Dictionary, the content of a config.json of any version.
        sessions: Sequence of dictionaries, the sessions of the run's environment.json.

    Raises:
        BadInput: if a field is unknown.
    """
    if "run" in values:
        return values
    known = {*RUN, *IMAGES, *ARRAYS, *RECORDS, *ALL_CONV, *OPTIMIZER, *SCHEDULE, *OTHERS, *KINDS, *DECAYS}
    if unknown := sorted(set(values) - known):
        raise BadInput(f"A recipe has no field {', '.join(unknown)}")
    if missing := [name for name in ("name", "dataset", "num_classes") if name not in values]:
        raise BadInput(f"A recipe must have the fields name, dataset and num_classes. Missing: {', '.join(missing)}")

    def taken(names):
        return {name: values[name] for name in names if name in values}

    centre = next((session["centre"] for session in reversed(sessions) if "centre" in session), None)
    # Version 0.1 did not write the kind of the data. It evaluated records, such as ImageNet's, on the middle of images.
    records = values["dataset"] == "imagenet2012" or centre not in (None, 1.0)
    data = {"kind": "records" if records else "arrays", **taken(IMAGES + (RECORDS if records else ARRAYS))}
    network = values.get("network", "allconv_resnet")
    if network != "allconv_resnet" and network not in NETWORKS:
        raise BadInput(f"network must be one of allconv_resnet, {', '.join(NETWORKS)}. Received: network={network!r}")
    return {
        **taken(OTHERS),
        "data": {**data, "centre": centre},
        "network": NETWORKS.get(network) or {"kind": network, **taken(ALL_CONV)},
        "optimizer": {"kind": values.get("optimizer", "momentum"), **taken(OPTIMIZER)},
        "schedule": {**taken(SCHEDULE), **_decay(values)},
        "run": taken(RUN),
    }


def _decay(values):
    names = {"decay_factor"}
    if values.get("linear_decay"):
        kind, names = "linear", set()
    elif values.get("decay_epochs") is not None:
        kind, names = "epochs", {"decay_factor", "decay_epochs", "epoch_images"}
    else:
        kind, names = "steps", {"decay_factor", "boundaries"}
    defaults = {"decay_factor": 0.1} if "decay_factor" in names else {}
    return {"kind": kind, **defaults, **{name: values[name] for name in DECAYS if name in values and name in names}}
