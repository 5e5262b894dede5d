"""The experiment `training` of isometry: networks with different activations at equal weight scale and at equal c.

For each seed, all networks are trained on the same batches of CIFAR-10. Each finished run is stored in a JSON file, so
that the command continues where it was stopped.
"""

import json

import keras
import numpy as np

from allconv_resnet.plotting import add_grids, new_figure, save_figure
from allconv_resnet.theory import isometry
from allconv_resnet.theory.commands.reporting import load_cifar10, print_table, progress_callback, write_results
from allconv_resnet.theory.isometry import ACTIVATIONS, Activation

BATCH_SIZE, LEARNING_RATE, EARLY = 128, 0.02, 50
SMALL_MEAN = 0.5  # limit for |m[L]| at equal c, with inputs of standard deviation 1
CENTERED = Activation(
    "sigmoid - 1/2", lambda h: keras.ops.sigmoid(h) - 0.5
)  # has the same c as the sigmoid, but no mean
NETWORKS = [*(ACTIVATIONS[n] for n in ("tanh", "hard_tanh", "selu", "elu", "relu", "leaky_relu", "sigmoid")), CENTERED]
ARMS = ("same weight scale", "same c")


def compare_trainings(output_dir, data_dir, width, depth, seeds, steps, c, weight_scale):
    """Trains all networks, prints the spread of their losses, and writes `training.png` and `training.json`.

    Args:
        output_dir: Path. Runs that have a JSON file with the same settings there are not repeated.
        data_dir: Path of the directory of tensorflow-datasets, or None for the default.
        width: Positive integer, number of neurons of a layer.
        depth: Positive integer, number of residual layers.
        seeds: Positive integer, number of runs of each network.
        steps: Positive integer, number of SGD steps.
        c: Positive float, effective cumulant of the networks with equal c.
        weight_scale: Positive float, weight scale of the networks with equal weight scale.
    """
    settings = {"width": width, "depth": depth, "steps": steps, "c": c, "weight_scale": weight_scale}
    settings |= {"batch": BATCH_SIZE, "learning_rate": LEARNING_RATE}
    runs_dir = output_dir / "training_runs"
    plan = [(a, arm, seed) for a in NETWORKS for arm in ARMS for seed in range(seeds)]
    progress, images, built_for = progress_callback("training runs"), None, None
    results = []
    for done, (activation, arm, seed) in enumerate(plan):
        progress(done, len(plan))
        if built_for is not activation:
            built_for, model, scale_for_c = activation, None, isometry.weight_scale_for(activation, c, depth)
        scale = weight_scale if arm == ARMS[0] else scale_for_c
        path = runs_dir / f"{activation.name}-{arm}-{seed}.json".replace(" ", "_").replace("/", "_")
        known = json.loads(path.read_text()) if path.is_file() else None
        if known is None or known["settings"] != settings:
            images = load_cifar10(data_dir) if images is None else images
            model = build_network(activation, width, depth) if model is None else model  # compiled once per activation
            initialize(model, scale, width, depth, seed)
            losses = train_with_sgd(model, *images, seed, steps)
            known = {"activation": activation.name, "arm": arm, "seed": seed, "settings": settings}
            known |= {"scale": scale, "losses": losses}
            write_results(path, **known)
        results.append(known)
    progress(len(plan), len(plan))
    summary = summarize(results, depth, weight_scale, c)
    print_summary(summary, seeds)
    write_results(output_dir / "training.json", settings=settings, **summary)
    draw_learning_curves(results, summary, seeds, output_dir / "training.png")


