"""The experiment `training` of isometry: networks with different activations at equal weight scale and at equal c.

For each seed, all networks are trained on the same batches. Each finished run is stored in a JSON file, so that the
command continues where it was stopped.
"""

import json

import numpy as np

from allconv_resnet.plotting import add_grids, new_figure, save_figure
from allconv_resnet.theory import isometry
from allconv_resnet.theory.commands.dense_networks import (
    ARMS,
    BATCH_SIZE,
    LEARNING_RATE,
    NETWORKS,
    build_network,
    initialize,
    train_with_sgd,
)
from allconv_resnet.theory.commands.reporting import (
    json_ready,
    load_images,
    print_table,
    progress_callback,
    write_results,
)

EARLY = 50
TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 1.5, 2, 3, 5, 10, 20)
SMALL_MEAN = 0.5  # limit for |m[L]| at equal c, with inputs of standard deviation 1
STATEMENT = (
    "The bulk of the Jacobian's spectrum depends on c = $\\Sigma$ $\\sigma_w^2/L$ E[$\\varphi'^2$] alone "
    "(Tarnowski et al., sections 3 and 4): at equal c, the first steps of different activations should agree."
)


def compare_trainings(output_dir, data, data_dir, width, depth, seeds, steps, c, weight_scale):
    """Trains all networks, prints the spread of their losses, and writes `training.png` and `training.json`.

    Args:
        output_dir: Path. Runs that have a JSON file with the same settings there are not repeated.
        data: String, name of a dataset of ten classes.
        data_dir: Path of the directory of tensorflow-datasets, or None for the default.
        width: Positive integer, number of neurons of a layer.
        depth: Positive integer, number of residual layers.
        seeds: Positive integer, number of runs of each network.
        steps: Positive integer, number of SGD steps.
        c: Positive float, effective cumulant of the networks with equal c.
        weight_scale: Positive float, weight scale of the networks with equal weight scale.
    """
    settings = {"width": width, "depth": depth, "steps": steps, "c": c, "weight_scale": weight_scale}
    settings |= {"batch": BATCH_SIZE, "learning_rate": LEARNING_RATE, "data": data}
    images, labels = load_images(data, data_dir)
    settings["images"] = len(images)
    runs_dir = output_dir / "training_runs"
    plan = [(a, arm, seed) for a in NETWORKS for arm in ARMS for seed in range(seeds)]
    progress, built_for = progress_callback("training runs"), None
    results = []
    for done, (activation, arm, seed) in enumerate(plan):
        progress(done, len(plan))
        if built_for is not activation:
            built_for, model, scale_for_c = activation, None, isometry.weight_scale_for(activation, c, depth)
        scale = weight_scale if arm == ARMS[0] else scale_for_c
        path = runs_dir / f"{activation.name}-{arm}-{seed}.json".replace(" ", "_").replace("/", "_")
        known = json.loads(path.read_text()) if path.is_file() else None
        if known is None or known["settings"] != json_ready(settings):
            if model is None:  # compiled once per activation
                model = build_network(activation, width, depth, images[0].size)
            initialize(model, scale, width, depth, seed)
            losses = train_with_sgd(model, images, labels, seed, steps)
            known = {"activation": activation.name, "arm": arm, "seed": seed, "settings": settings}
            known |= {"scale": scale, "losses": losses}
            write_results(path, **known)
        results.append(known)
    progress(len(plan), len(plan))
    summary = summarize(results, depth, weight_scale, c)
    print_summary(summary, data, seeds)
    write_results(output_dir / "training.json", settings=settings, seeds=list(range(seeds)), **summary)
    draw_learning_curves(results, summary, data, seeds, output_dir / "training.png")


def summarize(results, depth, weight_scale, c):
    """Returns the mean losses of the networks and their spread between activations, early and late, as a dictionary."""
    networks = []
    for activation in NETWORKS:
        fields = {arm: {"scale": runs_of(results, activation.name, arm)[0]["scale"]} for arm in ARMS}
        for arm, entry in fields.items():
            field = isometry.mean_field(activation, entry["scale"], 0.0, depth)
            curves = losses_of(results, activation.name, arm)
            entry |= {"c": field.cumulants.sum(), "mean": field.m[-1], "mean_square": field.p[-1]}
            entry |= {"outliers": isometry.outliers(activation, entry["scale"], 0.0, depth)}
            entry |= {
                "first": curves[:, 0].mean(),
                "early": curves[:, :EARLY].mean(),
                "late": curves[:, -EARLY:].mean(),
            }
            entry |= {"seed_deviation_late": curves[:, -EARLY:].mean(axis=1).std(ddof=1) if len(curves) > 1 else None}
        networks.append({"activation": activation.name, **fields})
    small = [n["activation"] for n in networks if abs(n["same c"]["mean"]) < SMALL_MEAN]
    groups = {
        "all": [n["activation"] for n in networks],
        "small mean": small,
        "large mean": [n["activation"] for n in networks if n["activation"] not in small],
        "all but the sigmoid": [n["activation"] for n in networks if n["activation"] != "sigmoid"],
    }
    diverged = {
        arm: [n["activation"] for n in networks if not np.isfinite(losses_of(results, n["activation"], arm)).all()]
        for arm in ARMS
    }
    lost = {name for names in diverged.values() for name in names}
    groups = {group: [name for name in names if name not in lost] for group, names in groups.items()}
    groups = {group: names for group, names in groups.items() if names}
    spreads = {group: {arm: spread(results, names, arm) for arm in ARMS} for group, names in groups.items()}
    return {"networks": networks, "groups": groups, "diverged": diverged, "spreads": spreads}


