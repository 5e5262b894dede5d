"""Measures how the time of a train step grows with the batch size and with the depth and the width of the network.

    python benchmarks/growth.py [--precision bfloat16]

One size is varied at a time. The base is (3, 3, 3) blocks of widths (32, 64, 128) at batch size 64 on 32x32 images. The
exponents are least-squares slopes of the logarithms. The number of operations grows with exponent 1 in the batch size
and the depth, and with exponent 2 in the width.
"""

import argparse

import keras
import numpy as np
import tensorflow as tf
from harness import elapsed_seconds, spread, write_figures

import allconv_resnet as acr
from allconv_resnet.training.engines import steps

BASE = {"batch": 64, "depth": 3, "width": 32}
SIZES = {"batch": (16, 32, 64, 128, 256), "depth": (1, 2, 4, 8), "width": (16, 32, 64, 128)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    figures = {}
    for name, sizes in SIZES.items():
        rows = []
        for size in sizes:
            times = step_seconds(**{**BASE, name: size}, precision=options.precision, repeats=options.repeats)
            rows.append({"size": size, "step_seconds": times})
            print(
                "{} {:4}   {:.4f} s   ({:.4f} to {:.4f}, n = {})".format(
                    name, size, *map(times.get, ("median", "min", "max", "n"))
                ),
                flush=True,
            )
        slope = float(np.polyfit(np.log(sizes), np.log([row["step_seconds"]["median"] for row in rows]), 1)[0])
        print(f"step time grows with {name}^{slope:.2f}")
        figures[name] = {"rows": rows, "exponent": slope}
    write_figures("growth", {"step_precision": options.precision, "base": BASE, **figures})


def step_seconds(batch, depth, width, precision, repeats):
    """Returns the spread of the time of one step in seconds."""
    stages = [(depth, width, 1), (depth, 2 * width, 2), (depth, 4 * width, 2)]
    policy = {"float32": "float32", "bfloat16": "mixed_bfloat16"}[precision]
    keras.backend.clear_session()
    model = acr.AllConvResNet((32, 32, 3), 10, (16, 3, 1, 1), stages, dtype=policy)
    optimizer = acr.Momentum(0.01)
    optimizer.build(model.trainable_variables)
    step = steps.make_train_step(tf.distribute.get_strategy(), model, optimizer, steps.Totals(), batch)
    images, labels = tf.random.normal([batch, 32, 32, 3]), tf.zeros([batch], tf.int64)
    count = 1

    def run():
        for _ in range(count):
            step(images, labels)
        optimizer.iterations.numpy()

    run(), run()
    count = max(1, round(1.0 / elapsed_seconds(run)))
    return spread([elapsed_seconds(run) / count for _ in range(repeats)])


if __name__ == "__main__":
    main()
