"""Measures this project on a GPU that is at hand for minutes, on a machine with PyTorch and JAX and without a network.

    python benchmarks/gpu.py pack FOLDER --data-dir DIR       here: wheels and images, in two parts of 50 MB
    python benchmarks/gpu.py receive FOLDER/part-1            there: takes over one part; repeat for each part
    python benchmarks/gpu.py train cifar10 --minutes 6        there: trains, or continues; repeat for other runs
    python benchmarks/gpu.py speed                            there: this project on JAX against PyTorch
    python benchmarks/gpu.py profile                          there: the kernels of this project's train step
    python benchmarks/gpu.py collect                          there: copies what the others have written to OUT

`receive` installs wheels with pip and keeps everything in STORE, which must survive between the commands. `train` keeps
its run directory there, so that the next command continues the run. Several commands may run at the same time: the
compiled programs are kept in STORE, and no process takes all of the memory of the GPU. A machine with a network needs
only `train`, `speed`, `profile` and `collect`.
"""

import argparse
import math
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
WHEELS = ("keras", "namex", "optree", "pydantic", "pydantic-core", "annotated-types", "typing-inspection", "tyro")
WHEELS += ("docstring-parser", "typeguard", "wrapt", "lazy-loader")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_5_x86_64")
SHEET = (40, 50)  # images in a column and in a row of a sheet, a WebP file without loss: 55 % of their bytes
STORE = Path("/tmp/allconv_resnet-gpu")
IMAGES = "cifar10-original.npz"
LOGS = ("config.json", "environment.json", "metrics.jsonl", "labels.txt", "curves.png", "details")
SPLITS = {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")}
LARGEST_FILE = 15 * 2**20  # bytes


def pack(options):
    """Writes the parts that a machine without a network needs."""
    from allconv_resnet import environment
    from allconv_resnet.data.source import load_data

    source = load_data(options.dataset, options.data_dir)
    parts = [options.folder / f"part-{number}" for number in range(1, options.parts + 1)]
    for part in parts:
        part.mkdir(parents=True, exist_ok=True)
    if options.wheels:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--python-version", options.python, "--implementation", "cp", "--dest", str(parts[0] / "wheels")]
        command += [word for platform in PLATFORMS for word in ("--platform", platform)]
        subprocess.run([*command, *options.wheels], check=True)
    for split in SPLITS:
        images, _ = source.arrays(split)
        for start in range(0, len(images), math.prod(SHEET)):
            part = min(parts, key=size)
            save_sheet(images[start : start + math.prod(SHEET)], part / f"{split}-{start:06}.webp")
    facts = {split: source.arrays(split)[1].astype(np.int32) for split in SPLITS}
    commit = environment.commit() or ""
    np.savez(parts[0] / "labels.npz", names=np.array(source.label_names), commit=commit, **facts)
    for part in parts:
        print(f"{part}: {size(part) / 1e6:.1f} MB")


def size(folder):
    """Returns the size of all files of a folder in bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


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
    print(f"{options.part} is in {options.store}")
    if not (options.store / "labels.npz").exists():
        return
    joined = {}
    with np.load(options.store / "labels.npz") as facts:
        (options.store / "commit").write_text(str(facts["commit"]), encoding="utf-8")
        sheets = sum(math.ceil(len(facts[split]) / math.prod(SHEET)) for split in SPLITS)
        if len(list(options.store.glob("*.webp"))) < sheets:  # other parts are still to come
            return
        for split, (images, labels) in SPLITS.items():
            sheets = [read_sheet(path) for path in sorted(options.store.glob(f"{split}-*.webp"))]
            joined |= {labels: facts[split], images: np.concatenate(sheets)[: len(facts[split])]}
        np.savez(options.store / IMAGES, names=facts["names"], **joined)
    print({name: values.shape for name, values in joined.items()})


def save_sheet(images, path):
    """Writes images, uint8 `[n, h, w, 3]`, side by side as one WebP file without loss. Black images fill the sheet."""
    n, h, w, c = images.shape
    sheet = np.zeros((math.prod(SHEET), h, w, c), np.uint8)
    sheet[:n] = images
    sheet = sheet.reshape(*SHEET, h, w, c).swapaxes(1, 2).reshape(SHEET[0] * h, SHEET[1] * w, c)
    Image.fromarray(sheet).save(path, "WEBP", lossless=True, quality=80, method=4, exact=True)


def read_sheet(path):
    """Returns the images of a sheet, uint8 `[n, h, w, 3]`, with the black ones that fill it."""
    sheet = np.asarray(Image.open(path))
    h, w = sheet.shape[0] // SHEET[0], sheet.shape[1] // SHEET[1]
    return sheet.reshape(SHEET[0], h, SHEET[1], w, 3).swapaxes(1, 2).reshape(-1, h, w, 3)


def speed(options):
    """Compares the train step of table 1 with PyTorch, eager and compiled."""
    command = [sys.executable, "benchmarks/speed.py", "cifar-train", "--ours", "ours_jax", "--precision", "bfloat16"]
    command += ["--turns", str(options.turns), "--peers", "torch_peer", "torch_compiled", "--batch"]
    run(options, [*command, *map(str, options.batch)])


def profile(options):
    """Shows which kernels the train step of table 1 takes its time for."""
    run(options, [sys.executable, "benchmarks/step_profile.py", "--batch", str(options.batch)])


def train(options):
    """Trains a recipe, or continues it."""
    run_dir = options.store / "runs" / (options.name or options.recipe)
    images = options.store / IMAGES
    command = [sys.executable, "train_cifar.py", "--recipe", options.recipe, "--run-dir", str(run_dir), "--no-export"]
    command += ["--dataset", str(images)] if images.exists() else []
    status = run(options, [*command, "--minutes", str(options.minutes), *options.more], stopped=128 + 14)
    if status == 0 and options.details:
        command = [sys.executable, "-m", "allconv_resnet", "evaluate", str(run_dir), "--details"]
        run(options, [*command, str(run_dir / "details")])


def collect(options):
    """Copies the logs of all runs, what speed and profile have written, and the weights that were asked for."""
    options.out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(options.out / "logs.tar.gz", "w:gz") as logs:
        for run_dir in sorted((options.store / "runs").glob("*")):
            for path in (run_dir / name for name in LOGS):
                if path.exists():
                    logs.add(path, f"{run_dir.name}/{path.name}")
        for name in ("speed-cifar-train-jax-*.json", "step_profile-*.json"):
            for path in sorted((ROOT / "results" / "benchmarks").glob(name)):
                logs.add(path, path.name)
    for name in options.weights:
        content = (options.store / "runs" / name / "model.keras").read_bytes()
        for number, start in enumerate(range(0, len(content), LARGEST_FILE)):
            (options.out / f"{name}.keras.{number}").write_bytes(content[start : start + LARGEST_FILE])


def run(options, command, stopped=0):
    """Runs a command with the packages of STORE, and returns its status, which must be 0 or `stopped`."""
    site, commit = options.store / "site", options.store / "commit"
    paths = [str(ROOT), *([str(site)] if site.exists() else []), os.environ.get("PYTHONPATH", "")]
    environment = {
        "KERAS_BACKEND": "jax",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_COMPILATION_CACHE_DIR": str(options.store / "compiled"),
        "ALLCONV_RESNET_COMMIT": commit.read_text(encoding="utf-8") if commit.exists() else "",
    }
    status = subprocess.run(command, cwd=ROOT, env=os.environ | environment).returncode
    if status not in (0, stopped):
        raise SystemExit(status)
    return status


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
        ("--parts", {"type": int, "default": 2}),
        ("--wheels", {"nargs": "*", "default": WHEELS}),
    )
    command(receive, ("part", {"type": Path}))
    command(
        speed,
        ("--batch", {"type": int, "nargs": "+", "default": [128, 512]}),
        ("--turns", {"type": int, "default": 3}),
    )
    command(profile, ("--batch", {"type": int, "default": 128}))
    command(
        train,
        ("recipe", {}),
        ("--name", {"help": "name of the run, by default that of the recipe"}),
        ("--minutes", {"type": float, "default": 6.0}),
        ("--details", {"action": "store_true", "help": "evaluate the finished network and keep its logits"}),
        ("--more", {"nargs": argparse.REMAINDER, "default": [], "help": "further options of the training"}),
    )
    command(collect, ("--weights", {"nargs": "*", "default": [], "help": "names of runs whose weights are copied too"}))
    options = parser.parse_args()
    options.function(options)


if __name__ == "__main__":
    main()
