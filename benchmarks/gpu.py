"""Measures this project on a GPU that is at hand for minutes, on a machine with PyTorch and JAX and without a network.

    python benchmarks/gpu.py pack FOLDER --data-dir DIR       here: wheels and images, in parts of at most 60 MB
    python benchmarks/gpu.py receive FOLDER/part-1            there: takes over one part; repeat for each part
    python benchmarks/gpu.py speed                            there: this project on JAX against PyTorch
    python benchmarks/gpu.py train cifar10 --minutes 6        there: trains, or continues, and copies the logs to OUT

`receive` installs wheels with pip and keeps everything in STORE, which must survive between the commands. `train` keeps
its run directory there, so that the next command continues the run. The logs and the newest checkpoint are copied to
OUT. A machine with a network needs only the last two commands.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
WHEELS = ("keras", "namex", "optree", "pydantic", "pydantic-core", "annotated-types", "typing-inspection", "tyro")
WHEELS += ("docstring-parser", "typeguard", "wrapt", "lazy-loader")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_5_x86_64")
IMAGES_OF_A_PART = 18_000  # of 3,072 bytes
STORE = Path("/tmp/allconv_resnet-gpu")
LOGS = ("config.json", "environment.json", "metrics.jsonl", "labels.txt", "curves.png")


def pack(options):
    """Writes the parts that a machine without a network needs."""
    from allconv_resnet.data.source import load_data

    source = load_data(options.dataset, options.data_dir)
    splits = {"train": source.arrays("train"), "test": source.arrays("test")}
    number = 1
    for split, (images, labels) in splits.items():
        for start in range(0, len(labels), IMAGES_OF_A_PART):
            part = options.folder / f"part-{number}"
            part.mkdir(parents=True, exist_ok=True)
            piece = slice(start, start + IMAGES_OF_A_PART)
            np.savez_compressed(part / f"{split}-{start:06}.npz", images=images[piece], labels=labels[piece])
            number += 1
    (options.folder / "part-1" / "labels.txt").write_text("\n".join(source.label_names), encoding="utf-8")
    if options.wheels:
        wheels = options.folder / f"part-{number - 1}" / "wheels"  # the part with the fewest images
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--python-version", options.python, "--implementation", "cp", "--dest", str(wheels)]
        command += [word for platform in PLATFORMS for word in ("--platform", platform)]
        subprocess.run([*command, *options.wheels], check=True)
    for part in sorted(options.folder.glob("part-*")):
        size = sum(path.stat().st_size for path in part.rglob("*") if path.is_file())
        print(f"{part}: {size / 1e6:.1f} MB")


def receive(options):
    """Takes over one part: installs its wheels, and joins the images once all are there."""
    for path in options.part.rglob("*"):
        if path.is_file():
            target = options.store / path.relative_to(options.part)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    if (wheels := sorted((options.store / "wheels").glob("*.whl"))) and (options.part / "wheels").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--upgrade"]
        subprocess.run([*command, "--target", str(options.store / "site"), *map(str, wheels)], check=True)
    joined = {}
    for split, (images, labels) in {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")}.items():
        pieces = [np.load(path) for path in sorted(options.store.glob(f"{split}-*.npz"))]
        if pieces:
            joined |= {images: np.concatenate([piece["images"] for piece in pieces])}
            joined |= {labels: np.concatenate([piece["labels"] for piece in pieces])}
    if {"x_train", "x_test"} <= joined.keys():
        joined["label_names"] = np.array((options.store / "labels.txt").read_text(encoding="utf-8").split("\n"))
        np.savez(options.store / "images.npz", **joined)
    print({name: values.shape for name, values in joined.items()})


def speed(options):
    """Compares the train step of table 1 with PyTorch, eager and compiled."""
    command = [
        sys.executable,
        "benchmarks/speed.py",
        "cifar-train",
        "--ours",
        "ours_jax",
        "--turns",
        str(options.turns),
    ]
    command += ["--precision", "bfloat16", "--peers", "torch_peer", "torch_compiled", "--batch"]
    _run(options, [*command, *map(str, options.batch)])
    for path in sorted((ROOT / "results" / "benchmarks").glob("speed-cifar-train-*.json")):
        shutil.copy(path, options.out)


def train(options):
    """Trains a recipe, or continues it, and copies its logs."""
    run_dir = options.store / "runs" / options.recipe
    images = options.store / "images.npz"
    command = [sys.executable, "train_cifar.py", "--recipe", options.recipe, "--run-dir", str(run_dir), "--no-export"]
    command += ["--dataset", str(images)] if images.exists() else []
    try:
        _run(options, [*command, "--minutes", str(options.minutes), *options.more])
    finally:
        target = options.out / options.recipe
        target.mkdir(parents=True, exist_ok=True)
        newest = sorted((run_dir / "checkpoints").glob("step-*.npz"), key=lambda path: path.stat().st_mtime)[-1:]
        for path in (*(run_dir / name for name in LOGS), *newest):
            if path.exists():
                shutil.copy(path, target)


def _run(options, command):
    site = options.store / "site"
    paths = [str(ROOT), *([str(site)] if site.exists() else []), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    status = subprocess.run(command, cwd=ROOT, env=environment).returncode
    if status not in (0, 128 + 14):  # --minutes ends a run as SIGALRM would
        raise SystemExit(status)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)

    def command(function, *arguments):
        sub = commands.add_parser(function.__name__, help=function.__doc__)
        sub.set_defaults(function=function)
        sub.add_argument("--store", type=Path, default=STORE)
        sub.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "out")))
        for name, settings in arguments:
            sub.add_argument(name, **settings)

    command(
        pack,
        ("folder", {"type": Path}),
        ("--dataset", {"default": "cifar10"}),
        ("--data-dir", {"type": Path}),
        ("--python", {"default": "3.12", "help": "version of Python on the machine with the GPU"}),
        ("--wheels", {"nargs": "*", "default": WHEELS}),
    )
    command(receive, ("part", {"type": Path}))
    command(
        speed,
        ("--batch", {"type": int, "nargs": "+", "default": [128, 512]}),
        ("--turns", {"type": int, "default": 3}),
    )
    command(
        train,
        ("recipe", {}),
        ("--minutes", {"type": float, "default": 6.0}),
        ("--more", {"nargs": argparse.REMAINDER, "default": [], "help": "further options of the training"}),
    )
    options = parser.parse_args()
    options.function(options)


if __name__ == "__main__":
    main()
