"""Projected SGD on the direct linear path, with trained, ascending and adversarial branches, under its regret bound."""

import keras
import numpy as np

from allconv_resnet.theory import landscape
from allconv_resnet.theory.commands.reporting import Progress, environment, print_table, write_json

BATCH, FEATURES = 32, 32


def run(output_dir, problem, steps, radius, seed):
    """Runs four kinds of branches, prints the table, writes `regret.png` and `regret.json`."""
    best = landscape.linear_optimum(problem, radius)
    scales = (0.3, 1.0, 3.0, 10.0)
    bank = [landscape.features_of(branch(problem.d, seed + i, scale), problem.x) for i, scale in enumerate(scales)]
    adversary = landscape.adversary(problem, bank)
    model = {theta: landscape.ResidualWithLinearPath(branch(problem.d, seed, 1.0)) for theta in ("descend", "ascend")}
    kinds = {
        "trained branch, SGD": lambda: landscape.fit_projected(
            model["descend"], problem, steps, radius, "descend", 0.1, BATCH, seed, best
        ),
        "branch that ascends, SGD": lambda: landscape.fit_projected(
            model["ascend"], problem, steps, radius, "ascend", 0.1, BATCH, seed, best
        ),
        "worst of 8 branches, SGD": lambda: landscape.projected_sgd(
            problem, adversary, steps, radius, BATCH, seed=seed, best=best
        ),
        "worst of 8 branches, all examples": lambda: landscape.projected_sgd(
            problem, adversary, steps, radius, best=best
        ),
    }
    runs, progress = {}, Progress("projected SGD")
    for name, make in kinds.items():
        progress(len(runs), len(kinds))
        runs[name] = make()
    progress(len(kinds), len(kinds))
    rows, results = [], {}
    for name, r in runs.items():
        slack = r.linear + r.bound - r.average
        at = np.unique(np.geomspace(1, steps, 60).astype(int)) - 1
        rows.append((name, r.average[-1], r.linear[-1], r.bound[-1], slack.min(), int(np.sum(slack < 0))))
        results[name] = {"step": at + 1, "average": r.average[at], "linear": r.linear[at], "bound": r.bound[at]}
        results[name] |= {"smallest_slack": slack.min(), "violations": int(np.sum(slack < 0))}
    print(f"Projected SGD, {steps} steps, {problem.n} images, radius {radius:g}, min F_lin = {best.value:.4f}:")
    print_table(("branch", "average F", "linear, same examples", "bound", "smallest slack", "violations"), rows)
    content = {"steps": steps, "radius": radius, "linear_optimum": best.value, "results": results}
    write_json(output_dir / "regret.json", {"environment": environment(), **content})
    draw(results, output_dir / "regret.png")


def branch(inputs, seed, scale):
    """Returns a bounded branch: whatever its weights, its features lie in [-1, 1]."""
    initial = keras.initializers.RandomNormal(stddev=scale / np.sqrt(inputs), seed=seed)
    return keras.Sequential([keras.Input((inputs,)), keras.layers.Dense(FEATURES, "tanh", kernel_initializer=initial)])


def draw(results, path):
    """Writes the figure: average objective, that of the best linear predictor, and the bound, against the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7.5), layout="constrained")
    for ax, (name, r) in zip(figure.subplots(2, 2, sharex=True, sharey=True).ravel(), results.items(), strict=True):
        ax.plot(r["step"], r["average"], color="C0", label="average objective of the run")
        ax.plot(r["step"], r["linear"], color="0.4", ls="--", label="best linear predictor of the ball")
        ax.plot(r["step"], r["linear"] + r["bound"], color="C3", label="the same + regret bound")
        ax.set(xscale="log", yscale="log", title=name)
        ax.set_yticks([0.3, 0.5, 1.0, 2.0])
        ax.set_yticks([], minor=True)
        ax.yaxis.set_major_formatter("{x:g}")
        ax.grid(alpha=0.3, which="both")
        if ax.get_subplotspec().is_last_row():
            ax.set_xlabel("steps")
        if ax.get_subplotspec().is_first_col():
            ax.set_ylabel("logistic loss")
    ax.legend(fontsize=9)
    figure.suptitle("Projected SGD with a direct linear path on CIFAR-10, animals or vehicles")
    figure.savefig(path, dpi=110)