def runs_of(results, name, arm):
    """Returns the runs of one activation in one arm."""
    return [r for r in results if r["activation"] == name and r["arm"] == arm]


def losses_of(results, name, arm):
    """Returns the losses of these runs, `[seeds, steps]`, which are NaN after a divergence."""
    return np.array([r["losses"] for r in runs_of(results, name, arm)], np.float64)


def spread(results, names, arm):
    """Returns the range and the standard deviation between activations of the mean losses, averaged over the steps."""
    curves = np.array([losses_of(results, name, arm).mean(axis=0) for name in names])
    ranges = np.ptp(curves, axis=0)
    deviations = curves.std(axis=0, ddof=1) if len(names) > 1 else np.full(ranges.shape, np.nan)
    parts = {"first": slice(None, 1), "early": slice(None, EARLY), "late": slice(-EARLY, None)}
    return {key: ranges[part].mean() for key, part in parts.items()} | {
        f"{key}_deviation": deviations[part].mean() for key, part in parts.items()
    }


def print_summary(summary, data, seeds):
    """Prints the mean losses of the networks and the spreads between activations."""
    print(f"Training loss on {data}, mean of {seeds} seeds; early and late are the first and last {EARLY} steps:")
    rows = []
    for n in summary["networks"]:
        for arm in ARMS:
            a = n[arm]
            rows.append((n["activation"], arm, a["scale"], a["c"], a["mean"], a["first"], a["early"], a["late"]))
    print_table(("activation", "arm", "sw", "c", "m[L]", "first", "early", "late"), rows)
    print("\nSpread of the loss between activations (range, averaged over the steps):")
    rows = []
    for group, arms in summary["spreads"].items():
        for when in ("first", "early", "late"):
            a, b = (arms[arm][when] for arm in ARMS)
            rows.append((f"{group} ({len(summary['groups'][group])})", when, a, b, b / a if a else None))
    print_table(("activations", "when", *ARMS, "ratio"), rows)
    for arm, names in summary["diverged"].items():
        if names:
            print(f"Diverged at the {arm} and excluded from the spreads: {', '.join(names)}")


def draw_learning_curves(results, summary, data, seeds, path):
    """Draws the learning curves of both arms, and their beginnings; bands are the range over the seeds."""
    figure, axes = new_figure(15, 8.5, 2, 2, sharey="row")
    for column, arm in zip(axes.T, ARMS, strict=True):
        for i, network in enumerate(summary["networks"]):
            curves = np.array([smooth(losses) for losses in losses_of(results, network["activation"], arm)])
            style = "-" if abs(network["same c"]["mean"]) < SMALL_MEAN else "--"
            label = f"{network['activation'].replace('_', ' ')}: c = {network[arm]['c']:.3g}"
            label += ", diverged" if network["activation"] in summary["diverged"][arm] else ""
            for ax in column:
                ax.plot(curves.mean(axis=0), style, color=f"C{i}", label=label)
                low, high = curves.min(axis=0), curves.max(axis=0)
                ax.fill_between(range(curves.shape[1]), low, high, color=f"C{i}", alpha=0.15)
        column[0].set(title=arm, xlim=(-1, 60))
        column[0].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
        column[1].set_xlabel("step")
    everything = np.array([smooth(losses) for r in results for losses in [np.array(r["losses"], np.float64)]])
    for row, shown in zip(axes, (everything[:, :60], everything), strict=True):
        row[0].set(ylabel="training loss in nats (mean of up to 10 steps)", yscale="log")
        row[0].set_ylim(0.9 * np.nanmin(shown), min(30.0, 1.1 * np.nanmax(shown)))
        row[0].set_yticks([t for t in TICKS if row[0].get_ylim()[0] < t < row[0].get_ylim()[1]], minor=False)
        row[0].set_yticks([], minor=True)
        row[0].yaxis.set_major_formatter("{x:g}")
    figure.suptitle(
        f"Residual networks on {data}, {seeds} seeds with their range; dashed: activations whose mean drifts"
    )
    figure.supxlabel(STATEMENT, fontsize="small")
    add_grids(figure)
    save_figure(figure, path, dpi=100)


def smooth(losses, window=10):
    """Returns the running mean of a loss over the last `window` steps."""
    total = np.cumsum(np.append(0.0, losses))
    stop = np.arange(1, len(losses) + 1)
    start = np.maximum(stop - window, 0)
    return (total[stop] - total[start]) / (stop - start)
