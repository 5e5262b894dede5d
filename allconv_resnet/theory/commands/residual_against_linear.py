"""The experiment `training` of landscape: residual networks from good and bad initializations, and linear predictors.

L-BFGS on all examples trains W, V and the branch f_theta, a dense ReLU network. At the end of a run, the certificate
tells whether the point is as good as a linear predictor, not stationary yet, or a saddle. The run leaves a saddle along
the direction that the certificate gives, and continues.
"""

from collections import Counter

import keras
import numpy as np
from scipy.optimize import minimize

from allconv_resnet.errors import BadInput
from allconv_resnet.plotting import add_grids, new_figure, plain, save_figure
from allconv_resnet.theory import autodiff, landscape
from allconv_resnet.theory.commands.reporting import add_statement, print_table, progress_callback, write_results
from allconv_resnet.theory.shamir.certificates import ESCAPES, GOOD, MOVING, RESTING

HIDDEN, FEATURES, ROUNDS = 64, 32, 3
STATIONARY = 1e-6  # the relative gradient that counts as zero
TOLERANCE = 1e-8  # the excess over the linear predictor that counts as zero, as a share of the loss of the prediction 0
STARTS = ("good", "zero", "saddle", "dead branch", "opposite", "far")


def compare_with_linear(output_dir, problems, iterations, settings):
    """Trains from every start on every problem, prints the table, and writes `training.png` and `training.json`.

    Runs that are finished are written also if a later run fails.

    Args:
        output_dir: Path.
        problems: Dictionary from names to `Problem`.
        iterations: Positive integer, number of L-BFGS iterations between two certificates.
        settings: Dictionary for the JSON file with `data`, `images` and `seed`, the seed of the initial weights.
    """
    results, progress = [], progress_callback("training")
    try:
        for name, problem in problems.items():
            best = landscape.linear_optimum(problem)
            for start in STARTS:
                progress(len(results), len(problems) * len(STARTS))
                run = train_from(start, problem, best, iterations, settings["seed"])
                results.append({"loss": name, "start": start, **run})
        progress(len(results), len(results))
    finally:
        if results:
            content = {**settings, "iterations": iterations, "stationary": STATIONARY, "results": results}
            write_results(output_dir / "training.json", **content)
            draw_runs(results, settings, output_dir / "training.png")
    headings = ("loss", "start", "F at start", "first stop", "F there", "F at end", "F_lin", "gradient", "left", "end")
    keys = ("loss", "start", "started", "first_verdict", "first_objective", "ended", "linear", "relative_gradient")
    print(f"Residual networks on {settings['images']} images of {settings['data']} against the best linear predictor:")
    print_table(headings, [[r[key] for key in (*keys, "escapes", "verdict")] for r in results])
    counts = Counter(r["verdict"] for r in results)
    print("\nAt the end: " + "; ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    print("gradient: its norm, divided by the largest that such slopes and features can give; left: saddles left")


def train_from(start, problem, best, iterations, seed):
    """Trains one network, and returns its objectives and certificates as a dictionary."""
    branch = relu_branch(problem.d, seed)
    W, V = initialize(problem, branch, best, start, np.random.default_rng(seed))
    features = landscape.features_of(branch, problem.x)
    record = {"started": problem.objective(W, V, features), "linear": best.value, "escapes": 0}
    record["tolerated_excess"] = TOLERANCE * problem.linear(np.zeros_like(best.U))
    for _ in range(ROUNDS):
        W, V = minimize_all(problem, branch, W, V, iterations)
        features = landscape.features_of(branch, problem.x)
        certificate = landscape.certify(problem, W, V, features, best, TOLERANCE, STATIONARY)
        first = {"verdict": certificate.verdict, "objective": certificate.objective}
        first["relative_gradient"] = certificate.relative_gradient
        for name, value in first.items():
            record.setdefault(f"first_{name}", value)
        if certificate.verdict != ESCAPES:
            break
        try:
            W, V, *_ = landscape.escape(problem, W, V, features, certificate.direction)
        except BadInput:  # the curvature is lost in the rounding errors of F, and the certificate stands
            break
        record["escapes"] += 1
    record |= {"ended": certificate.objective, "verdict": certificate.verdict}
    record |= {"excess_bound": certificate.excess_bound, "gradient_bound": certificate.gradient_bound}
    return record | {
        "gradient_norm": certificate.gradient_norm,
        "relative_gradient": certificate.relative_gradient,
    }


def relu_branch(inputs, seed):
    """Returns the branch f_theta in float64."""
    initial = [keras.initializers.HeNormal(seed=seed + i) for i in range(2)]
    return keras.Sequential(
        [
            keras.Input((inputs,), dtype="float64"),
            keras.layers.Dense(HIDDEN, "relu", kernel_initializer=initial[0], dtype="float64"),
            keras.layers.Dense(FEATURES, kernel_initializer=initial[1], dtype="float64"),
        ]
    )


def initialize(problem, branch, best, start, random):
    """Returns the initial W and V of a start, and changes the weights of the branch for some starts."""
    W = random.standard_normal((problem.outputs, problem.d)) / np.sqrt(problem.d)
    V = 0.1 * random.standard_normal((problem.d, FEATURES)) / np.sqrt(FEATURES)
    if start == "zero":
        return 0 * W, 0 * V
    if start == "saddle":  # W = 0, and V such that E[l' (x + V f)] = 0, so that all derivatives vanish
        f = landscape.features_of(branch, problem.x)
        slopes = problem.loss.gradient(np.zeros((problem.n, problem.outputs)), problem.y)
        return 0 * W, -np.linalg.lstsq(slopes.T @ f, slopes.T @ problem.x, rcond=None)[0].T
    if start == "dead branch":  # no hidden neuron is active on any example
        branch.layers[0].bias.assign(np.full(HIDDEN, -1e3))
    if start == "opposite":
        return -3 * best.U, V
    if start == "far":
        for variable in branch.trainable_variables:
            variable.assign(10 * variable)
        return 30 * W, 30 * V
    return W, V


def minimize_all(problem, branch, W, V, iterations):
    """Minimizes F by L-BFGS in W, V and the weights of the branch, which are updated; returns W and V."""
    variables = branch.trainable_variables
    shapes = [W.shape, V.shape, *(variable.shape for variable in variables)]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])

    def split(z):
        return [part.reshape(shape) for part, shape in zip(np.split(z, ends[:-1]), shapes, strict=True)]

    def set_branch(theta):
        for variable, value in zip(variables, theta, strict=True):
            variable.assign(value)

    def value_and_gradient(z):
        W, V, *theta = split(z)
        set_branch(theta)
        f, pullback = autodiff.parameter_pullback(branch, problem.x)
        f = f.astype(np.float64)
        predictions = problem.predictions(W, V, f)
        slopes = problem.loss.gradient(predictions, problem.y) / problem.n
        gradients = [*problem.gradient(W, V, f), *pullback(slopes @ W @ V)]
        flat = np.concatenate([np.ravel(g) for g in gradients]).astype(np.float64)
        return problem.loss.value(predictions, problem.y).mean(), flat

    begin = np.concatenate([np.ravel(keras.ops.convert_to_numpy(a)) for a in (W, V, *variables)]).astype(np.float64)
    options = {"maxiter": iterations, "maxfun": 2 * iterations, "ftol": 0.0, "gtol": 1e-9}
    result = minimize(value_and_gradient, begin, jac=True, method="L-BFGS-B", options=options)
    W, V, *theta = split(result.x)
    set_branch(theta)
    return W, V


