"""Compares the training losses of bfloat16 and float32 over the first steps with several seeds.

    python benchmarks/precision.py --data-dir DIR [--recipe cifar10-small] [--steps 200] [--seeds 3]

With the same seed both precisions have the same initial weights and batches. The difference between their losses,
averaged over the seeds, is compared with the standard deviation of the float32 losses over the seeds: that of the same
interval, which is a rough estimate from so few seeds, and the root mean square over all intervals.
"""

import argparse
import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np
from harness import write_figures

from allconv_resnet.recipes import RECIPES
from allconv_resnet.training.loop import train
from allconv_resnet.training.run_directory import read_metrics


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--recipe", default="cifar10-small", choices=RECIPES)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=20, help="steps in an interval")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    recipe = RECIPES[options.recipe].replace(
        steps=options.steps, log_every=options.every, evaluate_every=10**6, checkpoint_every=10**6
    )
    losses = {
        precision: np.array(
            [curve(recipe.replace(precision=precision, seed=seed), options.data_dir) for seed in range(options.seeds)]
        )
        for precision in ("float32", "bfloat16")
    }
    means = {precision: curves.mean(axis=0) for precision, curves in losses.items()}
    deviations = losses["float32"].std(axis=0, ddof=1)
    deviation = float(np.sqrt(np.mean(deviations**2)))
    difference = (losses["bfloat16"] - losses["float32"]).mean(axis=0)
    print(f"{recipe.name}, {options.seeds} seeds: mean training loss of each interval")
    print(f"(the root mean square of the standard deviations is {deviation:.4f})")
    print(" steps   float32  bfloat16  difference / standard deviation")
    for i in range(len(difference)):
        print(
            f"{(i + 1) * options.every:6}  {means['float32'][i]:8.4f}  {means['bfloat16'][i]:8.4f}  "
            f"{difference[i] / deviation:+.2f}"
        )
    outside = int(np.sum(np.abs(difference) > deviations))
    outside_pooled = int(np.sum(np.abs(difference) > deviation))
    print(
        f"{outside} of {len(difference)} intervals differ by more than their own standard deviation, "
        f"{outside_pooled} by more than the root mean square"
    )
    write_figures(
        "precision",
        {
            "recipe": recipe.name,
            "steps": options.steps,
            "losses": {precision: curves.tolist() for precision, curves in losses.items()},
            "deviation": deviation,
            "intervals": len(difference),
            "outside": outside,
            "outside_pooled": outside_pooled,
            "largest_ratio": float(np.max(np.abs(difference) / deviation)),
        },
    )


def curve(recipe, data_dir):
    """Returns the mean training loss of each interval of one run."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        train(recipe, Path(folder) / "run", data_dir)
        return [line["loss"] for line in read_metrics(Path(folder) / "run") if line["split"] == "train"]


if __name__ == "__main__":
    main()
