"""Whether a run directory is free, begun or finished, and whether a run may begin anew there. Nothing is written."""

import os
import zipfile
import zlib
from pathlib import Path

from allconv_resnet import files
from allconv_resnet.data.holdout import HOLDOUT
from allconv_resnet.errors import BadInput
from allconv_resnet.recipes.recipe import MAY_CHANGE
from allconv_resnet.training import run_directory
from allconv_resnet.training.checkpoints import steps_on_disk
from allconv_resnet.training.run_directory import EVALUATIONS, EXPORT, METRICS, MODEL

OWN_NAMES = {".lock", ".team"}  # a process that fails early leaves no other names


def resolve_recipe(run_dir, recipe, precision, overwrite=False):
    """Returns the recipe with which a run begins or continues.

    Args:
        run_dir: Path of the run directory.
        recipe: `Recipe` that the user asked for.
        precision: `"float32"` or `"bfloat16"`, the precision of a new run whose recipe has the precision `auto`. A run
            that has begun keeps its precision.
        overwrite: Boolean, whether to begin anew, whatever run is in the directory.

    Raises:
        BadInput: if the directory has files but no run, or results that beginning anew would overwrite, or a run of
            another recipe. The message says what to do, and lists the fields that differ.
    """
    run_dir = Path(run_dir)
    before = None
    if os.path.exists(run_dir / "config.json"):  # False where the directory cannot be read either
        before = None if overwrite else run_directory.read_recipe(run_dir)
    elif foreign := _foreign_names(run_dir):
        raise BadInput(
            f"The run directory must be new or empty, or have the config.json of a run, so that no files are lost. "
            f"Received: {run_dir} with {', '.join(foreign[:3])}{', ...' if len(foreign) > 3 else ''}"
        )
    if recipe.precision == "auto":
        recipe = recipe.replace(precision=before.precision if before else precision)
    if before is None:
        return recipe
    differences = _differences(before, recipe)
    begun = steps_on_disk(run_dir / "checkpoints") or _results(run_dir) or run_directory.read_metrics(run_dir)
    if differences and begun:
        raise BadInput(
            f"{run_dir} belongs to another recipe and was not changed: {'; '.join(differences)}. Choose another "
            f"--run-dir, or begin anew with --overwrite"
        )
    return recipe


def continues(run_dir, recipe):
    """Returns whether a directory has a run of a recipe.

    Args:
        run_dir: Path of the run directory.
        recipe: `Recipe`.

    Raises:
        BadInput: if the config.json there cannot be read.
    """
    if not os.path.exists(Path(run_dir) / "config.json"):
        return False
    before = run_directory.read_recipe(run_dir)
    return not _differences(
        before, recipe.replace(precision=before.precision) if recipe.precision == "auto" else recipe
    )


def require_within(run_dir, steps):
    """Raises `BadInput` if a run has already made more steps than it should have made at its end.

    Args:
        run_dir: Path of the run directory.
        steps: Integer, number of steps of the recipe.
    """
    made = max(steps_on_disk(Path(run_dir) / "checkpoints"), default=0)
    if made > steps:
        raise BadInput(
            f"{run_dir} has already made {made:,} steps, so it cannot end at step {steps:,}: give it at least as many "
            f"steps, choose another --run-dir, or begin anew with --overwrite"
        )


def require_no_results(run_dir, steps):
    """Raises `BadInput` if a run without a checkpoint has results, which beginning anew would overwrite.

    A run that failed before its first checkpoint has no results, even if its log has lines.

    Args:
        run_dir: Path of the run directory.
        steps: Integer, number of steps of the recipe.
    """
    run_dir = Path(run_dir)
    if not steps_on_disk(run_dir / "checkpoints") and (results := _results(run_dir)):
        raise BadInput(
            f"{run_dir} has {', '.join(results)}, but no checkpoint from which the run could continue to step "
            f"{steps:,}: put its checkpoints back, choose another --run-dir, or begin anew with --overwrite, which "
            f"deletes these results"
        )