def build_network(activation, width, depth):
    """Returns a compiled network of a linear layer, `depth` layers x + phi(W x + b), and a linear readout."""
    x = inputs = keras.Input((32 * 32 * 3,))
    x = keras.layers.Dense(width, use_bias=False, name="stem")(x)
    for layer in range(depth):
        h = keras.layers.Dense(width, name=f"layer{layer}")(x)
        x = keras.layers.Add()([x, keras.layers.Activation(activation.function)(h)])
    model = keras.Model(inputs, keras.layers.Dense(10, name="readout")(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(LEARNING_RATE), loss, jit_compile=False)
    return model


def initialize(model, scale, width, depth, seed):
    """Sets random weights: residual layers at the weight scale, others with standard deviation 1 / sqrt(inputs)."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dense):
            inputs, outputs = layer.kernel.shape
            residual = layer.name.startswith("layer")
            deviation = scale / np.sqrt(width * depth) if residual else 1 / np.sqrt(inputs)
            layer.kernel.assign(deviation * random.standard_normal((inputs, outputs)))
            if layer.use_bias:
                layer.bias.assign(np.zeros(outputs))


def train_with_sgd(model, images, labels, seed, steps):
    """Trains by SGD on batches that depend on the seed only, and returns the loss of each batch before its step."""
    random = np.random.default_rng(1000 + seed)
    epochs = [random.permutation(len(images)) for _ in range(-(-steps * BATCH_SIZE // len(images)))]
    losses = np.empty(steps)
    for step, rows in enumerate(np.concatenate(epochs)[: steps * BATCH_SIZE].reshape(steps, BATCH_SIZE)):
        model.reset_metrics()
        losses[step] = model.train_on_batch(images[rows].reshape(BATCH_SIZE, -1), labels[rows])
    return losses


def summarize(results, depth, weight_scale, c):
    """Returns the mean losses of the networks and their spread between activations, early and late, as a dictionary."""
    networks = []
    for activation in NETWORKS:
        fields = {arm: {"scale": runs_of(results, activation.name, arm)[0]["scale"]} for arm in ARMS}
        for arm, entry in fields.items():
            field = isometry.mean_field(activation, entry["scale"], 0.0, depth)
            curves = losses_of(results, activation.name, arm)
            entry |= {"c": field.cumulants.sum(), "mean": field.m[-1], "mean_square": field.p[-1]}
            entry |= {"outlier": isometry.outlier(activation, entry["scale"], 0.0, depth)}
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
    ranges, deviations = np.ptp(curves, axis=0), curves.std(axis=0, ddof=1)
    parts = {"first": slice(None, 1), "early": slice(None, EARLY), "late": slice(-EARLY, None)}
    return {key: ranges[part].mean() for key, part in parts.items()} | {
        f"{key}_deviation": deviations[part].mean() for key, part in parts.items()
    }


def print_summary(summary, seeds):
    """Prints the mean losses of the networks and the spreads between activations."""
    print(f"Training loss on CIFAR-10, mean of {seeds} seeds; early and late are the first and last {EARLY} steps:")
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
            rows.append((f"{group} ({len(summary['groups'][group])})", when, a, b, b / a))
    print_table(("activations", "when", *ARMS, "ratio"), rows)
    for arm, names in summary["diverged"].items():
        if names:
            print(f"Diverged at the {arm} and excluded from the spreads: {', '.join(names)}")


def draw_learning_curves(results, summary, seeds, path):
    """Draws the learning curves of both arms, and their beginnings; bands are the range over the seeds."""
    figure, axes = new_figure(12, 8.5, 2, 2, sharey="row")
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
        for ax, limit in zip(column, ([1.8, 30], [1.4, 8]), strict=True):
            ax.set(ylim=limit, yscale="log")
            ax.set_yticks([t for t in (1.5, 2, 3, 5, 10, 20) if limit[0] < t < limit[1]], minor=False)
            ax.set_yticks([], minor=True)
            ax.yaxis.set_major_formatter("{x:g}")
        column[0].set(title=arm, xlim=(-1, 60))
        column[0].legend(fontsize=8)
        column[1].set_xlabel("step")
    for ax in axes[:, 0]:
        ax.set_ylabel("training loss (mean of up to 10 steps)")
    figure.suptitle(
        f"Residual networks on CIFAR-10, {seeds} seeds with their range; dashed: activations whose mean drifts"
    )
    add_grids(figure)
    save_figure(figure, path, dpi=100)


def smooth(losses, window=10):
    """Returns the running mean of a loss over the last `window` steps."""
    total = np.cumsum(np.append(0.0, losses))
    stop = np.arange(1, len(losses) + 1)
    start = np.maximum(stop - window, 0)
    return (total[stop] - total[start]) / (stop - start)
