"""The experiment `chain` of landscape: chains of residual blocks against the best linear predictor along training.

L-BFGS trains W and all V_l; the inner weights A_l stay as they were drawn, since the theorem holds for all of them. One
run starts at a saddle, another one from small random weights. Along each run the excess over the best linear predictor
of a bounded norm is compared with its bounds from the gradient, and from the gradient and the smallest eigenvalue of
the Hessian.
"""

import numpy as np
from scipy.optimize import minimize

from allconv_resnet.plotting import add_grids, new_figure, plain, save_figure
from allconv_resnet.theory import landscape
from allconv_resnet.theory.commands.reporting import add_statement, print_table, progress_callback, write_results
from allconv_resnet.theory.commands.stationary_points import ESTIMATE

BLOCKS, HIDDEN = 3, 12
RADIUS = 3.0  # of the linear predictors: those of separable classes would grow without end
STARTS = ("saddle", "small weights")
STOPS = (0, 1, 3, 10, 30, 100, 300, 1000)


def measure_chains(output_dir, problems, settings, stops=STOPS):
    """Trains from every start on every problem, prints the table, and writes `chain.png` and `chain.json`.

    Args:
        output_dir: Path.
        problems: Dictionary from names to `Problem`.
        settings: Dictionary for the JSON file with `data`, `images` and `seed`, the seed of the weights.
        stops: Increasing sequence of integers, the numbers of L-BFGS iterations at which a run is measured.
    """
    results, progress = [], progress_callback("points")
    total = len(problems) * len(STARTS) * len(stops)
    for name, problem in problems.items():
        best = landscape.linear_optimum(problem, RADIUS)
        for start in STARTS:
            chain, done = starting_chain(problem, start, settings["seed"]), 0
            for stop in stops:
                progress(len(results), total)
                chain, done = trained(chain, stop - done), stop
                results.append({"loss": name, "start": start, "iterations": stop, **measured(chain, best)})
    progress(total, total)
    keys = ("loss", "start", "iterations", "gradient", "smallest", "excess", "bound", "gradient_bound", "joint_excess")
    print(f"Chains of {BLOCKS} blocks of {HIDDEN} neurons on {settings['images']} images of {settings['data']}:")
    print_table([key.replace("_", " ") for key in keys], [[r[key] for key in keys] for r in results])
    print("excess: F - F_lin(U) for the best linear predictor U with |U| <= 3; joint excess: the same for the best")
    print("linear predictor of the inputs and all hidden neurons")
    print(ESTIMATE)
    write_results(output_dir / "chain.json", **settings, blocks=BLOCKS, hidden=HIDDEN, radius=RADIUS, results=results)
    draw_chains(results, settings, output_dir / "chain.png")


def starting_chain(problem, start, seed):
    """Returns the `BlockChain` of a start."""
    random = np.random.default_rng(seed)
    A = [random.standard_normal((HIDDEN, problem.d)) / np.sqrt(problem.d) for _ in range(BLOCKS)]
    if start == "small weights":
        W = 0.1 * random.standard_normal((problem.outputs, problem.d)) / np.sqrt(problem.d)
        Vs = [0.1 * random.standard_normal((problem.d, HIDDEN)) / np.sqrt(HIDDEN) for _ in A]
    else:  # all blocks but the last are zero, and E[l' h_L] = 0 at W = 0, so that all derivatives vanish
        W, Vs = np.zeros((problem.outputs, problem.d)), [np.zeros((problem.d, HIDDEN)) for _ in A]
        slopes = problem.loss.gradient(np.zeros((problem.n, problem.outputs)), problem.y)
        features = np.tanh(problem.x @ A[-1].T)
        Vs[-1] = -np.linalg.lstsq(slopes.T @ features, slopes.T @ problem.x, rcond=None)[0].T
    return landscape.BlockChain(problem, W, list(zip(Vs, A, strict=True)))


