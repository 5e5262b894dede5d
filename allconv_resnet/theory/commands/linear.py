"""`allconv-resnet theory linear`: the theorems of section 2 of Hardt & Ma, tested on random matrices.

The command prints one table and writes linear.json and five figures:

norm.png       norm of the global optimum against depth, for both constructions, and the bound of theorem 2.1
gradient.png   squared gradient norm against its lower bound at random points: as printed, corrected, for any norm
descent.png    gradient descent on a residual and on a standard linear network, at several depths
phases.png     from which starts gradient descent reaches which targets
path.png       the risk along gradient descent, and the upper bound of it that the gradient certifies
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import linear
from allconv_resnet.theory.checks import positive_integer
from allconv_resnet.theory.commands.linear_dynamics import (
    LABELS,
    PHASE_DEPTHS,
    certified_paths,
    draw_paths,
    draw_phases,
    phase_diagram,
)
from allconv_resnet.theory.commands.linear_figures import DEPTHS, SLACK, STARTS, draw_bounds, draw_descents, draw_norms
from allconv_resnet.theory.commands.reporting import print_table, progress_callback, write_results
from allconv_resnet.theory.hardt_ma.random_matrices import (
    TARGET_KINDS,
    random_network,
    random_network_of_any_norm,
    random_target,
)


@dataclass(frozen=True)
class Options:
    """Tests the theorems about linear residual networks on random matrices (Hardt & Ma, section 2)."""

    dimension: int = 16
    """Size d of the matrices in norm.png and descent.png."""
    matrices: int = 300
    """Number of random matrices to factorize, of several kinds and of up to 64 dimensions."""
    networks: int = 30_000
    """Number of random networks at which the gradient bounds are tested."""
    steps: int = 400
    """Number of steps of gradient descent in descent.png."""
    phase_dimension: int = 4
    """Size d of the matrices in phases.png, at least 3."""
    phase_steps: int = 10_000
    """Number of steps of gradient descent in phases.png."""
    phase_seeds: int = 5
    """Number of runs from each random start in phases.png."""
    seed: int = 0
    """Seed of the random matrices and of the initial weights."""
    output_dir: Path = Path("results/theory/linear")
    """Directory of the figures and of linear.json."""


def run(options: Options) -> None:
    """Tests the theorems, prints a table, and writes the results and the figures.

    Args:
        options: `Options`.

    Raises:
        BadInput: if an option is out of range.
    """
    for name in ("dimension", "matrices", "networks", "steps", "phase_dimension", "phase_steps", "phase_seeds"):
        positive_integer(getattr(options, name), name)
    if options.phase_dimension < 3:
        raise BadInput(f"phase_dimension must be at least 3. Received: phase_dimension={options.phase_dimension}")
    norms = norms_against_depth(options.dimension, options.seed)
    descents = run_gradient_descents(options)
    found = factorize_random_matrices(options.matrices, options.seed, progress_callback("factorizations"))
    ratios, sizes = evaluate_gradient_bounds(options.networks, options.seed, progress_callback("gradient bounds"))
    phases = phase_diagram(
        options.phase_dimension,
        options.phase_steps,
        options.phase_seeds,
        options.seed,
        progress_callback("phase diagram"),
    )
    paths = certified_paths(seed=options.seed)
    violated = ratios < 1 - SLACK
    rows = [
        ("product of the factors equals R", 2 * options.matrices, f"relative error at most {found['error']:.1e}"),
        ("norm within theorem 2.1, polar", found["applicable"], f"at most {found['polar_share']:.3f} of the bound"),
        ("norm within theorem 2.1, svd", found["applicable"], f"at most {found['svd_share']:.3f} of the bound"),
        ("polar norm at most the svd norm", options.matrices, f"{options.matrices - len(found['above'])} of them"),
        ("corrected gradient bound", options.networks, f"smallest ratio {ratios[:, 0].min():.9f}"),
        ("gradient bound for any norm", options.networks, f"smallest ratio {ratios[:, 2].min():.9f}"),
        ("printed gradient bound", options.networks, f"violated on {violated[:, 1].mean():.1%}"),
        *((f"descent, {d['start']}, depth {d['depth']}", options.steps, summarize_descent(d)) for d in descents),
    ]
    print_table(("statement", "cases", "result"), rows)
    print_phases(phases)
    for row in found["above"]:
        print("polar above svd: {kind}, d = {d}, depth {depth}: {polar:.6g} > {svd:.6g}".format(**row))
    write_results(
        options.output_dir / "linear.json",
        options=vars(options),
        norm_against_depth=norms,
        factorizations=found,
        corrected_bound={"least_ratio": ratios[:, 0].min(), "broken": int(violated[:, 0].sum())},
        printed_bound={"least_ratio": ratios[:, 1].min(), "broken": int(violated[:, 1].sum())},
        bound_for_any_norm={"least_ratio": ratios[:, 2].min(), "broken": int(violated[:, 2].sum())},
        phases=phases,
        paths=paths,
        descent=[{**d, "risk": d["risk"][:: max(1, options.steps // 50)]} for d in descents],
    )
    draw_norms(norms, options.output_dir / "norm.png")
    draw_bounds(sizes, ratios, options.output_dir / "gradient.png")
    draw_descents(descents, options.output_dir / "descent.png")
    draw_phases(phases, options.output_dir / "phases.png", options.phase_steps)
    draw_paths(paths, options.output_dir / "path.png")
    print(f"Wrote linear.json and five figures to {options.output_dir}")


def print_phases(phases):
    """Prints at how many depths gradient descent reaches each target from each start."""
    targets = list(dict.fromkeys(row["target"] for row in phases))
    reached = {(row["target"], row["initialization"], row["depth"]): row["reached"] >= 0.5 for row in phases}
    rows = [
        (target, *(sum(reached[target, start, depth] for depth in PHASE_DEPTHS) for start in LABELS))
        for target in targets
    ]
    print_table((f"target, depths of {len(PHASE_DEPTHS)} at which it is reached", *LABELS.values()), rows)


def norms_against_depth(d, seed):
    """Returns the norms of both constructions and the bound of theorem 2.1 for one matrix at depths 1 to 1,024."""
    R = random_target(np.random.default_rng(seed), "normal", d)
    smallest_depth = 3 * linear.gamma(R)
    rows = []
    for depth in [2**k for k in range(11)]:
        found = {method: linear.norm(linear.factorize(R, depth, method=method)) for method in ("polar", "svd")}
        rows.append(
            {"depth": depth, **found, "bound": linear.norm_bound(R, depth) if depth >= smallest_depth else None}
        )
    return rows


def factorize_random_matrices(count, seed, progress=lambda done, total: None):
    """Factorizes random matrices of every kind by both methods, at depths to which theorem 2.1 does or does not apply.

    Args:
        count: Positive integer, number of matrices.
        seed: Integer.
        progress: Callable `(done, total)`.

    Returns:
        Dictionary with the `count`, the largest relative `error` of a product, the number of matrices to which the
        theorem is `applicable`, the largest norm as a share of its bound for each method (`polar_share`, `svd_share`),
        and a list of the cases in which the polar norm is `above` the svd norm.
    """
    rng = np.random.default_rng(seed)
    seen = {"count": count, "error": 0.0, "applicable": 0, "polar_share": 0.0, "svd_share": 0.0, "above": []}
    for k in range(count):
        kind = TARGET_KINDS[k % len(TARGET_KINDS)]
        R = random_target(rng, kind)
        smallest_depth = max(1, math.ceil(3 * linear.gamma(R)))
        depth = int(rng.integers(0, 40)) + (smallest_depth if rng.random() < 2 / 3 else 1)
        norms = {}
        for method in ("polar", "svd"):
            A = linear.factorize(R, depth, method=method)
            seen["error"] = max(seen["error"], np.linalg.norm(linear.product(A) - R) / np.linalg.norm(R))
            norms[method] = linear.norm(A)
            if depth >= smallest_depth:
                share = norms[method] / linear.norm_bound(R, depth)
                seen[f"{method}_share"] = max(seen[f"{method}_share"], share)
        seen["applicable"] += depth >= smallest_depth
        if norms["polar"] > norms["svd"] * (1 + SLACK):
            seen["above"].append({"kind": kind, "d": len(R), "depth": depth, **norms})
        progress(k + 1, count)
    return seen


def evaluate_gradient_bounds(count, seed, progress=lambda done, total: None):
    """Computes the squared gradient norm and its bounds for random networks.

    Args:
        count: Positive integer, number of networks.
        seed: Integer.
        progress: Callable `(done, total)`.

    Returns:
        `||grad f||^2` divided by the corrected bound, by the printed bound, and by the one for any norm, `[count, 3]`,
        and `||grad f||^2`, `[count, 3]`. The first two are for networks of norm below 1, the third is not.
    """
    rng = np.random.default_rng(seed)
    ratios, sizes = np.empty((count, 3)), np.empty((count, 3))
    for i in range(count):
        A, R, cov = random_network(rng)
        sizes[i, :2] = np.sum(linear.gradient(A, R, cov) ** 2)
        ratios[i, 0] = sizes[i, 0] / linear.gradient_lower_bound(A, R, cov)
        ratios[i, 1] = sizes[i, 1] / linear.gradient_lower_bound_as_printed(A, R, cov)
        A, R, cov = random_network_of_any_norm(rng)
        sizes[i, 2] = np.sum(linear.gradient(A, R, cov) ** 2)
        ratios[i, 2] = sizes[i, 2] / linear.gradient_lower_bound_anywhere(A, R, cov)
        progress(i + 1, count)
    return ratios, sizes


def run_gradient_descents(options):
    """Runs gradient descent towards one well-conditioned matrix, from each of `STARTS` and at each of `DEPTHS`."""
    d = options.dimension
    R = scipy.linalg.expm(np.random.default_rng(options.seed).standard_normal((d, d)) / (2 * np.sqrt(d)))
    runs = []
    for parameterization, deviation in STARTS:
        for depth in DEPTHS:
            run = linear.train_linear(
                R,
                np.eye(d),
                depth,
                parameterization,
                steps=options.steps,
                deviation=deviation / np.sqrt(d),
                seed=options.seed,
            )
            reached = run.risk < 0.01 * run.risk[0]
            runs.append(
                {
                    "start": f"{parameterization} from {deviation:g}",
                    "depth": depth,
                    "learning_rate": run.learning_rate,
                    "risk": run.risk,
                    "first": run.risk[0],
                    "last": run.risk[-1],
                    "steps_to_a_hundredth": int(reached.argmax()) if reached.any() else None,
                }
            )
    return runs


def summarize_descent(descent):
    """Returns a summary of a run of gradient descent in one line."""
    steps = descent["steps_to_a_hundredth"]
    end = f"risk {descent['first']:.3g} to {descent['last']:.3g}"
    return f"{end}, a hundredth of the first after {steps} steps" if steps else f"{end}, never a hundredth of the first"
