"""Adapts a recipe to its data in the fields that the user has not set. What was adapted stands in config.json."""

from allconv_resnet.data.holdout import HOLDOUT, held_out
from allconv_resnet.data.source import load_data
from allconv_resnet.data.splits import TEST, TRAIN
from allconv_resnet.errors import BadInput
from allconv_resnet.part import flat_fields
from allconv_resnet.training import run_state


def adapt(recipe, given, run_dir, data_dir=None, overwrite=False):
    """Returns a recipe that fits its data.

    Args:
        recipe: `Recipe`.
        given: Set of the short names of fields that the user has set, which are not changed.
        run_dir: Path of the run directory. If it has a run of this very recipe, the data are not looked at.
        data_dir: See `data.source.load_data`.
        overwrite: Boolean, whether the run in the directory is of no importance.

    Returns:
        `Recipe`, the source of its data or None, and a list of sentences that say what was adapted.

    Raises:
        BadInput: if the data cannot be read, there are no images to test on, or an option of the user has no effect on
            such data.
    """
    if not overwrite and run_state.continues(run_dir, recipe):
        return recipe, None, []
    if "centre" in given and recipe.data.centre is None:
        raise BadInput("centre must be a number, which exports and predictions need. Received: centre=None")
    source = load_data(recipe.data.dataset, data_dir)
    if "data" in given:
        source = source.as_kind(recipe.data.kind)
    fields, defaults = recipe.fields(), flat_fields(type(recipe.data)())
    changed = {name for name in given & set(defaults) if fields[name] != defaults[name]}
    if lost := sorted(changed & set(getattr(source, "without_effect", ()))):
        raise BadInput(f"--{lost[0].replace('_', '-')} has no effect on the images of the folder {source.name}")
    adapted = _with_kind(recipe, source, given)
    adapted = adapted.replace(**_changes(adapted, source, given))
    before, after = recipe.flat(), adapted.flat()
    changed = [f"{name}={value}" for name, value in after.items() if name in before and value != before[name]]
    said = [f"Adapted to the data of {source.name}: {', '.join(changed)}"] if changed else []
    used = {adapted.data.train_split, adapted.data.test_split}
    unused = [split for split in source.splits if split not in used]
    if unused and "dataset" in given and used <= {*source.splits, HOLDOUT}:
        said.append(f"The images of these splits are not used: {', '.join(unused)}")
    if adapted.data.test_split == HOLDOUT:
        said.append(
            f"{source.name} has no test images: the test error will be that of the held-out images, by which the best "
            "checkpoint is chosen"
        )
    return adapted, source, said


def _with_kind(recipe, source, given):
    """Returns the recipe with the kind of data that a source has."""
    if source.kind == recipe.data.kind:
        return recipe
    adapted = recipe.with_kind("data", source.kind)
    if lost := sorted(given & set(flat_fields(recipe.data)) - set(flat_fields(adapted.data))):
        what = "images of one size in memory" if source.kind == "arrays" else "image files of all sizes"
        raise BadInput(
            f"--{lost[0].replace('_', '-')} is an option of --data {recipe.data.kind}, but {source.name} has {what}, "
            f"--data {source.kind}"
        )
    return adapted


def _changes(recipe, source, given):
    """Returns the fields that have to change, with their new values."""
    data, changes = recipe.data, {}
    if data.num_classes != len(source.label_names):
        changes["num_classes"] = len(source.label_names)
    if source.image_size not in (None, data.image_size):
        changes["image_size"] = source.image_size
    if data.train_split not in source.splits:
        changes["train_split"] = next((split for split in TRAIN if split in source.splits), data.train_split)
    found = next((split for split in TEST if split in source.splits), None)
    is_default = data.test_split == type(data)().test_split
    if data.test_split not in (*source.splits, HOLDOUT) or (
        found and is_default and getattr(source, "names_test_images", False)
    ):
        if found is None and data.holdout:
            found = HOLDOUT
        elif found is None and "test_split" not in given:
            raise BadInput(
                f"{source.name} has no test images, so --holdout must say how many training images are not trained on, "
                f"for instance --holdout 0.1. Its splits are: {', '.join(source.splits)}"
            )
        changes["test_split"] = found
    if given & {"dataset", "schedule", "train_split", "holdout"} and "epoch_images" in recipe.fields():
        images = source.examples(changes.get("train_split", data.train_split))
        changes["epoch_images"] = images - held_out(data.holdout, images)
    if recipe.network.whitened_stem and "stem" in recipe.fields():
        stem = recipe.network.stem
        channels = changes.get("image_size", data.image_size)[2]
        changes["stem"] = (min(stem[0], stem[1] ** 2 * channels), *stem[1:])
    return {name: value for name, value in changes.items() if name not in given}
