"""Whether bfloat16 trains as float32 does: both loss curves over the first steps, under several seeds.

    python benchmarks/precision.py --data-dir DIR [--recipe cifar10-small] [--steps 200] [--seeds 3]

The same seed gives both precisions the same weights and the same batches. The difference between their losses, averaged
over the seeds, is compared with the deviation of the float32 losses from seed to seed: that of the same interval, which
so few seeds give roughly, and the root mean square over all intervals.
"""

import argparse
import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np
from harness import write

from allconv_resnet.recipes import RECIPES
from allconv_resnet.training.loop import train
from allconv_resnet.training.run_directory import read_metrics


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--recipe", default="cifar10-small", choices=RECIPES)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=20, help="steps of an interval")
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
    print(f"{recipe.name}, {options.seeds} seeds, deviation {deviation:.4f}: mean training loss of each interval")
    print(" steps   float32  bfloat16  difference / deviation")
    for i in range(len(difference)):
        print(
            f"{(i + 1) * options.every:6}  {means['float32'][i]:8.4f}  {means['bfloat16'][i]:8.4f}  "
            f"{difference[i] / deviation:+.2f}"
        )
    outside = int(np.sum(np.abs(difference) > deviations))
    outside_pooled = int(np.sum(np.abs(difference) > deviation))
    print(
        f"of {len(difference)} intervals {outside} differ by more than their own deviation, {outside_pooled} than that"
    )
    write(
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
