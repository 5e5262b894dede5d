"""Evaluation of the checkpoints of a run, during or after training."""

import contextlib
import json
import os
import time
from pathlib import Path

from allconv_resnet import files, pretrained
from allconv_resnet.data.holdout import HOLDOUT
from allconv_resnet.data.source import load_for_recipe
from allconv_resnet.errors import BadInput
from allconv_resnet.progress import say
from allconv_resnet.training import engines, json_lines, run_directory, run_state
from allconv_resnet.training.checkpoints import read_checkpoint, steps_on_disk
from allconv_resnet.training.details import require_directory, write_details
from allconv_resnet.training.engines.engine import means, number_of
from allconv_resnet.training.reports import describe_evaluation
from allconv_resnet.training.run_directory import EVALUATIONS
from allconv_resnet.training.weights import load_weights


def evaluate_run(run_dir, data_dir=None, split="test", checkpoint="latest", details=None):
    """Evaluates the network of a run.

    Args:
        run_dir: Path of the run directory, or the name of a network that comes with the package.
        data_dir: Directory of tensorflow-datasets, see `data.source.load_data`. The default is the one that the run
            was last trained with.
        split: `"train"`, `"test"` or `"holdout"`, the split that the recipe trains on, tests on, or holds out.
        checkpoint: See `weights.load_model`.
        details: Path of the directory that `details.write_details` writes to, or None.

    Returns:
        Dictionary with `step`, `loss` (nats), `error` and `top5_error` (fractions), and `images` (their number).

    Raises:
        BadInput: if the run or the data cannot be read, or do not fit each other.
    """
    run_dir = pretrained.find(run_dir)
    if details is not None:
        require_directory(details)  # before the evaluation, which takes a while
    with _evaluator(run_dir, data_dir, split) as (engine, test):
        step = load_weights(run_dir, checkpoint, lambda state: engine.load(state, training=False))
        result = {"step": step, **test()}
        if details is not None:
            write_details(engine.model, engine.source, _split_name(engine.recipe, split), engine.recipe, details)
        return result


def follow_run(run_dir, data_dir=None, split="test", pause=30, planned=None):
    """Evaluates each checkpoint of a run while it trains, until its last step.

    The checkpoints are evaluated in their order, as long as training has not deleted them. The results are added to
    the run's evaluations.jsonl. A checkpoint with a result there is not evaluated again.

    Args:
        run_dir: Path of the run directory.
        data_dir: See `evaluate_run`.
        split: See `evaluate_run`.
        pause: Number, seconds between two searches for a new checkpoint.
        planned: The part `run` of the recipe of a job, which may not have written it to config.json yet. Defaults to
            the one in config.json.

    Yields:
        The dictionaries that `evaluate_run` returns.

    Raises:
        BadInput: if the run or the data cannot be read, or do not fit each other, if the results cannot be written, or
            if it is a packed network, which has no checkpoints.
    """
    run_dir = pretrained.find(run_dir)
    if (run_dir / pretrained.WEIGHTS).exists():
        raise BadInput(f"{run_dir} has the weights of one step alone: evaluate it without --follow")
    path = run_dir / EVALUATIONS
    with _evaluator(run_dir, data_dir, split) as (engine, test):
        with _writable(path):
            lines = json_lines.repair(path, say)
        seen = {line["step"] for line in lines if line["split"] == split}
        waiting = False
        while True:
            run = planned or run_directory.read_recipe(run_dir).run
            ended = run_state.finished(run_dir, run)  # patience may end a run early
            new = [step for step in steps_on_disk(run_dir / "checkpoints") if step not in seen]
            if ended and not new and not seen:
                say(f"{run_dir} has finished and has no checkpoints: evaluate it without --follow")
            for step in new:
                seen.add(step)
                try:
                    state = read_checkpoint(run_dir / "checkpoints" / f"step-{step}.npz")
                    engine.load(state, training=False)
                except ValueError as error:
                    say(f"The checkpoint of step {step} is left out: {error}")
                    continue
                result = {"step": step, **test()}
                with _writable(path), open(path, "a", encoding="utf-8") as file:
                    file.write(json.dumps({"split": split, **result}) + "\n")
                yield result
                waiting = False
            if ended or max(seen, default=0) >= run.steps:
                return
            if not new:
                if not waiting:
                    say(f"Waiting for a checkpoint after step {max(seen, default=0):,} of {run.steps:,}")
                waiting = True
                time.sleep(pause)


def follow_job(recipe, run_dir, data_dir=None, wait=300):
    """Evaluates each checkpoint of a job as its evaluator, the task of TF_CONFIG that does not train.

    Args:
        recipe: `Recipe` of the job.
        run_dir: Path of the run directory, which the job shares.
        data_dir: See `evaluate_run`.
        wait: Number, seconds to wait for the job to begin.

    Raises:
        BadInput: if the job does not begin, or the data cannot be read.
    """
    deadline = time.monotonic() + wait
    run_dir = Path(run_dir).absolute()  # its name alone may be that of a network of the package
    while not os.path.exists(run_dir / "config.json"):
        if time.monotonic() > deadline:
            raise BadInput(f"The evaluator waited {wait:g} s for the run in {run_dir}, which has not begun")
        time.sleep(0.2)
    split = HOLDOUT if recipe.data.holdout else "test"
    for result in follow_run(run_dir, data_dir, split, pause=5, planned=recipe.run):
        say(f"step {result['step']:,}: {describe_evaluation(result, split)}")


@contextlib.contextmanager
def _writable(path):
    """Returns a context manager that raises `BadInput` if a file cannot be written."""
    try:
        yield
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def _evaluator(run_dir, data_dir, split):
    """Yields an engine with the network of a run, and a function that tests it on a split."""
    recipe = run_directory.read_recipe(run_dir)
    if split == HOLDOUT and not recipe.data.holdout:
        raise BadInput(f"The run in {run_dir} was trained without a holdout")
    name = _split_name(recipe, split)
    data_dir = files.expand(data_dir, "data_dir", bucket=True) or _remembered_data_dir(run_dir)
    engine = engines.create_engine("one")

    def test():
        sums = engine.test(name)
        return {**means(sums), "images": number_of("images", sums)}

    with engine.job(recipe, run_dir):
        engine.build(recipe, load_for_recipe(recipe.data, (name,), data_dir, recipe.seed), training=False)
        yield engine, test


def _split_name(recipe, split):
    return {"train": recipe.data.train_split, "test": recipe.data.test_split, HOLDOUT: HOLDOUT}[split]


def _remembered_data_dir(run_dir):
    """Returns the directory of the data with which a run was last trained, or None if it is not there."""
    sessions = run_directory.read_sessions(run_dir)
    directory = sessions[-1].get("data_dir") if sessions else None
    there = isinstance(directory, str) and (files.in_bucket(directory) or os.path.isdir(directory))
    return directory if there else None
