"""The measurements that results/ has to show in one sentence each, with the figure that it is for."""

from collections.abc import Callable
from typing import NamedTuple


class Measurement(NamedTuple):
    """A JSON that a benchmark or a theory command writes, `results/FILE`, and the sentence that it supports.

    The file may be a pattern: a row for each machine that has one.
    """

    file: str
    what: str
    command: str
    figure: Callable[[dict], str]


def spread(values, form=".3g"):
    """Returns the median of a benchmark's turns with the least, the most and their number."""
    median, least, most = (format(values[key], form) for key in ("median", "min", "max"))
    return f"{median} ({least} to {most}, n = {values['n']:g})"


def _scaling(d):
    in_step, rate, staleness = (d["check"][key] for key in ("in_step_seconds", "updates_per_second", "staleness"))
    return (
        f"in step {in_step['measured']:.3f} s a step (predicted {in_step['predicted']:.3f}); asynchronous "
        f"{rate['measured']:.1f} updates a second ({rate['predicted']:.1f}), staleness {staleness['measured']:.2f} "
        f"({staleness['predicted']:.2f})"
    )


def _landscape(d):
    # JSON has no infinity: without an eps the certificate says nothing, but then the run has ended below linear anyway.
    excess = [r["ended"] - r["linear"] - (r["eps"] or 0.0) for r in d["results"]]
    escaped = sum(r["escapes"] > 0 for r in d["results"])
    return f"{max(excess):.2g} at most over {len(excess)} runs, {escaped} of which left a saddle by the certified way"


def _regret(d):
    violations = sum(r["violations"] for r in d["results"].values())
    slack = min(r["smallest_slack"] for r in d["results"].values())
    return f"{violations} violations in {len(d['results'])} runs of {d['steps']:,} steps, smallest slack {slack:.2g}"


def _same_cumulant(d):
    small = d["spreads"]["small mean"]
    scale, cumulant = (small[arm]["early"] for arm in ("same weight scale", "same c"))
    return f"{scale:.3g} at equal weight scale, {cumulant:.3g} at equal c: a ratio of {cumulant / scale:.2g}"


def _memorized(d):
    rows = [r for r in d["memorize_against_points"]["rows"] if r["points"] == 50_000]
    return "; ".join(
        f"width {r['width']}: {r['wrong']} wrong, {r['wrong_in_new_process']} in a new process, "
        f"{r['parameters'] / 1e6:.2f}M parameters, {r['precision']}, {r['seconds']:.0f} s, "
        f"{r['peak_gigabytes']:.1f} GB"
        for r in rows
    )


def _exponents(d):
    points = ", ".join(f"n^{e:.2f} at width {w}" for w, e in d["memorize_against_points"]["exponents"].items())
    polar = d["factorize_against_dimension"]["exponents"]["polar"]
    return f"memorize {points} and d^{d['memorize_against_dimension']['exponent']:.2f}; factorize d^{polar:.2f}"


def _factorized(d):
    f = d["factorizations"]
    return (
        f"relative error at most {f['error']:.1e}, {f['polar_share']:.2f} of the bound at most, "
        f"polar above svd in {len(f['above'])} of {f['count']}"
    )


def _bounds(d):
    n, broken = d["options"]["networks"], d["printed_bound"]["broken"]
    return (
        f"least ratio {d['corrected_bound']['least_ratio']:.9f}; the printed bound is broken on {broken / n:.1%} "
        f"of {n:,}"
    )


def _jacobians(d):
    runs = "; ".join(f"{r['method']}, {r['ends']}: {r['wall_seconds']:.0f} s" for r in d["runs"])
    return f"{runs}; they differ by {d['largest_relative_difference']:.0e}"


def _network(d):
    return "; ".join(
        f"{r['network']}: c = {', '.join('{c:.2g}'.format(**stage) for stage in r['stages'])}" for r in d["results"]
    )


def _start_up(d):
    entry = d["entries"][0]["contenders"]
    return "; ".join(
        f"{name} {c['all']['median']:.1f} s, of which import {c['import']['median']:.1f}" for name, c in entry.items()
    )


def _decoded(d):
    over = ", ".join(f"{peer} {spread(values, '.2f')}" for peer, values in d["ours_over"].items())
    return f"over {over}; {d['images_per_second']['ours']['median']:,.0f} images/s"


