"""Measures the time until a network classifies 90, 92 and 93.62 % of CIFAR-10's test images.

    python benchmarks/time_to_accuracy.py --data-dir DIR [--run-dir runs/time-to-accuracy] [--seeds 0 1 2]
                                          [--contenders ours keras torch] [--targets 90 92 93.62]

93.62 % is the accuracy of Hardt & Ma. There are three contenders:

    ours     this project's networks without normalization
    keras    the batch-normalized network of airbench94 (Jordan 2024, arXiv 2404.00498), in Keras on TensorFlow with the
             faster layers of this project
    torch    the same in PyTorch with torch.compile

Each has a training with a schedule of its own length for each target, in PLANS. The table says how many of them ended
at the target or above. The time is processor time of all threads, from the first step to the end of the last one, so
that other work on the machine counts little. It counts the tracing and compiling that this process does. What
torch.compile compiles in other processes does not count. Run it on one core (`taskset -c 0`): threads that wait for
each other would count too.

Everything resumes: the script may be stopped at any time, and called again with the same options. Finished trainings
are not repeated. It writes results/benchmarks/time_to_accuracy-HARDWARE.json after each of them. The peer needs the
extra `bench`, and DIR the original images: those that were re-encoded as JPEG give other accuracies.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import harness

ROOT = Path(__file__).resolve().parent.parent
NARROW = ("--stages", 2, 64, 2, 4, 128, 2, 2, 256, 2)

EPOCH_OF_AIRBENCH = 48  # batches of 1,024

# For each target, the options of the training program (there are none for PyTorch) and the number of steps.
PLANS = {
    "ours": {
        90.0: (("--recipe", "cifar10-fixed-norm", *NARROW, "--warmup-steps", 80), 900),
        92.0: (("--recipe", "cifar10-fixed-norm", *NARROW, "--warmup-steps", 100), 2_000),
        93.62: (("--recipe", "cifar10-wide"), 3_300),
    },
    "keras": {
        90.0: (("--recipe", "airbench94"), 4 * EPOCH_OF_AIRBENCH),
        92.0: (("--recipe", "airbench94"), 6 * EPOCH_OF_AIRBENCH),
        93.62: (("--recipe", "airbench94"), 10 * EPOCH_OF_AIRBENCH),
    },
}
PLANS["torch"] = {target: ((), steps) for target, (_, steps) in PLANS["keras"].items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/time-to-accuracy"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--contenders", nargs="+", choices=PLANS, default=list(PLANS))
    parser.add_argument("--targets", type=float, nargs="+", choices=(90.0, 92.0, 93.62), default=[90.0, 92.0, 93.62])
    options = parser.parse_args()
    for seed in options.seeds:  # the contenders take turns
        for target in options.targets:
            for name in options.contenders:
                run_dir = options.run_dir / folder(name, target) / f"seed{seed}"
                if ended(run_dir) is None:
                    subprocess.run(command(name, target, seed, options.data_dir, run_dir), cwd=ROOT, check=True)
                write(options.run_dir)
    show(table(options.run_dir))


def folder(name, target):
    """Returns the name of the folder of the trainings of a plan. Those of another plan have another name."""
    _, steps = PLANS[name][target]
    return f"{name}-{target:g}-{steps}"


def command(name, target, seed, data_dir, run_dir):
    """Returns the command of a training as a list."""
    options, steps = PLANS[name][target]
    common = [
        "--steps",
        steps,
        "--seed",
        seed,
        "--run-dir",
        run_dir.absolute(),
        "--data-dir",
        Path(data_dir).absolute(),
    ]
    if name == "torch":
        words = [Path(__file__).parent / "contenders" / "torch_airbench.py", *common]
    else:
        words = [ROOT / "train_cifar.py", *options, "--evaluate-every", 10**6, "--no-export", *common]
    return [sys.executable, *map(str, words)]


def ended(run_dir):
    """Returns the accuracy in percent, the processor minutes and the commits of a finished training, or None.

    In a log of the training program each line of training has the processor time since the line before, and in that of
    PyTorch the line of the test has all of it.
    """
    log = run_dir / "metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    tests = [line for line in lines if line["split"] == "test"]
    config = run_dir / "config.json"
    if not tests or (config.exists() and tests[-1]["step"] < json.loads(config.read_text())["run"]["steps"]):
        return None
    sessions = json.loads((run_dir / "environment.json").read_text())["sessions"] if config.exists() else tests
    minutes = sum(line.get("cpu_seconds", 0) for line in lines) / 60
    return 100 * (1 - tests[-1]["error"]), minutes, {session["commit"] for session in sessions}


def table(all_runs):
    """Returns what has ended for each contender and target, as a list of dictionaries."""
    rows = []
    for name, plans in PLANS.items():
        for target in plans:
            runs = [found for path in sorted((all_runs / folder(name, target)).glob("seed*")) if (found := ended(path))]
            if runs:
                accuracies, minutes, commits = zip(*runs, strict=True)
                reached = sum(accuracy >= target for accuracy in accuracies)
                row = {"contender": name, "target": target, "runs": len(runs), "reached": reached}
                row |= {"accuracy": list(accuracies), "processor_minutes": list(minutes)}
                rows.append(row | {"steps": PLANS[name][target][1], "commits": sorted(set().union(*commits))})
    return rows


def write(all_runs):
    """Writes the JSON file, if any training has ended."""
    if rows := table(all_runs):
        harness.write_figures(f"time_to_accuracy-{harness.hardware()}", {"rows": rows})


def show(rows):
    """Prints the table."""
    print(f"\n{'contender':10} {'target':>7} {'reached':>8} {'accuracy':>22} {'processor minutes':>24}")
    for row in rows:
        shown = []
        for key, form in (("accuracy", "{:.2f}"), ("processor_minutes", "{:.1f}")):
            low, middle, high = (form.format(f(row[key])) for f in (min, statistics.median, max))
            shown.append(f"{middle} ({low} to {high})")
        reached = f"{row['reached']} of {row['runs']}"
        print(f"{row['contender']:10} {row['target']:7g} {reached:>8} {shown[0]:>22} {shown[1]:>24}")


if __name__ == "__main__":
    main()
