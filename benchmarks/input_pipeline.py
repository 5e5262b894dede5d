"""Measures how many augmented, standardized images per second the CIFAR pipeline delivers without training.

    python benchmarks/input_pipeline.py [--data-dir ../shared/tfds]

Without --data-dir the images are random bytes of the size of CIFAR-10, which take the same time.
"""

import argparse
import itertools

import numpy as np
from harness import elapsed_seconds, spread, write_figures

from allconv_resnet.data import pipeline
from allconv_resnet.data.source import load_data
from allconv_resnet.recipes import CIFAR10


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--batches", type=int, default=400, help="batches of 128 images in a measurement")
    parser.add_argument("--repeats", type=int, default=7, help="number of measurements")
    options = parser.parse_args()
    if options.data_dir:
        images, labels = load_data("cifar10", options.data_dir).arrays("train")
    else:
        images = np.random.default_rng(0).integers(0, 256, (50_000, 32, 32, 3), dtype=np.uint8)
        labels = np.zeros(50_000, np.int64)

    batches = iter(pipeline.training_batches(images, labels, CIFAR10))
    next(batches)  # builds the graph

    def deliver():
        for _ in itertools.islice(batches, options.batches):
            pass

    count = options.batches * CIFAR10.run.batch_size
    rates = spread([count / elapsed_seconds(deliver) for _ in range(options.repeats)])
    print("images/s   min {min:,.0f}   median {median:,.0f}   max {max:,.0f}   (n = {n})".format(**rates))
    write_figures(
        "input_pipeline",
        {"images_per_second": rates, "batch_size": CIFAR10.run.batch_size, "real": bool(options.data_dir)},
    )


if __name__ == "__main__":
    main()