MEASUREMENTS = (
    Measurement(
        "benchmarks/input_pipeline.json",
        "images a second that the CIFAR pipeline alone augments, 2 cores; aim: 200,000",
        "python benchmarks/input_pipeline.py --data-dir DIR",
        lambda d: spread(d["images_per_second"], ",.0f"),
    ),
    Measurement(
        "benchmarks/train_step.json",
        "time of a step in the training loop over that of the bare step; aim: at most 1.03",
        "python benchmarks/train_step.py --pairs 6",
        lambda d: spread(d["loop_over_bare"], ".3f"),
    ),
    Measurement(
        "benchmarks/imagenet_input.json",
        "crops that a core takes out of ImageNet's files, over each peer's; aim: 1.15 over the best of them",
        "python benchmarks/imagenet_input.py --data-dir DIR --repeats 15",
        _decoded,
    ),
    Measurement(
        "benchmarks/scaling.json",
        "two workers on one machine against the model of docs/scaling.md, medians of 3",
        "python benchmarks/scaling.py --check",
        _scaling,
    ),
    Measurement(
        "theory/linear/linear.json",
        "theorem 2.1: the product equals R, and the norm keeps the bound",
        "allconv-resnet theory linear",
        _factorized,
    ),
    Measurement(
        "theory/linear/linear.json",
        "equation 2.3, corrected: squared gradient norm over the bound",
        "allconv-resnet theory linear",
        _bounds,
    ),
    Measurement(
        "theory/benchmark.json",
        "theorem 3.2: the 50,000 CIFAR-10 training images with random labels",
        "python benchmarks/theory.py --data-dir DIR",
        _memorized,
    ),
    Measurement(
        "theory/benchmark.json",
        "processor time against points n and dimension d",
        "python benchmarks/theory.py --data-dir DIR",
        _exponents,
    ),
    Measurement(
        "theory/isometry/spectra.json",
        "spectra of simulated networks, width 1000, depth 100: largest Kolmogorov-Smirnov distance; aim: 0.02",
        "allconv-resnet theory isometry",
        lambda d: f"{max(r['kolmogorov_smirnov'] for r in d['results']):.3f} over {len(d['results'])} activations",
    ),
    Measurement(
        "theory/isometry/training.json",
        "spread of the training loss between activations of small mean, first 50 steps; aim: a ratio of at most 0.5",
        "allconv-resnet theory isometry --experiment training --data-dir DIR",
        _same_cumulant,
    ),
    Measurement(
        "theory/isometry/network.json",
        "c of stages 1 to 3 of the CIFAR network",
        "allconv-resnet theory isometry --experiment network --data-dir DIR --train-steps 300",
        _network,
    ),
    Measurement(
        "benchmarks/jacobians.json",
        "20 largest and 20 smallest singular values of the CIFAR network's Jacobian; aim: 5 minutes",
        "python benchmarks/jacobians.py",
        _jacobians,
    ),
    Measurement(
        "theory/landscape/training.json",
        "objective of trained residual networks less (linear optimum + certified eps); aim: at most 0",
        "allconv-resnet theory landscape --data-dir DIR",
        _landscape,
    ),
    Measurement(
        "theory/landscape/regret.json",
        "projected SGD under its regret bound, trained and adversarial branches",
        "allconv-resnet theory landscape --experiment regret --data-dir DIR",
        _regret,
    ),
    Measurement(
        "benchmarks/speed-start-up-*.json",
        "a new process up to the end of its first step, batch 128",
        "python benchmarks/speed.py start-up --precision bfloat16 --peers torch_compiled keras_fit",
        _start_up,
    ),
    Measurement(
        "benchmarks/import_time.json",
        "seconds that `import allconv_resnet` adds to `import keras`; aim: at most 0.3",
        "python benchmarks/import_time.py",
        lambda d: spread(d["extra_seconds"], ".2f"),
    ),
    Measurement(
        "benchmarks/precision.json",
        "bfloat16 against float32, 200 steps: intervals of the loss curve that differ by more than the seeds do",
        "python benchmarks/precision.py --data-dir DIR",
        lambda d: (
            f"{d['outside']} of {d['intervals']} by each interval's own deviation; {d['outside_pooled']} by that of "
            f"all intervals, {d['largest_ratio']:.2f} of it at most"
        ),
    ),
    Measurement(
        "benchmarks/growth.json",
        "time of a train step, exponents",
        "python benchmarks/growth.py --precision bfloat16",
        lambda d: ", ".join(f"{name}^{d[name]['exponent']:.2f}" for name in ("batch", "depth", "width")),
    ),
)
