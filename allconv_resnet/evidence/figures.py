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


def mean(values, digits=2):
    """Returns a mean and a standard deviation in words."""
    if not values:
        return "-"
    text = f"{statistics.fmean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.{digits}f}"
