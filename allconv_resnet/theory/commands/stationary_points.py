"""The experiment `stationary` of landscape: the excess over the linear predictor at points that are nearly stationary.

The points of the first family lie on a straight path from the saddle at W = 0 to the best linear predictor without a
branch. Those of the second are saddles whose features are divided by a growing number: gradient and curvature vanish,
but the excess does not, because V grows in turn. This is why theorem 3 of Shamir has the norms of W and V.
"""

import numpy as np

from allconv_resnet.plotting import add_grids, new_figure, plain, save_figure
from allconv_resnet.theory import landscape
from allconv_resnet.theory.commands.reporting import add_statement, print_table, progress_callback, write_results

FEATURES, MU = 16, 1.0
ESTIMATE = (
    "The bounds use smallest - residual, which is an estimate of the smallest eigenvalue, and a bound of it only if "
    "the eigenvalue nearest to it is the smallest."
)
FAMILIES = ("from the saddle to linear", "saddle with small features")


def measure_excess(output_dir, problems, settings, count=7):
    """Measures the points of both families, prints the table, and writes `stationary.png` and `stationary.json`.

    Args:
        output_dir: Path.
        problems: Dictionary from names to `Problem`.
        settings: Dictionary for the JSON file with `data`, `images` and `seed`, the seed of the features.
        count: Positive integer, number of points of a family.
    """
    results, progress = [], progress_callback("points")
    for name, problem in problems.items():
        best = landscape.linear_optimum(problem)
        for family in FAMILIES:
            for part in np.geomspace(1e-6, 1.0, count):
                progress(len(results), len(problems) * len(FAMILIES) * count)
                point = points_of(family, problem, best, part, settings["seed"])
                results.append({"loss": name, "family": family, **measured(problem, best, *point)})
    progress(len(results), len(results))
    keys = ("loss", "family", "gradient", "smallest", "residual", "size", "epsilon", "excess", "bound", "bound_of_all")
    print(f"Points of residual networks on {settings['images']} images of {settings['data']}:")
    print_table([key.replace("_", " ") for key in keys], [[r[key] for key in keys] for r in results])
    print(ESTIMATE)
    write_results(output_dir / "stationary.json", **settings, mu=MU, results=results)
    draw_excess(results, settings, output_dir / "stationary.png")


def points_of(family, problem, best, part, seed):
    """Returns W, V and the features of a point."""
    random = np.random.default_rng(seed)
    features = np.tanh(problem.x @ random.standard_normal((problem.d, FEATURES)) / np.sqrt(problem.d))
    if family == FAMILIES[1]:
        features = part * features
    slopes = problem.loss.gradient(np.zeros((problem.n, problem.outputs)), problem.y)
    V = -np.linalg.lstsq(slopes.T @ features, slopes.T @ problem.x, rcond=None)[0].T  # E[l' (x + V f)] = 0 at W = 0
    if family == FAMILIES[1]:
        return np.zeros((problem.outputs, problem.d)), V, features
    return (1 - part) * best.U, part * V, features


def measured(problem, best, W, V, features):
    """Returns the excess, the distance to stationarity and the bounds of a point as a dictionary."""
    found = landscape.smallest_eigenvalue(problem, W, V, features)
    gradient = float(np.sqrt(sum(np.sum(part**2) for part in problem.gradient(W, V, features))))
    size = float(max(np.linalg.norm(W), np.linalg.norm(V, 2)))
    # An estimate: a lower bound only if the eigenvalue nearest to the one that was found is the smallest.
    smallest = min(found.smallest, 0.0) - found.residual
    epsilon = max(gradient, smallest**2 / MU)
    kappa = max(abs(found.largest), abs(smallest))
    return {
        "gradient": gradient,
        "smallest": found.smallest,
        "residual": found.residual,
        "size": size,
        "epsilon": epsilon,
        "excess": problem.objective(W, V, features) - best.value,
        "bound": landscape.excess_of_point(problem, W, V, features, best.U, smallest),
        "bound_of_all": landscape.excess_of_points(epsilon, MU, size, np.linalg.norm(best.U), kappa, problem.outputs),
    }


def draw_excess(results, settings, path):
    """Draws the excess against its bounds, and what happens to both if gradient and curvature vanish."""
    names = list(dict.fromkeys(r["loss"] for r in results))
    figure, panels = new_figure(16, 4.8, columns=len(names) + 1, squeeze=False)
    for ax, name in zip(panels[0], names, strict=False):
        for family, color in zip(FAMILIES, ("C0", "C3"), strict=True):
            points = [r for r in results if (r["loss"], r["family"]) == (name, family) and r["excess"] > 1e-9]
            for key, marker in (("bound", "o"), ("bound_of_all", "+")):
                label = {"bound": "bound of the point", "bound_of_all": "bound of theorem 3"}[key]
                at = [r[key] for r in points], [r["excess"] for r in points]
                ax.plot(*at, marker, color=color, ms=6, label=f"{family}, {label}")
        ax.set(xscale="log", yscale="log", xlabel="upper bound of the excess", title=name.replace("_", " "))
        low, high = ax.get_ylim()
        ax.plot([low, high], [low, high], "k-", lw=1, label="excess = bound")
    panels[0, 0].set_ylabel("excess F - F_lin(U), U the best linear predictor")
    ax = panels[0, -1]
    points = [r for r in results if (r["loss"], r["family"]) == (names[0], FAMILIES[1])]
    epsilon, loss = [r["epsilon"] for r in points], names[0].replace("_", " ")
    for key, label, style in (
        ("size", "size: max(|W|, |V|)", "^-C2"),
        ("bound_of_all", "bound of theorem 3", "+-C3"),
        ("excess", "excess", "o-k"),
    ):
        ax.plot(epsilon, [r[key] for r in points], style, lw=1, ms=5, label=f"right ({loss}): {label}")
    ax.set(xscale="log", yscale="log", xlabel="epsilon: max(|grad F|, smallest eigenvalue²)")
    ax.set_title(FAMILIES[1])
    lines = [line for axes in panels[0, -2:] for line in axes.get_lines()]
    figure.legend(handles=lines, loc="outside right upper", fontsize="small")
    figure.suptitle(f"Points of residual networks on {settings['images']:,} images of {plain(settings['data'])}")
    add_statement(
        figure,
        "Shamir, theorem 3: at points that are stationary up to epsilon, with bounded W and V, the excess is "
        "O(epsilon^(1/4)); right: with V unbounded it need not vanish.",
    )
    add_grids(figure)
    save_figure(figure, path)
