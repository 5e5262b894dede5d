"""Measures the singular values of the Jacobian of the CIFAR network (table 1), from 3,072 pixels to 16,384 features.

    python benchmarks/jacobians.py

The script prints one table and writes results/benchmarks/jacobians.json: the time for the 20 largest and the 20
smallest singular values from the whole Jacobian, and for the 20 largest by Lanczos iteration, which must agree.
Processor time is reported besides wall-clock time, which other jobs on the machine distort.
"""

import time

import harness
import keras
import numpy as np

import allconv_resnet as acr
from allconv_resnet.theory import isometry
from allconv_resnet.theory.commands.reporting import print_table, progress_callback

K = 20


def main():
    model = acr.cifar_resnet(10)
    body = keras.Model(model.input, model.get_layer("pool").input)
    image = np.random.default_rng(0).standard_normal((32, 32, 3)).astype(np.float32)
    rows, values = [], {}
    for method, which in (("dense", "both"), ("lanczos", "largest")):
        wall, processor = time.perf_counter(), time.process_time()
        values[method] = isometry.jacobian_singular_values(
            body, image, k=K, which=which, method=method, progress=progress_callback(method)
        )
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        rows.append((method, which, wall, processor, values[method][0], values[method][-1]))
    print_table(("method", "ends", "seconds", "processor seconds", "largest", "last"), rows)
    difference = np.max(np.abs(values["lanczos"] / values["dense"][:K] - 1))
    print(f"largest relative difference of the {K} largest: {difference:.1e}")
    keys = ("method", "ends", "wall_seconds", "processor_seconds")
    figures = {
        "network": "cifar_resnet(10), Table 1, body",
        "k": K,
        "runs": [dict(zip(keys, row[:4], strict=True)) for row in rows],
        "largest_relative_difference": float(difference),
        "largest": values["dense"][:K].tolist(),
        "smallest": values["dense"][K:].tolist(),
    }
    harness.write_figures("jacobians", figures)


if __name__ == "__main__":
    main()