def draw_runs(results, settings, path):
    """Draws the objective of each run above its distance to stationarity, so that no unfinished run looks done."""
    names = list(dict.fromkeys(r["loss"] for r in results))
    figure, panels = new_figure(14, 7, 2, len(names), squeeze=False, sharex="col")
    marks = {GOOD: ("C0", "o"), MOVING: ("C1", "^"), RESTING: ("C2", "D"), ESCAPES: ("C3", "v")}
    for (top, bottom), name in zip(panels.T, names, strict=True):
        runs = [r for r in results if r["loss"] == name]
        places = np.arange(len(runs))
        top.plot(places, [r["started"] for r in runs], "x", color="0.5", label="start")
        linear, tolerated = runs[0]["linear"], runs[0]["tolerated_excess"]
        top.axhspan(linear, linear + tolerated, color="0.85", label="as good, within the tolerance")
        top.axhline(linear, color="k", lw=1, ls="--", label="best linear predictor found")
        bottom.axhline(STATIONARY, color="k", lw=1, ls=":", label="counts as stationary below")
        for place, run in zip(places, runs, strict=True):
            color, marker = marks[run["verdict"]]
            first = run["first_objective"], run["first_relative_gradient"]
            for ax, end, saddle in zip((top, bottom), (run["ended"], run["relative_gradient"]), first, strict=True):
                ax.plot(place, end, marker, color=color, ms=6)
                if run["escapes"]:
                    ax.plot(place, saddle, "s", mfc="none", color="C3", ms=9)
        top.set(yscale="log", title=name.replace("_", " "))
        bottom.set(yscale="log")
        bottom.set_xticks(places, [r["start"] for r in runs], rotation=30)
        bottom.set_xlabel("start")
    panels[0, 0].set_ylabel("objective F (mean loss)")
    panels[1, 0].set_ylabel("relative gradient\n(distance to stationarity)")
    for verdict, (color, marker) in marks.items():
        panels[0, -1].plot([], [], marker, color=color, label=f"end: {verdict}")
    panels[0, -1].plot([], [], "s", mfc="none", color="C3", ms=9, label="saddle that the run left")
    for ax in panels[:, -1]:
        ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0, fontsize="small")
    figure.suptitle(
        f"Residual networks on {settings['images']:,} images of {plain(settings['data'])} (64 principal components), "
        "trained from good and bad initializations"
    )
    add_statement(
        figure,
        "Shamir, theorems 1 and 2: a stationary point above the best linear predictor is a strict saddle; a run above "
        "the line whose gradient is not small has not ended.",
    )
    add_grids(figure)
    save_figure(figure, path)
