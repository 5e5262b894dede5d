"""Evaluation of a run's checkpoint, apart from training."""

import json
import time
from pathlib import Path

import tensorflow as tf

from allconv_resnet.data import sources
from allconv_resnet.errors import BadInput
from allconv_resnet.training import run_directory, steps
from allconv_resnet.training.checkpoints import Checkpoints
from allconv_resnet.training.reports import EVALUATIONS


def load_model(run_dir, checkpoint="latest"):
    """Returns the network of a run with its trained weights, the recipe, and the step it was trained to.

    Args:
        run_dir: Path.
        checkpoint: `"latest"` or `"best"`, the one with the lowest test error.

    Raises:
        BadInput: if the directory has no run, or the run no such checkpoint that can be read.
    """
    recipe = run_directory.read_recipe(run_dir)
    model = recipe.build_model()
    directory = Path(run_dir) / "checkpoints" / ("best" if checkpoint == "best" else "")
    step, _ = Checkpoints(directory, model=model).restore(partial=True)
    if step is None:
        raise BadInput(f"{run_dir} has no {checkpoint} checkpoint yet")
    return model, recipe, step


def evaluate_run(run_dir, data_dir=None, split="test", checkpoint="latest"):
    """Returns the loss and the errors of a run's network.

    Args:
        run_dir: Path.
        data_dir: Path of tensorflow-datasets, see `sources.load`.
        split: `"train"` or `"test"`.
        checkpoint: As in `load_model`.

    Returns:
        Dictionary: `step`, `loss` (nats), `error` and `top5_error` (fractions), `images` (how many).

    Raises:
        BadInput: if the run or the data are not there, or do not fit each other.
    """
    model, recipe, step = load_model(run_dir, checkpoint)
    data = sources.load(recipe.dataset, data_dir)
    data.check(recipe.image_size, recipe.num_classes)
    strategy = tf.distribute.get_strategy()
    return {"step": step, **steps.evaluate(strategy, steps.make_evaluate_step(strategy, model), data, split, recipe)}


def follow(run_dir, data_dir=None, split="test", pause=30):
    """Evaluates each new checkpoint of a run in training, up to that of its last step.

    What was evaluated is in the run's evaluations.jsonl, and is not evaluated again.

    Args:
        run_dir: Path.
        data_dir: As in `evaluate_run`.
        split: As in `evaluate_run`.
        pause: Number, seconds between two looks for a new checkpoint.

    Yields:
        What `evaluate_run` returns.

    Raises:
        BadInput: as `evaluate_run`.
    """
    looked_at = 0
    while True:
        last = run_directory.read_recipe(run_dir).steps
        done = {line["step"] for line in run_directory.read_metrics(run_dir, EVALUATIONS) if line["split"] == split}
        newest = max(run_directory.steps_on_disk(Path(run_dir) / "checkpoints"), default=0)
        if newest not in {0, looked_at, *done}:
            looked_at = newest
            result = evaluate_run(run_dir, data_dir, split)
            if result["step"] in done:  # the newest is damaged, the one before it is known
                continue
            with open(Path(run_dir) / EVALUATIONS, "a") as file:
                file.write(json.dumps({"split": split, **result}) + "\n")
            yield result
        elif newest >= last:
            return
        else:
            time.sleep(pause)
