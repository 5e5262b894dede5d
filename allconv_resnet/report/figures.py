"""The figures of the report, drawn from the logs of runs."""

import statistics

import numpy as np

from allconv_resnet.data.holdout import HOLDOUT
from allconv_resnet.plotting import new_figure, plain, save_figure


def draw_curves(runs, title, path):
    """Draws the errors of several seeds against steps, the mean as a line and the range as a band.

    Args:
        runs: List of `Run`.
        title: Title of the figure.
        path: Path of the PNG.
    """
    figure, axes = new_figure(7, 4)
    seeds = f"{len(runs)} seeds and their range" if len(runs) > 1 else f"seed {runs[0].recipe['seed']}"
    for split, color in (("train", "C0"), (HOLDOUT, "C2"), ("test", "C3")):
        points = [[(line["step"], 100 * line["error"]) for line in run.lines if line["split"] == split] for run in runs]
        steps, errors = at_common_steps(points)
        if len(steps):
            label = f"{split}: {mean(errors[-1])} % at step {steps[-1]:,.0f}"
            axes.plot(steps, errors.mean(axis=1), color=color, label=label)
            axes.fill_between(steps, errors.min(axis=1), errors.max(axis=1), color=color, alpha=0.2)
    axes.set(xlabel="step", ylabel="error (%)", ylim=(0, None), title=plain(f"{title}, {seeds}"))
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path, dpi=120)


def draw_comparison(found, title, path, against="processor minutes"):
    """Draws the test errors of several trainings, means as lines and ranges as bands.

    Args:
        found: Dictionary from the name of each training to its runs. A training whose logs have no processor time is
            left out of a figure against it.
        title: Title of the figure.
        path: Path of the PNG.
        against: `"processor minutes"` or `"steps"`, the horizontal axis.
    """
    figure, axes = new_figure(7, 4 + 0.2 * len(found))
    for number, (name, runs) in enumerate(found.items()):
        seeds = [
            [
                (line["step"], place, 100 * line["error"])
                for line in run.lines
                if line["split"] == "test" and (place := _place(run, line["step"], against)) is not None
            ]
            for run in runs
        ]
        steps, places, errors = at_common_steps(seeds, columns=2)
        if len(steps):
            label = plain(f"{name}: {mean(errors[-1])} % at step {steps[-1]:,.0f}, n = {len(runs)}")
            color, places = f"C{number}", places.mean(axis=1)
            axes.plot(places, errors.mean(axis=1), "o-", ms=3, color=color, label=label)
            axes.fill_between(places, errors.min(axis=1), errors.max(axis=1), color=color, alpha=0.2)
    axes.set(xlabel=against, ylabel="test error (%)", xlim=(0, None), ylim=(0, None), title=plain(title))
    axes.grid(alpha=0.3)
    figure.legend(fontsize="small", loc="outside lower center")  # inside the axes it would cover the slow ones
    save_figure(figure, path, dpi=120)


def _place(run, step, against):
    return step if against == "steps" else run.processor_minutes(step)


def draw_ratios(rows, title, axis, path):
    """Draws ratios to several peers, a dot at each median and a line from the minimum to the maximum.

    Args:
        rows: List of pairs of a setting and a dictionary from the name of each peer to its `min`, `median` and `max`.
        title: Title of the figure.
        axis: Label of the ratios.
        path: Path of the PNG.
    """
    figure, axes = new_figure(8, 1.5 + 0.36 * len(rows))
    peers = list(dict.fromkeys(peer for _, ratios in rows for peer in ratios))
    for number, peer in enumerate(peers):
        points = [(row, ratios[peer]) for row, (_, ratios) in enumerate(rows) if peer in ratios]
        middle = [values["median"] for _, values in points]
        ends = [[values["median"] - values["min"] for _, values in points]]
        ends += [[values["max"] - values["median"] for _, values in points]]
        heights = [row + 0.18 * (number - (len(peers) - 1) / 2) for row, _ in points]
        axes.errorbar(middle, heights, xerr=ends, fmt="o", ms=4, color=f"C{number}", label=plain(f"over {peer}"))
    axes.axvline(1, color="black", lw=1)
    axes.set_xscale("log", base=2)
    ticks = (0.75, 1, 1.25, 1.5, 2, 3, 4)
    axes.set_xticks(ticks, [format(tick, "g") for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(rows)), [plain(setting) for setting, _ in rows], fontsize="small")
    axes.set(xlabel=plain(axis), title=plain(title), ylim=(len(rows) - 0.4, -0.6))
    axes.grid(alpha=0.3, axis="x")
    figure.legend(fontsize="small", loc="outside lower center", ncols=len(peers))
    save_figure(figure, path, dpi=120)


def at_common_steps(seeds, columns=1):
    """Returns steps that all seeds have passed, and the values of all seeds at these steps.

    Versions of a recipe may have logged at different steps. The steps are therefore those of the seed that has the
    fewest, and the values of the other seeds are interpolated.

    Args:
        seeds: List with a list for each seed: tuples of a step and the columns, in order of the steps.
        columns: Number of columns.

    Returns:
        Array of the steps `[points]`, and for each column an array `[points, seeds]`.
    """
    if not seeds or not all(seeds):
        return np.empty(0), *[np.empty((0, len(seeds)))] * columns
    seeds = [np.array(points, float) for points in seeds]
    first, last = max(points[0, 0] for points in seeds), min(points[-1, 0] for points in seeds)
    steps = min(seeds, key=len)[:, 0]
    steps = steps[(first <= steps) & (steps <= last)]
    tables = (
        np.stack([np.interp(steps, points[:, 0], points[:, column]) for points in seeds], axis=1)
        for column in range(1, columns + 1)
    )
    return steps, *tables


def mean(values, digits=2):
    """Returns the mean ± the standard deviation of a list of numbers, as text."""
    if not len(values):
        return "-"
    text = f"{statistics.fmean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.{digits}f}"
