"""Experiment (d): residual networks trained from good and bad starting points, against the best linear predictor.

Trained are W, V and the branch f_theta, a dense ReLU network, by L-BFGS on all examples. At the end of a run the
certificate tells: as good as linear, not stationary yet, or a saddle. From a saddle the run takes its way out.
"""

import keras
import numpy as np
from scipy.optimize import minimize

from allconv_resnet.theory import autodiff, landscape
from allconv_resnet.theory.commands.reporting import Progress, environment, print_table, write_json

HIDDEN, FEATURES, ROUNDS = 64, 32, 3
STARTS = ("good", "zero", "saddle", "dead branch", "opposite", "far")


def run(output_dir, problems, iterations, seed):
    """Trains every start on every problem, prints the table, writes `training.png` and `training.json`."""
    results, progress = [], Progress("training")
    for name, problem in problems.items():
        best = landscape.linear_optimum(problem)
        for start in STARTS:
            progress(len(results), len(problems) * len(STARTS))
            results.append({"loss": name, "start": start, **train(problem, best, start, iterations, seed)})
    progress(len(results), len(results))
    headings = ("loss", "start", "F at start", "first stop", "F there", "F at end", "F_lin", "certified eps", "escapes")
    keys = ("loss", "start", "started", "first_verdict", "first_objective", "ended", "linear", "eps", "escapes")
    print(f"Residual networks on {next(iter(problems.values())).n} images against the best linear predictor:")
    print_table(headings, [[r[key] for key in keys] for r in results])
    worst = max(r["ended"] - r["linear"] - r["eps"] for r in results)
    print(f"\nLargest F - (F_lin + certified eps) at the end of a run: {worst:.3g}")
    write_json(
        output_dir / "training.json", {"environment": environment(), "iterations": iterations, "results": results}
    )
    draw(results, output_dir / "training.png")


def train(problem, best, start, iterations, seed):
    """Trains one network, and returns what its certificates said on the way, as a dictionary."""
    branch = make_branch(problem.d, seed)
    W, V = place(problem, branch, best, start, np.random.default_rng(seed))
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


def make_branch(inputs, seed):
    """Returns f_theta in float64."""
    initial = [keras.initializers.HeNormal(seed=seed + i) for i in range(2)]
    return keras.Sequential(
        [
            keras.Input((inputs,), dtype="float64"),
            keras.layers.Dense(HIDDEN, "relu", kernel_initializer=initial[0], dtype="float64"),
            keras.layers.Dense(FEATURES, kernel_initializer=initial[1], dtype="float64"),
        ]
    )


def place(problem, branch, best, start, random):
    """Returns W and V of a starting point; the branch is changed where the start asks for it."""
    W = random.standard_normal((problem.outputs, problem.d)) / np.sqrt(problem.d)
    V = 0.1 * random.standard_normal((problem.d, FEATURES)) / np.sqrt(FEATURES)
    if start == "zero":
        return 0 * W, 0 * V
    if start == "saddle":  # W = 0, and V such that E[l' (x + V f)] = 0: all derivatives vanish
        f = landscape.features_of(branch, problem.x)
        slopes = problem.loss.gradient(np.zeros((problem.n, problem.outputs)), problem.y)
        return 0 * W, -np.linalg.lstsq(slopes.T @ f, slopes.T @ problem.x, rcond=None)[0].T
    if start == "dead branch":  # no hidden neuron wakes on any example
        branch.layers[0].bias.assign(np.full(HIDDEN, -1e3))
    if start == "opposite":
        return -3 * best.U, V
    if start == "far":
        for variable in branch.trainable_variables:
            variable.assign(10 * variable)
        return 30 * W, 30 * V
    return W, V


def minimize_all(problem, branch, W, V, iterations):
    """Runs L-BFGS on W, V and the weights of the branch, sets the branch, and returns W and V."""
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


def draw(results, path):
    """Writes the figure: the objective at the start, where training first stopped and at the end of each run."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(r["loss"] for r in results))
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    for ax, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        runs = [r for r in results if r["loss"] == name]
        places = np.arange(len(runs))
        ax.plot(places, [r["started"] for r in runs], "x", color="0.5", label="start")
        ax.plot(places, [r["first_objective"] for r in runs], "s", mfc="none", color="C1", label="first stop")
        ax.plot(places, [r["ended"] for r in runs], "o", color="C0", ms=4, label="end")
        ax.axhline(runs[0]["linear"], color="C3", lw=1, ls="--", label="best linear predictor")
        ax.set_xticks(places, [r["start"] for r in runs], rotation=30)
        ax.set(yscale="log", title=name.replace("_", " "), ylabel="objective F")
        ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
    figure.suptitle(
        "Residual networks on CIFAR-10 (64 principal components), trained from good and bad starting points"
    )
    figure.savefig(path, dpi=110)