def trained(chain, iterations):
    """Returns a chain after some L-BFGS iterations, and after a step along the lowest curvature if it stands still."""
    parts = [chain.W, *(V for V, _ in chain.blocks)]
    ends = np.cumsum([part.size for part in parts])

    def at(vector):
        W, *Vs = (p.reshape(like.shape) for p, like in zip(np.split(vector, ends[:-1]), parts, strict=True))
        blocks = [(V, A) for V, (_, A) in zip(Vs, chain.blocks, strict=True)]
        return landscape.BlockChain(chain.problem, W, blocks, chain.activation)

    def value_and_gradient(vector):
        moved = at(vector)
        return moved.objective(), np.concatenate([part.ravel() for part in moved.gradient()])

    if iterations == 0:
        return chain
    place = np.concatenate([part.ravel() for part in parts])
    if np.linalg.norm(value_and_gradient(place)[1]) < 1e-8:
        found = chain.smallest_eigenvalue()
        if found.smallest < 0:
            place = min((place + t * found.vector for t in (-0.1, 0.1)), key=lambda z: at(z).objective())
    result = minimize(value_and_gradient, place, jac=True, method="L-BFGS-B", options={"maxiter": iterations})
    return at(result.x)


def measured(chain, best):
    """Returns the excess, the distance to stationarity and the bounds of a point as a dictionary."""
    problem = chain.problem
    found = chain.smallest_eigenvalue()
    joint = landscape.Problem(np.hstack([problem.x, *chain.features()[1]]), problem.y, problem.loss, problem.outputs)
    objective = chain.objective()
    smallest = min(found.smallest, 0.0) - found.residual  # an estimate, see `ESTIMATE`
    return {
        "gradient": float(np.sqrt(sum(np.sum(part**2) for part in chain.gradient()))),
        "smallest": found.smallest,
        "residual": found.residual,
        "objective": objective,
        "excess": objective - best.value,
        "bound": chain.excess_bound(best.U, smallest),
        "gradient_bound": chain.excess_bound(best.U),
        "joint_excess": objective - landscape.linear_optimum(joint, RADIUS).value,
    }


def draw_chains(results, settings, path):
    """Draws the excess and its bounds along training."""
    names = list(dict.fromkeys(r["loss"] for r in results))
    figure, panels = new_figure(16, 4.8, columns=len(names), squeeze=False)
    for ax, name in zip(panels[0], names, strict=True):
        for start, color in zip(STARTS, ("C3", "C0"), strict=True):
            points = [r for r in results if (r["loss"], r["start"]) == (name, start)]
            stops = [r["iterations"] for r in points]
            for key, label, style in (
                ("excess", "F - F_lin(U)", "o-"),
                ("bound", "its bound by gradient and curvature", "+--"),
                ("gradient_bound", "its bound by the gradient alone", "x:"),
            ):
                values = [r[key] if np.isfinite(r[key]) else None for r in points]
                ax.plot(stops, values, style, color=color, lw=1, ms=5, label=f"{start}: {label}")
        ax.axhline(0, color="k", lw=1)
        ax.set_xscale("symlog", linthresh=1)
        ax.set_yscale("symlog", linthresh=1e-3)
        ax.set(xlim=(-0.2, None), xlabel="L-BFGS iterations", title=name.replace("_", " "))
    panels[0, 0].set_ylabel(f"excess over the best linear predictor with |U| ≤ {RADIUS:g}")
    figure.legend(handles=panels[0, 0].get_lines()[:-1], loc="outside right upper", fontsize="small")
    figure.suptitle(
        f"Chains of {BLOCKS} blocks of {HIDDEN} neurons on {settings['images']:,} images of {plain(settings['data'])}"
    )
    add_statement(
        figure,
        "If all blocks but the first have together fewer neurons than x has entries, less the outputs, each critical "
        "point is at least as good as every linear predictor, or its Hessian has a negative eigenvalue.",
    )
    add_grids(figure)
    save_figure(figure, path)
