"""The experiment `training` of landscape: residual networks from good and bad initializations, and linear predictors.

L-BFGS on all examples trains W, V and the branch f_theta, a dense ReLU network. At the end of a run, the certificate
tells whether the point is as good as a linear predictor, not stationary yet, or a saddle. The run leaves a saddle along
the direction that the certificate gives, and continues.
"""

import keras
import numpy as np
from scipy.optimize import minimize

from allconv_resnet.plotting import add_grids, new_figure, save_figure
from allconv_resnet.theory import autodiff, landscape
from allconv_resnet.theory.commands.reporting import print_table, progress_callback, write_results

HIDDEN, FEATURES, ROUNDS = 64, 32, 3
STARTS = ("good", "zero", "saddle", "dead branch", "opposite", "far")


def compare_with_linear(output_dir, problems, iterations, seed):
    """Trains from every start on every problem, prints the table, and writes `training.png` and `training.json`.

    Args:
        output_dir: Path.
        problems: Dictionary from names to `Problem`.
        iterations: Positive integer, number of L-BFGS iterations between two certificates.
        seed: Integer, seed of the initial weights.
    """
    results, progress = [], progress_callback("training")
    for name, problem in problems.items():
        best = landscape.linear_optimum(problem)
        for start in STARTS:
            progress(len(results), len(problems) * len(STARTS))
            results.append({"loss": name, "start": start, **train_from(start, problem, best, iterations, seed)})
    progress(len(results), len(results))
    headings = ("loss", "start", "F at start", "first stop", "F there", "F at end", "F_lin", "certified eps", "escapes")
    keys = ("loss", "start", "started", "first_verdict", "first_objective", "ended", "linear", "eps", "escapes")
    print(f"Residual networks on {next(iter(problems.values())).n} images against the best linear predictor:")
    print_table(headings, [[r[key] for key in keys] for r in results])
    worst = max(r["ended"] - r["linear"] - r["eps"] for r in results)
    print(f"\nLargest F - (F_lin + certified eps) at the end of a run: {worst:.3g}")
    write_results(output_dir / "training.json", iterations=iterations, results=results)
    draw_objectives(results, output_dir / "training.png")


def train_from(start, problem, best, iterations, seed):
    """Trains one network, and returns its objectives and certificates as a dictionary."""
    branch = relu_branch(problem.d, seed)
    W, V = initialize(problem, branch, best, start, np.random.default_rng(seed))
    features = landscape.features_of(branch, problem.x)
    record = {"started": problem.objective(W, V, features), "linear": best.value, "escapes": 0}
    for _ in range(ROUNDS):
        W, V = minimize_all(problem, branch, W, V, iterations)
        features = landscape.features_of(branch, problem.x)
        certificate = landscape.certify(problem, W, V, features, best)
        record.setdefault("first_verdict", certificate.verdict)
        record.setdefault("first_objective", certificate.objective)
        if certificate.direction is None or certificate.objective <= best.value:
            break
        W, V, *_ = landscape.escape(problem, W, V, features, certificate.direction)
        record["escapes"] += 1
    record |= {"ended": certificate.objective, "verdict": certificate.verdict, "eps": certificate.excess_bound}
    return record | {"gradient_norm": certificate.gradient_norm}


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


def draw_objectives(results, path):
    """Draws the objective of each run at the start, at the first stop of L-BFGS and at the end."""
    names = list(dict.fromkeys(r["loss"] for r in results))
    figure, panels = new_figure(13, 4.4, columns=len(names), squeeze=False)
    for ax, name in zip(panels[0], names, strict=True):
        runs = [r for r in results if r["loss"] == name]
        places = np.arange(len(runs))
        ax.plot(places, [r["started"] for r in runs], "x", color="0.5", label="start")
        ax.plot(places, [r["first_objective"] for r in runs], "s", mfc="none", color="C1", label="first stop")
        ax.plot(places, [r["ended"] for r in runs], "o", color="C0", ms=4, label="end")
        ax.axhline(runs[0]["linear"], color="C3", lw=1, ls="--", label="best linear predictor")
        ax.set_xticks(places, [r["start"] for r in runs], rotation=30)
        ax.set(yscale="log", title=name.replace("_", " "), ylabel="objective F")
    ax.legend(fontsize=8)
    figure.suptitle(
        "Residual networks on CIFAR-10 (64 principal components), trained from good and bad initializations"
    )
    add_grids(figure)
    save_figure(figure, path)
