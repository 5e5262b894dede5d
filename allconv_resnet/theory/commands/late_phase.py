"""The experiment `late` of isometry: test accuracy after some epochs, at equal weight scale and at equal c.

Tarnowski et al. compare the early phase of learning at equal c, and ask what is left of it in the late one. Each
finished run is stored in a JSON file, so that the command continues where it was stopped.
"""

import json
from itertools import product

import numpy as np

from allconv_resnet.plotting import add_grids, new_figure, plain, save_figure
from allconv_resnet.theory import isometry
from allconv_resnet.theory.commands.dense_networks import (
    ARMS,
    BATCH_SIZE,
    LEARNING_RATE,
    build_network,
    initialize,
    test_accuracy,
    train_with_sgd,
)
from allconv_resnet.theory.commands.reporting import (
    json_ready,
    load_images,
    print_table,
    progress_callback,
    write_results,
)

NAMES = ("tanh", "hard_tanh", "selu", "relu", "leaky_relu")
STATEMENT = (
    "c fixes the bulk of the Jacobian's spectrum at initialization (Tarnowski et al., section 3). "
    "It says nothing about the late phase, in which the activations themselves differ."
)


def compare_accuracies(output_dir, data, data_dir, width, depth, seeds, epochs, c, weight_scale, skip):
    """Trains five activations in both arms, prints the test accuracies, and writes `late.png` and `late.json`.

    Args:
        output_dir: Path. Runs that have a JSON file with the same settings there are not repeated.
        data: String, name of a dataset of ten classes.
        data_dir: Path of the directory of tensorflow-datasets, or None for the default.
        width: Positive integer, number of neurons of a layer.
        depth: Positive integer, number of residual layers.
        seeds: Positive integer, number of runs of each network.
        epochs: Positive integer.
        c: Positive float, effective cumulant of the networks with equal c.
        weight_scale: Positive float, weight scale of the networks with equal weight scale.
        skip: Positive float, the factor of the identity.
    """
    images, labels = load_images(data, data_dir)
    tests = load_images(data, data_dir, "test")
    steps = len(images) // BATCH_SIZE
    settings = {"data": data, "images": len(images), "test_images": len(tests[0]), "width": width, "depth": depth}
    settings |= {"epochs": epochs, "c": c, "weight_scale": weight_scale, "skip": skip}
    settings |= {"batch": BATCH_SIZE, "learning_rate": LEARNING_RATE}
    plan, progress, results, built_for = list(product(NAMES, ARMS, range(seeds))), progress_callback("runs"), [], None
    for done, (name, arm, seed) in enumerate(plan):
        progress(done, len(plan))
        path = output_dir / "late_runs" / f"{name}-{arm}-{seed}.json".replace(" ", "_")
        known = json.loads(path.read_text()) if path.is_file() else None
        if known is None or known["settings"] != json_ready(settings):
            if built_for != name:
                built_for, model = name, build_network(isometry.ACTIVATIONS[name], width, depth, images[0].size, skip)
            scale = weight_scale if arm == ARMS[0] else isometry.weight_scale_for(name, c, depth, skip=skip)
            initialize(model, scale, width, depth, seed)
            accuracy = []

            def after_step(step, model=model, accuracy=accuracy):
                if step % steps == 0:
                    accuracy.append(test_accuracy(model, *tests))

            losses = train_with_sgd(model, images, labels, seed, epochs * steps, after_step)
            known = {"activation": name, "arm": arm, "seed": seed, "settings": settings, "scale": scale}
            known |= {"c": isometry.effective_cumulant(name, scale, 0.0, depth, skip=skip)}
            known |= {"loss": losses.reshape(epochs, steps).mean(axis=1), "test_accuracy": accuracy}
            write_results(path, **known)
            known = json.loads(path.read_text())
        results.append(known)
    progress(len(plan), len(plan))
    summary = summarize(results)
    rows = [(*key, *(s[k] for k in ("c", "mean", "low", "high", "diverged"))) for key, s in summary.items()]
    print(f"Test accuracy on {data} after {epochs} epochs, mean and range of {seeds} seeds:")
    print_table(("activation", "arm", "c", "mean", "lowest", "highest", "diverged"), rows)
    for arm in ARMS:
        means = [s["mean"] for (_, other), s in summary.items() if other == arm and not s["diverged"]]
        if len(means) > 1:
            spread = f"range {np.ptp(means):.4f}, standard deviation {np.std(means, ddof=1):.4f}"
            print(f"{arm}: between the {len(means)} activations of which no run diverged, {spread}")
    entries = [{"activation": name, "arm": arm, **s} for (name, arm), s in summary.items()]
    write_results(output_dir / "late.json", settings=settings, seeds=list(range(seeds)), results=entries)
    draw_accuracies(results, summary, settings, output_dir / "late.png")


def summarize(results):
    """Returns c, the mean and the range of the last test accuracy, and the number of diverged runs of each network."""
    summary = {}
    for name, arm in product(NAMES, ARMS):
        runs = [r for r in results if (r["activation"], r["arm"]) == (name, arm)]
        last = [r["test_accuracy"][-1] for r in runs]
        diverged = sum(not np.isfinite(np.array(r["loss"], np.float64)).all() for r in runs)
        entry = {"c": runs[0]["c"], "mean": np.mean(last), "low": min(last), "high": max(last)}
        summary[name, arm] = entry | {"diverged": diverged}
    return summary


def draw_accuracies(results, summary, settings, path):
    """Draws the test accuracies against epochs in both arms."""
    figure, axes = new_figure(13, 4.6, columns=2, sharey=True)
    for ax, arm in zip(axes, ARMS, strict=True):
        for i, name in enumerate(NAMES):
            curves = np.array([r["test_accuracy"] for r in results if (r["activation"], r["arm"]) == (name, arm)])
            epochs = np.arange(1, curves.shape[1] + 1)
            s = summary[name, arm]
            label = f"{name.replace('_', ' ')}, c = {s['c']:.3g}" + (
                f", {s['diverged']} diverged" * (s["diverged"] > 0)
            )
            ax.plot(epochs, curves.mean(axis=0), f"C{i}{'--' if s['diverged'] else '-'}", label=label)
            ax.fill_between(epochs, curves.min(axis=0), curves.max(axis=0), color=f"C{i}", alpha=0.15)
        ax.set(title=arm, xlabel="epoch")
        ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
    axes[0].set_ylabel("test accuracy")
    identity = "" if settings["skip"] == 1 else f", {settings['skip']:g} x + phi(W x + b)"
    figure.suptitle(
        f"Networks of width {settings['width']} and depth {settings['depth']} on {plain(settings['data'])}{identity}, "
        "mean and range over the seeds"
    )
    figure.supxlabel(STATEMENT, fontsize="small")
    add_grids(figure)
    save_figure(figure, path, dpi=100)
