"""Measures the time of `memorize` and `factorize` against the number of points and against the dimension.

    python benchmarks/theory.py [--data-dir ../shared/tfds]

1. `expressivity.memorize` on the first n CIFAR-10 training images with random labels. Each measurement runs in its own
   process, whose peak memory is measured. The model is saved, and another process loads it and predicts all labels.
2. `expressivity.memorize` on 5,000 normal points of d dimensions.
3. `linear.factorize` on normal matrices of d dimensions at depth 64.

Without --data-dir the images are random bytes. Every process first memorizes a few points, so that the time of
TensorFlow's start is not measured. The exponents are slopes of the logarithm of the processor time, which other jobs on
the machine affect less than the wall-clock time. That of `memorize` is the local one between the two largest numbers of
points: for fewer points the constant part of the time dominates, so that a fit over all of them is no exponent of the
algorithm, whose time grows like n^2 in the end.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

from allconv_resnet.theory import expressivity, linear
from allconv_resnet.theory.commands.reporting import load_images, print_table, write_results
from allconv_resnet.theory.hardt_ma.random_matrices import random_target

RESULT = Path(__file__).resolve().parent.parent / "results" / "theory" / "benchmark.json"
POINTS, WIDTHS = (1000, 2000, 5000, 10_000, 20_000, 50_000), (16, 64)
SEED = 0
INPUT_DIMENSIONS, MATRIX_DIMENSIONS = (32, 128, 512, 2048), (16, 32, 64, 128, 256)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument(
        "--repeats", type=int, default=3, help="measurements of each factorization, of which the median is used"
    )
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)  # memorize|predict, n, width, file
    options = parser.parse_args()
    if options.child:
        action, n, width, path = options.child
        images, labels = random_labels(options.data_dir, int(n))
        measure = {"memorize": measure_memorization, "predict": measure_prediction}[action]
        print(json.dumps(measure(images, labels, int(width), path)))
        return
    images = memorization_against_points(options.data_dir)
    dimensions = memorization_against_dimension()
    factorizations = factorization_against_dimension(options.repeats)
    write_results(
        RESULT,
        command=["python", "benchmarks/theory.py", *(["--data-dir", "DIR"] if options.data_dir else [])],
        seed=SEED,
        data="cifar10" if options.data_dir else "random bytes",
        memorize_against_points=images,
        memorize_against_dimension=dimensions,
        factorize_against_dimension=factorizations,
    )


def memorization_against_points(data_dir):
    """Measures `memorize` on images, prints the table, and returns it with the exponent of n at each width."""
    rows = []
    for width in WIDTHS:
        for n in POINTS:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.keras"
                row = run_in_new_process("memorize", n, width, path, data_dir)
                wrong = run_in_new_process("predict", n, width, path, data_dir)["wrong"]
                rows.append({**row, "wrong_in_new_process": wrong})
            print(f"{n} points, width {width}: {row['seconds']:.1f} s", file=sys.stderr)
    exponents = {}
    for width in WIDTHS:
        pairs = [(r["points"], r["cpu_seconds"]) for r in rows if r["width"] == width]
        exponents[width] = [exponent(pairs[i : i + 2]) for i in range(len(pairs) - 1)]
    columns = ["points", "width", "blocks", "parameters", "precision", "smallest_margin", "seconds", "cpu_seconds"]
    columns += ["peak_gigabytes", "wrong", "wrong_in_new_process"]
    show(columns, rows)
    for width, slopes in exponents.items():
        print(f"local exponents of memorize at width {width}: " + ", ".join(f"{slope:.2f}" for slope in slopes))
    return {"rows": rows, "local_exponents": exponents}


def memorization_against_dimension(n=5000, width=16):
    """Measures `memorize` on normal points of several dimensions."""
    rng, rows = np.random.default_rng(SEED), []
    labels = rng.integers(0, 10, n)
    expressivity.memorize(rng.standard_normal((n, 8)), labels, width)  # the first model takes longer
    for d in INPUT_DIMENSIONS:
        x = rng.standard_normal((n, d)).astype(np.float32)
        _, seconds, cpu_seconds = timed(lambda x=x: expressivity.memorize(x, labels, width))
        rows.append({"d": d, "points": n, "width": width, "seconds": seconds, "cpu_seconds": cpu_seconds})
    slope = exponent([(row["d"], row["cpu_seconds"]) for row in rows])
    show(list(rows[0]), rows)
    print(f"processor time of memorize against the input's dimension: d^{slope:.2f}")
    return {"rows": rows, "exponent": slope}


def factorization_against_dimension(repeats, depth=64):
    """Measures `factorize` with both methods on normal matrices."""
    rng, rows = np.random.default_rng(SEED), []
    for d in MATRIX_DIMENSIONS:
        R = random_target(rng, "normal", d)
        row = {"d": d, "depth": depth}
        for method in ("polar", "svd"):
            times = [timed(lambda m=method, R=R: linear.factorize(R, depth, method=m))[1:] for _ in range(repeats)]
            row[f"{method}_seconds"], row[f"{method}_cpu_seconds"] = np.median(times, axis=0).tolist()
        rows.append({**row, "repeats": repeats})
    slopes = {m: exponent([(row["d"], row[f"{m}_cpu_seconds"]) for row in rows]) for m in ("polar", "svd")}
    show(list(rows[0]), rows)
    print("processor time of factorize: " + ", ".join(f"{m} d^{slope:.2f}" for m, slope in slopes.items()))
    return {"rows": rows, "exponents": slopes}


def run_in_new_process(action, n, width, path, data_dir):
    """Returns the result of one measurement in a new process."""
    arguments = [*(["--data-dir", data_dir] if data_dir else []), "--child", action, str(n), str(width), str(path)]
    done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure_memorization(images, labels, width, path):
    """Memorizes, saves the model, and returns the measurement of all but the first model."""
    expressivity.memorize(images[:100], labels[:100], width)  # the first model takes longer
    model, seconds, cpu_seconds = timed(lambda: expressivity.memorize(images, labels, width))
    wrong = np.count_nonzero(expressivity.predict_labels(model, images) != labels)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9  # kilobytes on Linux
    model.save(path)
    measured = {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_gigabytes": peak, "wrong": int(wrong)}
    return {**vars(model.report), **measured}


def measure_prediction(images, labels, width, path):
    """Loads a saved model and counts the wrong labels."""
    model = keras.saving.load_model(path)
    return {"wrong": int(np.count_nonzero(expressivity.predict_labels(model, images) != labels))}


def random_labels(data_dir, n):
    """Returns the first n training images of CIFAR-10 (or random bytes) with random labels of 10 classes."""
    rng = np.random.default_rng(SEED)
    labels = rng.integers(0, 10, n)
    if data_dir:
        return load_images("cifar10", data_dir)[0][:n], labels
    return rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), labels


def timed(function):
    """Returns the result of `function()`, and its wall-clock and processor time in seconds."""
    began, cpu = time.perf_counter(), time.process_time()
    result = function()
    return result, time.perf_counter() - began, time.process_time() - cpu


def exponent(pairs):
    """Returns the least-squares slope of log y against log x."""
    return float(np.polyfit(*np.log(pairs).T, 1)[0])


def show(columns, rows):
    """Prints some columns of dictionaries."""
    print_table([name.replace("_", " ") for name in columns], [[row[name] for name in columns] for row in rows])


if __name__ == "__main__":
    main()
