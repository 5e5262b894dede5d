"""`allconv-resnet theory linear`: section 2 of Hardt & Ma on random matrices, in one table, three figures and one JSON.

norm.png       norm of the optimum against depth, for both constructions, under the bound of theorem 2.1
gradient.png   squared gradient norm against its bound at random points, corrected and as printed
descent.png    gradient descent on a residual and on a standard linear network, at several depths
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy

from allconv_resnet.theory import linear, samples
from allconv_resnet.theory.commands.reporting import Progress, environment, print_table, write_json
from allconv_resnet.theory.matrices import positive_integer

SLACK = 1e-9  # relative rounding that an equality is granted
DEPTHS = (2, 4, 8, 16)
STARTS = (("residual", 0.05), ("standard", 0.05), ("standard", 1.0))  # and the deviation of A, times sqrt(d)


@dataclass(frozen=True)
class Options:
    """How much to try, and where to write."""

    dimension: int = 16
    """Size d of the matrices in norm.png and descent.png."""
    matrices: int = 1000
    """Random matrices to factorize, of up to 64 dimensions and every kind in `samples.TARGET_KINDS`."""
    networks: int = 100_000
    """Random networks to try the gradient bounds on."""
    steps: int = 400
    """Steps of gradient descent."""
    seed: int = 0
    """Seed of everything random."""
    output_dir: Path = Path("results/theory/linear")
    """Where the figures and linear.json go."""


def run(options: Options) -> None:
    """Tries the theorems and writes what it saw.

    Raises:
        BadInput: if an option is out of range.
    """
    for name in ("dimension", "matrices", "networks", "steps"):
        positive_integer(getattr(options, name), name)
    norms = norms_against_depth(options.dimension, options.seed)
    descents = descend(options)
    tried = try_factorizations(options.matrices, options.seed, Progress("factorizations"))
    ratios, sizes = try_bounds(options.networks, options.seed, Progress("gradient bounds"))
    broken = ratios < 1 - SLACK
    rows = [
        ("product of the factors equals R", 2 * options.matrices, f"relative error at most {tried['error']:.1e}"),
        ("norm within theorem 2.1, polar", tried["applicable"], f"at most {tried['polar_share']:.3f} of the bound"),
        ("norm within theorem 2.1, svd", tried["applicable"], f"at most {tried['svd_share']:.3f} of the bound"),
        ("polar norm at most the svd norm", options.matrices, f"{options.matrices - len(tried['above'])} of them"),
        ("corrected gradient bound", options.networks, f"least ratio {ratios[:, 0].min():.9f}"),
        ("printed gradient bound", options.networks, f"broken on {broken[:, 1].mean():.1%}"),
        *((f"descent, {d['start']}, depth {d['depth']}", options.steps, said(d)) for d in descents),
    ]
    print_table(("what", "tried", "seen"), rows)
    for row in tried["above"]:
        print("polar above svd: {kind}, d = {d}, depth {depth}: {polar:.6g} > {svd:.6g}".format(**row))
    content = {
        "options": {**vars(options), "output_dir": str(options.output_dir)},
        "norm_against_depth": norms,
        "factorizations": tried,
        "corrected_bound": {"least_ratio": ratios[:, 0].min(), "broken": int(broken[:, 0].sum())},
        "printed_bound": {"least_ratio": ratios[:, 1].min(), "broken": int(broken[:, 1].sum())},
        "descent": [{**d, "risk": d["risk"][:: max(1, options.steps // 50)]} for d in descents],
        "environment": environment(),
    }
    write_json(options.output_dir / "linear.json", content)
    draw_norms(norms, options.output_dir / "norm.png")
    draw_bounds(sizes, ratios, options.output_dir / "gradient.png")
    draw_descents(descents, options.output_dir / "descent.png")
    print(f"wrote linear.json, norm.png, gradient.png and descent.png to {options.output_dir}")


def norms_against_depth(d, seed):
    """Returns the norms of both constructions and the theorem's bound for one matrix at depths 1 to 1,024."""
    R = samples.random_target(np.random.default_rng(seed), "normal", d)
    least = 3 * linear.gamma(R)
    rows = []
    for depth in [2**k for k in range(11)]:
        found = {method: linear.norm(linear.factorize(R, depth, method=method)) for method in ("polar", "svd")}
        rows.append({"depth": depth, **found, "bound": linear.norm_bound(R, depth) if depth >= least else None})
    return rows


