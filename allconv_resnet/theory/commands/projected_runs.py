"""The experiment `regret`: projected SGD on the direct linear path, with trained and adversarial branches."""

import keras
import numpy as np

from allconv_resnet.plotting import add_grids, new_figure, plain, save_figure
from allconv_resnet.theory import landscape
from allconv_resnet.theory.commands.reporting import add_statement, print_table, progress_callback, write_results

BATCH_SIZE, FEATURES = 32, 32


def compare_branches(output_dir, problem, steps, radius, settings):
    """Runs projected SGD with four kinds of branches, prints the table, and writes `regret.png` and `regret.json`.

    Args:
        output_dir: Path.
        problem: `Problem` with one output.
        steps: Positive integer.
        radius: Positive float, radius of the ball for (w, v).
        settings: Dictionary for the JSON file with `data`, `images` and `seed`, the seed of the branches and batches.
    """
    seed = settings["seed"]
    best = landscape.linear_optimum(problem, radius)
    scales = (0.3, 1.0, 3.0, 10.0)
    bank = [landscape.features_of(tanh_branch(problem.d, seed + i, scale), problem.x) for i, scale in enumerate(scales)]
    adversary = landscape.adversary(problem, bank)
    descending, ascending = (landscape.ResidualWithLinearPath(tanh_branch(problem.d, seed, 1.0)) for _ in range(2))
    kinds = {
        "trained branch, SGD": lambda: landscape.fit_projected(
            descending, problem, steps, radius, "descend", 0.1, BATCH_SIZE, seed, best
        ),
        "branch that ascends, SGD": lambda: landscape.fit_projected(
            ascending, problem, steps, radius, "ascend", 0.1, BATCH_SIZE, seed, best
        ),
        "worst of 8 branches, SGD": lambda: landscape.projected_sgd(
            problem, adversary, steps, radius, BATCH_SIZE, seed=seed, best=best
        ),
        "worst of 8 branches, all examples": lambda: landscape.projected_sgd(
            problem, adversary, steps, radius, best=best
        ),
    }
    runs, progress = {}, progress_callback("projected SGD")
    for name, train in kinds.items():
        progress(len(runs), len(kinds))
        runs[name] = train()
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
    numbers = {"steps": steps, "radius": radius, "linear_optimum": best.value}
    write_results(output_dir / "regret.json", **settings, **numbers, results=results)
    draw_regret(results, settings, output_dir / "regret.png")


def tanh_branch(inputs, seed, scale):
    """Returns a random branch whose features lie in [-1, 1] for all weights."""
    initial = keras.initializers.RandomNormal(stddev=scale / np.sqrt(inputs), seed=seed)
    return keras.Sequential([keras.Input((inputs,)), keras.layers.Dense(FEATURES, "tanh", kernel_initializer=initial)])


def draw_regret(results, settings, path):
    """Draws the average objective, that of the best linear predictor, and the bound against the steps."""
    figure, panels = new_figure(12, 7.8, 2, 2, sharex=True, sharey=True)
    for ax, (name, r) in zip(panels.ravel(), results.items(), strict=True):
        ax.plot(r["step"], r["average"], color="C0", label="average objective of the run")
        ax.plot(r["step"], r["linear"], color="0.4", ls="--", label="best linear predictor of the ball")
        ax.plot(r["step"], r["linear"] + r["bound"], color="C3", label="the same + regret bound")
        ax.set(xscale="log", yscale="log", title=name)
        ax.set_yticks([0.1, 0.2, 0.3, 0.5, 1.0, 2.0])
        ax.set_yticks([], minor=True)
        ax.yaxis.set_major_formatter("{x:g}")
        if ax.get_subplotspec().is_last_row():
            ax.set_xlabel("steps")
        if ax.get_subplotspec().is_first_col():
            ax.set_ylabel("logistic loss (nats)")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    figure.suptitle(
        f"Projected SGD with a direct linear path, {settings['images']:,} images of {plain(settings['data'])}, "
        "two classes"
    )
    add_statement(
        figure,
        "Shamir, section 4: for any branches, the average objective is at most that of the best linear predictor of "
        "the ball plus the regret bound.",
    )
    add_grids(figure, which="both")
    save_figure(figure, path)
