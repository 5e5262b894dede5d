"""Evaluation of the checkpoints of a run, during or after training."""

import json
import time
from pathlib import Path

from allconv_resnet.data.holdout import HOLDOUT
from allconv_resnet.data.source import load_for_recipe
from allconv_resnet.errors import BadInput
from allconv_resnet.training import engines, run_directory
from allconv_resnet.training.checkpoints import Checkpoints, steps_on_disk
from allconv_resnet.training.engines.engine import SUMS, means
from allconv_resnet.training.reports import EVALUATIONS


def load_model(run_dir, checkpoint="latest"):
    """Returns the network of a run with its trained weights.

    Args:
        run_dir: Path of the run directory.
        checkpoint: Which checkpoint: `"latest"`, or `"best"`, the one with the lowest test error.

    Returns:
        Keras model, `Recipe`, and the step of the checkpoint.

    Raises:
        BadInput: if the directory has no run, or the run has no such checkpoint that can be read.
    """
    recipe = run_directory.read_recipe(run_dir)
    model = recipe.build_model()

    def load(state):
        weights = [state[name] for name in sorted(state) if name.startswith("model/")]
        if [weight.shape for weight in weights] != [tuple(variable.shape) for variable in model.variables]:
            raise ValueError(f"it holds another network, of {len(weights)} variables")
        for variable, weight in zip(model.variables, weights, strict=True):
            variable.assign(weight)

    return model, recipe, restore_checkpoint(run_dir, checkpoint, load)


def restore_checkpoint(run_dir, checkpoint, load):
    """Loads a checkpoint of a run and returns its step.

    Args:
        run_dir: Path of the run directory.
        checkpoint: See `load_model`.
        load: Function of a dictionary of arrays, which raises `ValueError` if the arrays do not fit.

    Raises:
        BadInput: if the run has no such checkpoint that can be read.
    """
    directory = Path(run_dir) / "checkpoints" / ("best" if checkpoint == "best" else "")
    step, _ = Checkpoints(directory).restore(load)
    if step is None:
        raise BadInput(f"{run_dir} has no {checkpoint} checkpoint yet")
    return step


def evaluate_run(run_dir, data_dir=None, split="test", checkpoint="latest"):
    """Evaluates the network of a run.

    Args:
        run_dir: Path of the run directory.
        data_dir: Directory of tensorflow-datasets, see `data.source.load_data`.
        split: `"train"`, `"test"` or `"holdout"`, the split that the recipe trains on, tests on, or holds out.
        checkpoint: See `load_model`.

    Returns:
        Dictionary with `step`, `loss` (nats), `error` and `top5_error` (fractions), and `images` (their number).

    Raises:
        BadInput: if the run or the data cannot be read, or do not fit each other.
    """
    recipe = run_directory.read_recipe(run_dir)
    if split == HOLDOUT and not recipe.data.holdout:
        raise BadInput(f"The run in {run_dir} was trained without a holdout")
    names = {"train": recipe.data.train_split, "test": recipe.data.test_split, HOLDOUT: HOLDOUT}
    name = names[split]
    engine = engines.create_engine("one")
    with engine.job(recipe, run_dir):
        engine.build(recipe, load_for_recipe(recipe.data, (name,), data_dir, recipe.seed), training=False)
        step = restore_checkpoint(run_dir, checkpoint, lambda state: engine.load(state, training=False))
        sums = engine.test(name)
    return {"step": step, **means(sums), "images": int(sums[SUMS.index("images")])}


def follow_run(run_dir, data_dir=None, split="test", pause=30):
    """Evaluates each new checkpoint of a run while it trains, until its last step.

    The results are added to the run's evaluations.jsonl. A checkpoint with a result there is not evaluated again.

    Args:
        run_dir: Path of the run directory.
        data_dir: See `evaluate_run`.
        split: See `evaluate_run`.
        pause: Number, seconds between two searches for a new checkpoint.

    Yields:
        The dictionaries that `evaluate_run` returns.

    Raises:
        BadInput: if the run or the data cannot be read, or do not fit each other.
    """
    looked_at = 0
    while True:
        last = run_directory.read_recipe(run_dir).run.steps
        done = {line["step"] for line in run_directory.read_metrics(run_dir, EVALUATIONS) if line["split"] == split}
        newest = max(steps_on_disk(Path(run_dir) / "checkpoints"), default=0)
        if newest not in {0, looked_at, *done}:
            looked_at = newest
            result = evaluate_run(run_dir, data_dir, split)
            if result["step"] in done:  # the newest checkpoint is damaged, and the one before it has a result
                continue
            with open(Path(run_dir) / EVALUATIONS, "a") as file:
                file.write(json.dumps({"split": split, **result}) + "\n")
            yield result
        elif newest >= last:
            return
        else:
            time.sleep(pause)
