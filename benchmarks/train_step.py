"""Measures the time that the training loop adds to the bare train step.

    python benchmarks/train_step.py [--recipe cifar10-small] [--steps 300] [--pairs 5]

Both make the same steps of the same network, in turn, in one process. The bare step is the compiled function, called
repeatedly with one batch in memory. The loop is the whole of `training.loop.train` with its input pipeline, metrics,
TensorBoard events and progress. Its time is that of a run of 10 + N steps minus that of a run of 10 steps, so that
building, the evaluation at the end and the last checkpoint do not count. The images are the embedded digits.
"""

import argparse
import contextlib
import io
import tempfile
from pathlib import Path

import tensorflow as tf
from harness import elapsed_seconds, spread, write_figures

from allconv_resnet.data import pipeline
from allconv_resnet.data.source import load_data
from allconv_resnet.recipes import RECIPES
from allconv_resnet.training.engines import steps
from allconv_resnet.training.loop import train

WARM_UP = 10


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="cifar10-small", choices=RECIPES)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    recipe = RECIPES[options.recipe].replace(
        dataset="digits", precision="float32", evaluate_every=10**6, checkpoint_every=10**6
    )

    strategy = tf.distribute.get_strategy()
    model, optimizer = recipe.build_model(), recipe.build_optimizer()
    optimizer.build(model.trainable_variables)
    step = steps.make_train_step(
        strategy,
        model,
        optimizer,
        steps.Totals(),
        recipe.run.batch_size,
        recipe.optimizer.clip_norm,
        recipe.run.label_smoothing,
    )
    data = load_data("digits").arrays("train")
    images, labels = next(iter(pipeline.training_batches(*data, recipe)))

    def bare():
        for _ in range(options.steps):
            step(images, labels)
        optimizer.iterations.numpy()  # waits for the last step

    def run(count):
        with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stderr(io.StringIO()):
            train(recipe.replace(steps=count), Path(directory) / "run")

    bare(), run(WARM_UP)
    pairs = []
    for pair in range(options.pairs):
        shorter = elapsed_seconds(lambda: run(WARM_UP))
        before = elapsed_seconds(bare)
        within = (elapsed_seconds(lambda: run(WARM_UP + options.steps)) - shorter) / options.steps
        without = (before + elapsed_seconds(bare)) / 2 / options.steps  # before and after, against drift
        pairs.append((without, within))
        print(
            f"pair {pair + 1}: bare {without:.4f} s, loop {within:.4f} s per step, ratio {within / without:.4f}",
            flush=True,
        )
    ratios = spread([within / without for without, within in pairs])
    print("loop / bare   min {min:.4f}   median {median:.4f}   max {max:.4f}   (n = {n})".format(**ratios))
    bare_seconds = spread([without for without, _ in pairs])
    write_figures(
        "train_step",
        {
            "recipe": recipe.name,
            "batch_size": recipe.run.batch_size,
            "loop_over_bare": ratios,
            "bare_seconds": bare_seconds,
        },
    )


if __name__ == "__main__":
    main()
