"""Experiment (b): residual networks on CIFAR-10 with different activations, at the same weight scale and the same c.

One batch order a seed for all networks, so that they are compared on the same batches. Each finished run is a JSON of
its own; the command goes on where it was stopped.
"""

import json

import keras
import numpy as np

from allconv_resnet.theory import isometry
from allconv_resnet.theory.activations import ACTIVATIONS, Activation
from allconv_resnet.theory.commands.reporting import Progress, cifar10, environment, print_table, write_json

BATCH, LEARNING_RATE, EARLY = 128, 0.02, 50
SMALL_MEAN = 0.5  # of |m[L]| at equal c, with inputs of deviation 1
CENTERED = Activation("sigmoid - 1/2", lambda h: keras.ops.sigmoid(h) - 0.5)  # the sigmoid's c without its mean
NETWORKS = [*(ACTIVATIONS[n] for n in ("tanh", "hard_tanh", "selu", "elu", "relu", "leaky_relu", "sigmoid")), CENTERED]
ARMS = ("same weight scale", "same c")


def run(output_dir, data_dir, width, depth, seeds, steps, c, weight_scale):
    """Trains all networks, prints the spread of their losses, writes `training.png` and `training.json`."""
    settings = {"width": width, "depth": depth, "steps": steps, "c": c, "weight_scale": weight_scale}
    settings |= {"batch": BATCH, "learning_rate": LEARNING_RATE}
    runs_dir = output_dir / "training_runs"
    plan = [(a, arm, seed) for a in NETWORKS for arm in ARMS for seed in range(seeds)]
    progress, images, built_for = Progress("training runs"), None, None
    results = []
    for done, (activation, arm, seed) in enumerate(plan):
        progress(done, len(plan))
        if built_for is not activation:
            built_for, model, scale_for_c = activation, None, isometry.weight_scale_for(activation, c, depth)
        scale = weight_scale if arm == ARMS[0] else scale_for_c
        path = runs_dir / f"{activation.name}-{arm}-{seed}.json".replace(" ", "_").replace("/", "_")
        known = json.loads(path.read_text()) if path.is_file() else None
        if known is None or known["settings"] != settings:
            images = cifar10(data_dir)[:2] if images is None else images
            model = build(activation, width, depth) if model is None else model  # compiled once an activation
            initialize(model, scale, width, depth, seed)
            losses = train(model, *images, seed, steps)
            known = {"activation": activation.name, "arm": arm, "seed": seed, "settings": settings}
            known |= {"scale": scale, "losses": losses}
            write_json(path, known)
        results.append(known)
    progress(len(plan), len(plan))
    summary = summarize(results, depth, weight_scale, c)
    report(summary, seeds)
    write_json(output_dir / "training.json", {"environment": environment(), "settings": settings, **summary})
    draw(results, summary, seeds, output_dir / "training.png")


def build(activation, width, depth):
    """Returns a compiled network: a linear layer, `depth` layers x + phi(W x + b), a linear readout."""
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
    """Draws the weights from the seed: residual layers at the weight scale, the others at 1 / sqrt(inputs)."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dense):
            inputs, outputs = layer.kernel.shape
            residual = layer.name.startswith("layer")
            deviation = scale / np.sqrt(width * depth) if residual else 1 / np.sqrt(inputs)
            layer.kernel.assign(deviation * random.standard_normal((inputs, outputs)))
            if layer.use_bias:
                layer.bias.assign(np.zeros(outputs))


def train(model, images, labels, seed, steps):
    """Trains by plain SGD, in an order drawn from the seed, and returns the loss of each batch before its step."""
    random = np.random.default_rng(1000 + seed)
    epochs = [random.permutation(len(images)) for _ in range(-(-steps * BATCH // len(images)))]
    losses = np.empty(steps)
    for step, rows in enumerate(np.concatenate(epochs)[: steps * BATCH].reshape(steps, BATCH)):
        model.reset_metrics()
        losses[step] = model.train_on_batch(images[rows].reshape(BATCH, -1), labels[rows])
    return losses


def summarize(results, depth, weight_scale, c):
    """Returns the mean curves and their spread between activations, early and late, as a dictionary."""
    networks = []
    for activation in NETWORKS:
        fields = {arm: {"scale": of(results, activation.name, arm)[0]["scale"]} for arm in ARMS}
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


def of(results, name, arm):
    """Returns the runs of one network in one arm."""
    return [r for r in results if r["activation"] == name and r["arm"] == arm]


def losses_of(results, name, arm):
    """Returns the losses of these runs, `[seeds, steps]`, nan after a divergence."""
    return np.array([r["losses"] for r in of(results, name, arm)], np.float64)


def spread(results, names, arm):
    """Returns how far apart the seed means of activations are: their range and deviation, averaged over the steps."""
    curves = np.array([losses_of(results, name, arm).mean(axis=0) for name in names])
    ranges, deviations = np.ptp(curves, axis=0), curves.std(axis=0, ddof=1)
    parts = {"first": slice(None, 1), "early": slice(None, EARLY), "late": slice(-EARLY, None)}
    return {key: ranges[part].mean() for key, part in parts.items()} | {
        f"{key}_deviation": deviations[part].mean() for key, part in parts.items()
    }


def report(summary, seeds):
    """Prints the networks and the spreads."""
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
            print(f"Diverged at the {arm}, and not in the spreads: {', '.join(names)}")


def draw(results, summary, seeds, path):
    """Writes the figure: learning curves of both arms, their start enlarged, means over the seeds with their range."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8.5), layout="constrained")
    axes = figure.subplots(2, 2, sharey="row")
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
            ax.grid(alpha=0.3)
        column[0].set(title=arm, xlim=(-1, 60))
        column[0].legend(fontsize=8)
        column[1].set_xlabel("step")
    for ax in axes[:, 0]:
        ax.set_ylabel("training loss (mean of up to 10 steps)")
    figure.suptitle(
        f"Residual networks on CIFAR-10, {seeds} seeds each with their range; dashed: the activations' mean drifts"
    )
    figure.savefig(path, dpi=100)


def smooth(losses, window=10):
    """Returns the running mean of a loss over the last steps, at most `window`."""
    total = np.cumsum(np.append(0.0, losses))
    stop = np.arange(1, len(losses) + 1)
    start = np.maximum(stop - window, 0)
    return (total[stop] - total[start]) / (stop - start)