def try_factorizations(count, seed, progress=lambda done, total: None):
    """Factorizes random matrices of every kind by both methods, at depths inside and outside of theorem 2.1.

    Returns:
        A dictionary: the largest relative `error` of a product, on how many matrices the theorem was `applicable`, the
        largest norms as a share of its bound, and the list of cases with the polar norm `above` the svd norm.
    """
    rng = np.random.default_rng(seed)
    seen = {"count": count, "error": 0.0, "applicable": 0, "polar_share": 0.0, "svd_share": 0.0, "above": []}
    for k in range(count):
        kind = samples.TARGET_KINDS[k % len(samples.TARGET_KINDS)]
        R = samples.random_target(rng, kind)
        least = max(1, math.ceil(3 * linear.gamma(R)))
        depth = int(rng.integers(0, 40)) + (least if rng.random() < 2 / 3 else 1)
        norms = {}
        for method in ("polar", "svd"):
            A = linear.factorize(R, depth, method=method)
            seen["error"] = max(seen["error"], np.linalg.norm(linear.product(A) - R) / np.linalg.norm(R))
            norms[method] = linear.norm(A)
            if depth >= least:
                share = norms[method] / linear.norm_bound(R, depth)
                seen[f"{method}_share"] = max(seen[f"{method}_share"], share)
        seen["applicable"] += depth >= least
        if norms["polar"] > norms["svd"] * (1 + SLACK):
            seen["above"].append({"kind": kind, "d": len(R), "depth": depth, **norms})
        progress(k + 1, count)
    return seen


def try_bounds(count, seed, progress=lambda done, total: None):
    """Returns `||grad f||^2` over its corrected and its printed bound, `[count, 2]`, and `||grad f||^2`, `[count]`."""
    rng = np.random.default_rng(seed)
    ratios, sizes = np.empty((count, 2)), np.empty(count)
    for i in range(count):
        A, R, cov = samples.random_network(rng)
        sizes[i] = np.sum(linear.gradient(A, R, cov) ** 2)
        ratios[i, 0] = sizes[i] / linear.gradient_lower_bound(A, R, cov)
        ratios[i, 1] = sizes[i] / linear.gradient_lower_bound_as_printed(A, R, cov)
        progress(i + 1, count)
    return ratios, sizes


def descend(options):
    """Descends from each of `STARTS` at several depths, towards one well-conditioned matrix."""
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


def said(descent):
    """Returns one line on a run of gradient descent."""
    steps = descent["steps_to_a_hundredth"]
    end = f"risk {descent['first']:.3g} to {descent['last']:.3g}"
    return f"{end}, a hundredth of the first after {steps} steps" if steps else f"{end}, never a hundredth of the first"


def draw_norms(rows, path):
    """Draws the norm of the optimum against depth."""
    figure, axes = canvas()
    depths = [row["depth"] for row in rows]
    axes.loglog(depths, [row["bound"] or np.nan for row in rows], "k--", label="bound of theorem 2.1")
    axes.loglog(depths, [row["svd"] for row in rows], "o-", color="C1", label="svd, the paper's construction")
    axes.loglog(depths, [row["polar"] for row in rows], "s-", color="C0", label="polar")
    axes.set(xlabel="depth", ylabel="largest spectral norm of a factor", title="A global optimum of small norm")
    axes.legend()
    finish(figure, path)


def draw_bounds(sizes, ratios, path, shown=4000):
    """Draws the squared gradient norm against both bounds."""
    figure, panels = canvas(2)
    for axes, ratio, title in zip(panels, ratios.T, ("corrected", "as printed"), strict=True):
        bound, size = (sizes / ratio)[:shown], sizes[:shown]
        holds = size >= bound * (1 - SLACK)
        axes.loglog(bound[holds], size[holds], ".", markersize=2, color="C0", label=f"holds ({holds.mean():.1%})")
        if not holds.all():
            axes.loglog(
                bound[~holds], size[~holds], ".", markersize=2, color="C3", label=f"broken ({1 - holds.mean():.1%})"
            )
        ends = [bound.min(), bound.max()]
        axes.loglog(ends, ends, "k--", linewidth=1, label="equality")
        axes.set(xlabel="bound", ylabel="squared gradient norm", title=f"Equation (2.3), {title}")
        axes.legend(markerscale=4)
    finish(figure, path)


def draw_descents(descents, path):
    """Draws the risk against the step."""
    figure, panels = canvas(3)
    for axes, (parameterization, deviation) in zip(panels, STARTS, strict=True):
        for descent in descents:
            if descent["start"] == f"{parameterization} from {deviation:g}":
                width = 4 / (1 + DEPTHS.index(descent["depth"])) ** 0.7  # flat curves lie upon one another
                axes.semilogy(np.maximum(descent["risk"], 1e-16), linewidth=width, label=f"depth {descent['depth']}")
        factor = "I + A" if parameterization == "residual" else "A"
        axes.set(xlabel="step of gradient descent", title=f"Factors {factor}, A of deviation {deviation:g}/√d")
        axes.legend()
    panels[0].set_ylabel("excess risk")
    limits = np.array([axes.get_ylim() for axes in panels])
    for axes in panels:
        axes.set_ylim(limits[:, 0].min(), limits[:, 1].max())
    finish(figure, path)


def canvas(panels=1):
    """Returns a figure and its axes, side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * panels, 4.2), layout="constrained")
    return figure, figure.subplots(1, panels)


def finish(figure, path):
    """Adds the grid, and saves the figure."""
    for each in figure.axes:
        each.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
