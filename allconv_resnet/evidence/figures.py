"""The figures of results/, drawn from the logs of runs."""

import statistics


def draw_curves(runs, title, path):
    """Draws the errors of several seeds against steps: their mean, and their range as a band."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for split, color in (("train", "C0"), ("test", "C3")):
        errors = {}
        for run in runs:
            for line in run.lines:
                if line["split"] == split:
                    errors.setdefault(line["step"], []).append(100 * line["error"])
        common = {step: values for step, values in sorted(errors.items()) if len(values) == len(runs)}
        if common:
            label = f"{split}: {mean(common[max(common)])} % at the end"
            axes.plot(list(common), [statistics.fmean(v) for v in common.values()], color=color, label=label)
            axes.fill_between(
                list(common),
                [min(v) for v in common.values()],
                [max(v) for v in common.values()],
                color=color,
                alpha=0.2,
            )
    axes.set(xlabel="step", ylabel="error (%)", ylim=(0, None), title=f"{title}, {len(runs)} seeds and their range")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def draw_comparison(found, title, path):
    """Draws the test errors of several trainings against processor time: means over the seeds, ranges as bands."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, (name, runs) in enumerate(found.items()):
        points = {}
        for run in runs:
            for line in run.lines:
                if line["split"] == "test" and (minutes := run.processor_minutes(line["step"])) is not None:
                    points.setdefault(line["step"], []).append((minutes, 100 * line["error"]))
        common = [tuple(zip(*values, strict=True)) for _, values in sorted(points.items()) if len(values) == len(runs)]
        if common:
            minutes = [statistics.fmean(values) for values, _ in common]
            errors = [values for _, values in common]
            label, color = f"{name}: {mean(errors[-1])} % at the end, n = {len(runs)}", f"C{number}"
            axes.plot(minutes, [statistics.fmean(values) for values in errors], "o-", ms=3, color=color, label=label)
            axes.fill_between(
                minutes, [min(values) for values in errors], [max(values) for values in errors], color=color, alpha=0.2
            )
    axes.set(xlabel="processor minutes", ylabel="test error (%)", xlim=(0, None), ylim=(0, None), title=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def draw_ratios(rows, title, path):
    """Draws how many times as fast as its peers something is: a dot at the median, a line from least to most.

    Args:
        rows: Pairs of a setting and the ratios of each peer there: a dictionary of `min`, `median` and `max`.
        title: Of the figure.
        path: Of the PNG.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1.2 + 0.36 * len(rows)), layout="constrained")
    axes = figure.subplots()
    peers = list(dict.fromkeys(peer for _, ratios in rows for peer in ratios))
    for number, peer in enumerate(peers):
        points = [(row, ratios[peer]) for row, (_, ratios) in enumerate(rows) if peer in ratios]
        middle = [values["median"] for _, values in points]
        ends = [[values["median"] - values["min"] for _, values in points]]
        ends += [[values["max"] - values["median"] for _, values in points]]
        heights = [row + 0.18 * (number - (len(peers) - 1) / 2) for row, _ in points]
        axes.errorbar(middle, heights, xerr=ends, fmt="o", ms=4, color=f"C{number}", label=f"over {peer}")
    axes.axvline(1, color="black", lw=1)
    axes.set_xscale("log", base=2)
    ticks = (0.75, 1, 1.25, 1.5, 2, 3, 4)
    axes.set_xticks(ticks, [format(tick, "g") for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(rows)), [setting for setting, _ in rows])
    axes.set(xlabel="images a second, ours over theirs", title=title, ylim=(len(rows) - 0.4, -0.6))
    axes.grid(alpha=0.3, axis="x")
    axes.legend(fontsize="small", loc="lower right")
    figure.savefig(path, dpi=120)


def mean(values, digits=2):
    """Returns a mean and a standard deviation in words."""
    if not values:
        return "-"
    text = f"{statistics.fmean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.{digits}f}"
