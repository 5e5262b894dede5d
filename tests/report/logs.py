"""Logs of runs as training writes them, and how to find a row in a page."""

import json

ENVIRONMENT = {"cores": 2, "cpu": "Test CPU", "gpus": [], "commit": "0123456789+changes", "precision": "float32"}


def write_run(path, seed, error, step=40, config=None, planned=None, **changes):
    """Writes the log of a run of 40 steps of 10 images at 5 images a second: 80 seconds."""
    path.mkdir(parents=True)
    lines = [
        {
            "step": at,
            "split": "train",
            "loss": 2 * error,
            "error": error / 2,
            "images_per_second": 5.0,
            "cpu_seconds": 60.0,
        }
        for at in range(20, step + 1, 20)
    ]
    ended = {} if planned is None else {"planned": planned}  # the last test of a run with held-out images
    lines.append({"step": step, "split": "test", "loss": 1.0, "error": error, **ended})
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = config or {"name": "digits", "seed": seed, "steps": 40, "batch_size": 10, **changes}
    (path / "config.json").write_text(json.dumps(config))
    sessions = [{**ENVIRONMENT, "command": ["train_cifar.py", "--recipe", "digits"]}]
    (path / "environment.json").write_text(json.dumps({"sessions": sessions}))


def write_seeds(path, errors):
    """Writes the log of a finished run for each test error, under seeds 0, 1 and so on."""
    for seed, error in enumerate(errors):
        write_run(path / f"seed{seed}", seed, error)


def write_diverged(path, seed, at, **changes):
    """Writes the log of a run whose loss was not finite at a step, before its first line."""
    write_run(path, seed, 1.0, **changes)
    (path / "metrics.jsonl").write_text("")
    (session,) = json.loads((path / "environment.json").read_text())["sessions"]
    (path / "environment.json").write_text(json.dumps({"sessions": [{**session, "not_finite_at": at}]}))


def row(text, start):
    """Returns the cells of the one row of a page that starts so."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start}")]
    return [cell.strip() for cell in line.strip("|").split("|")]