def require_same_classes(run_dir, source):
    """Raises `BadInput` if a run that has made steps was trained on other classes than a source has.

    Args:
        run_dir: Path of the run directory.
        source: `Source`.
    """
    if not steps_on_disk(Path(run_dir) / "checkpoints"):
        return
    try:
        names = run_directory.read_labels(run_dir)
    except BadInput:
        return  # the loop writes the file again
    pairs = zip(names, map(str, source.label_names), strict=True)
    if differences := [f"{there!r} there and {here!r} here" for there, here in pairs if there != here]:
        raise BadInput(
            f"{run_dir} was trained on other classes than {source.name} has ({'; '.join(differences[:3])}): choose "
            f"another --run-dir, or begin anew with --overwrite. If the same classes have new names, delete labels.txt "
            f"there, and the same command continues the run"
        )


def exhausted(lines, patience):
    """Returns whether the last `patience` tests on the held-out images brought no lower error.

    Args:
        lines: Lines of metrics.jsonl.
        patience: Integer, or None for no limit.
    """
    errors = [line["error"] for line in lines if line["split"] == HOLDOUT]
    return patience is not None and bool(errors) and len(errors) - 1 - errors.index(min(errors)) >= patience


def finished(run_dir, run):
    """Returns whether a run has finished: it has made its last test and written the tested network.

    Args:
        run_dir: Path of the run directory.
        run: The part `run` of the recipe, with the number of steps and the patience.

    Raises:
        BadInput: if the log cannot be opened.
    """
    run_dir = Path(run_dir)
    model = run_dir / MODEL
    lines = run_directory.read_metrics(run_dir)
    # With held-out images the run is tested once, at its end, which comes early if patience was exhausted.
    reached = "planned" if exhausted(lines, run.patience) else "step"
    tests = [line for line in lines if line["split"] == "test"]
    if not any(line.get(reached, line["step"]) >= run.steps for line in tests) or not is_whole(model):
        return False
    # A prolonged run may have been stopped before it wrote the network again. Then its newest checkpoint is newer.
    checkpoints = run_dir / "checkpoints"
    newest = max(steps_on_disk(checkpoints), default=None)
    noted = [session["finished"] for session in run_directory.read_sessions(run_dir) if "finished" in session]
    if newest in noted:  # times say nothing after a copy
        return True
    return newest is None or model.stat().st_mtime >= (checkpoints / f"step-{newest}.npz").stat().st_mtime


def is_whole(path):
    """Returns whether a `.keras` or `.npz` file exists and all its checksums are right."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return False


def _foreign_names(run_dir):
    """Returns the names of the files in a directory that a run which failed early does not leave."""
    try:
        names = sorted(path.name for path in run_dir.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BadInput(f"The run directory {run_dir} cannot be written to: {error.strerror}") from error
    return [name for name in names if name not in OWN_NAMES and not files.TEMPORARY.fullmatch(name)]


def _results(run_dir):
    """Returns the names of the results of a run that has made a checkpoint, as a list of strings."""
    if not (run_dir / "config.json").exists():
        return []
    found = [name for name in (MODEL, EVALUATIONS) if (run_dir / name).exists()]
    found += [EXPORT] if _names(run_dir / EXPORT) else []
    metrics = run_directory.read_metrics(run_dir)
    sessions = run_directory.read_sessions(run_dir)
    run = run_directory.read_recipe(run_dir).run
    last = max((line["step"] for line in metrics), default=0)
    best = max(steps_on_disk(run_dir / "checkpoints" / "best"), default=0)
    continued = any(type(session.get("first_step")) is int and session["first_step"] > 0 for session in sessions)
    tested = any(line["split"] == "test" and line["step"] >= run.steps for line in metrics)
    # The log is written before the checkpoint of the same step.
    later = continued or tested or max(last, best) > min(run.checkpoint_every, run.steps)
    found += [METRICS] if metrics and later else []
    found += ["checkpoints/best"] if best and (later or not metrics) else []
    return found


def _names(directory):
    try:
        return [path.name for path in directory.iterdir() if not path.name.startswith(".")]
    except OSError:
        return []


def _differences(there, here):
    may_change = set(MAY_CHANGE) - ({"steps"} if here.schedule.depends_on_steps else set())
    old, new = there.flat(), here.flat()
    if old.get("centre") is None:  # older versions did not write it
        may_change.add("centre")
    return [
        f"{key} is {old.get(key)!r} there and {new.get(key)!r} here"
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key) and key not in may_change
    ]
