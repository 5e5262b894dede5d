"""The experiment `network`: the Jacobian of the CIFAR network of this package, at initialization and during training.

All singular values are computed for the whole body, from the 3,072 pixels to the last feature map before the pooling.
The theory applies to each stage without its first block, where the shape does not change. There the experiment measures
the effective cumulant c, the sum over the blocks of |J_branch v|^2 / |v|^2 for random v, and compares the largest
squared singular value with the edge lambda_+(c) of the universal law.
"""

import json
import re
from collections import Counter

import keras
import numpy as np

import allconv_resnet as acr
from allconv_resnet.errors import BadInput
from allconv_resnet.plotting import add_grids, new_figure, save_figure
from allconv_resnet.theory import isometry
from allconv_resnet.theory.commands.reporting import (
    load_cifar10,
    load_run,
    print_table,
    progress_callback,
    write_results,
)

INITIALIZATIONS = {"paper": "near_identity", "standard": "standard", "he": "he"}
PROBES, BATCH_SIZE = 32, 32


def measure_networks(output_dir, data_dir, run_dirs, train_steps):
    """Measures every network, prints the tables, and writes `network.png` and `network.json`.

    Args:
        output_dir: Path. Networks that have a JSON file there already are not measured again.
        data_dir: Path of the directory of tensorflow-datasets, or None for the default.
        run_dirs: Sequence of paths of run directories.
        train_steps: Integer, number of training steps of another network; 0 for none.

    Raises:
        BadInput: if the steps exceed one epoch, or if the network of a run does not have the stages of this experiment.
    """
    images, labels = load_cifar10(data_dir)
    epoch = len(images) // BATCH_SIZE
    if not 0 <= train_steps <= epoch:
        raise BadInput(f"train_steps must lie in [0, {epoch}], at most one epoch. Received: train_steps={train_steps}")
    builders = {name: _initialized(kind) for name, kind in INITIALIZATIONS.items()}
    if train_steps:
        builders[f"paper, {train_steps} steps of 32"] = lambda: train_cifar_resnet(images, labels, train_steps)
    for run_dir in run_dirs:
        model, step = load_run(run_dir)
        check_stages(model, run_dir)
        builders[f"{'/'.join(run_dir.resolve().parts[-2:])}, step {step}"] = lambda model=model: model
    results = []
    for name, build in builders.items():
        path = output_dir / "network" / f"{name}.json".replace(" ", "_").replace(",", "").replace("/", "_")
        if not path.is_file():
            write_results(path, network=name, **measure(build(), images[0], name))
        results.append(json.loads(path.read_text()))
    headings = ("network", "largest", "median", "smallest", "above 1/100 of it")
    rows = [
        (r["network"], v[0], v[len(v) // 2], v[-1], f"{np.sum(v > v[0] / 100)} of {len(v)}")
        for r in results
        for v in [np.array(r["singular_values"])]
    ]
    print("Singular values of the Jacobian from the pixels of one image to the last feature map:")
    print_table(headings, rows)
    print("\nBlocks 2 to 9 of each stage, c measured, the largest squared singular value and the edge of the law:")
    rows = [
        (r["network"], s["stage"], s["c"], s["largest"], s["edge"], s["largest"] / s["edge"])
        for r in results
        for s in r["stages"]
    ]
    print_table(("network", "stage", "c", "largest", "lambda_+(c)", "ratio"), rows)
    write_results(output_dir / "network.json", results=results)
    draw_jacobians(results, output_dir / "network.png")


def measure(model, image, name):
    """Returns the singular values of the body of a network, and c and the largest singular value of its stages."""
    body = keras.Model(model.input, model.get_layer("pool").input)
    values = isometry.jacobian_singular_values(body, image, progress=progress_callback(f"{name}, body"))
    stages = []
    for number in (1, 2, 3):
        blocks = [layer for layer in model.layers if layer.name.startswith(f"stage{number}_block")]
        x = keras.Model(model.input, blocks[0].output)(image[None], training=False)
        c = branch_cumulant(blocks[1:], x)
        tail = keras.Model(blocks[0].output, blocks[-1].output)
        inputs = keras.ops.convert_to_numpy(x)
        progress = progress_callback(f"{name}, stage {number}")
        largest = isometry.jacobian_singular_values(tail, inputs, k=1, which="largest", progress=progress)
        stages.append({"stage": number, "c": c, "largest": largest[0] ** 2, "edge": isometry.spectral_edges(c)[1]})
    return {"singular_values": values, "stages": stages}


def branch_cumulant(blocks, x):
    """Returns the effective cumulant of residual blocks at `x`.

    It is the sum over the blocks of the mean of |J_branch v|^2 / |v|^2 over random vectors v.
    """
    random, total = np.random.default_rng(0), 0.0
    for block in blocks:
        point = keras.ops.convert_to_numpy(x)[0]
        branch = isometry.JacobianOperator(lambda t, block=block: block(t, training=False) - t, point)
        vectors = random.standard_normal((PROBES, branch.shape[1]))
        total += np.mean(np.sum(branch.forward(vectors) ** 2, axis=1) / np.sum(vectors**2, axis=1))
        x = block(x, training=False)
    return float(total)


def _initialized(kind):
    return lambda: acr.cifar_resnet(10, initialization=kind)


def train_cifar_resnet(images, labels, steps):
    """Returns the CIFAR network after some steps of training with batches of 32 images."""
    model = acr.cifar_resnet(10)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(acr.Momentum(0.05, weight_decay=1e-4), loss, jit_compile=False)
    progress = progress_callback("training")
    order = np.random.default_rng(0).permutation(len(images))[: steps * BATCH_SIZE]
    for step, rows in enumerate(order.reshape(-1, BATCH_SIZE)):
        model.train_on_batch(images[rows], labels[rows])
        progress(step + 1, steps)
    return model


def check_stages(model, run_dir):
    """Checks that the network of a run has the stages that are measured.

    Args:
        model: Keras model.
        run_dir: Path of the run directory, for the message.

    Raises:
        BadInput: if it has not.
    """
    names = [layer.name for layer in model.layers]
    blocks = Counter(match[1] for name in names if (match := re.fullmatch(r"(stage\d+)_block\d+", name)))
    mirrored = "mean_over_mirror_images" in names
    if not isinstance(model, acr.AllConvResNet) or mirrored or len(blocks) != 3 or min(blocks.values()) < 2:
        raise BadInput(
            "The network must be an AllConvResNet of three stages, each of at least two blocks, that does not average "
            f"over mirror images. Received: {run_dir} with {type(model).__name__}, blocks={dict(blocks)}, "
            f"mirror_average={mirrored}"
        )


def draw_jacobians(results, path):
    """Draws all singular values in order, and the largest one of each stage against the edge of the universal law."""
    figure, (spectra, edges) = new_figure(12, 4.8, columns=2)
    for i, r in enumerate(results):
        values = np.array(r["singular_values"])
        spectra.plot(np.arange(1, len(values) + 1), values / values[0], color=f"C{i}", label=r["network"])
        points = [(s["edge"] - 1, s["largest"] - 1) for s in r["stages"]]
        for (edge, largest), marker in zip(points, "os^", strict=True):
            edges.plot(edge, largest, marker, color=f"C{i}")
    spectra.set(yscale="log", xlabel="index", ylabel="singular value / largest", title="image to last feature map")
    spectra.axvline(1024, color="0.6", lw=1, ls=":")
    spectra.text(1040, 1.0, "1024: 16 channels at 8x8, all that the shortcuts carry", fontsize=7, va="top")
    spectra.legend(fontsize=8, loc="lower left")
    limits = [0.5 * min(edges.get_xlim()[0], 1e-2), 2 * edges.get_xlim()[1]]
    edges.set(xscale="log", yscale="log", xlabel="$\\lambda_+(c) - 1$ of the universal law", ylabel="measured - 1")
    edges.plot(limits, limits, color="0.6", lw=1)
    edges.set_title(
        "largest squared singular value, blocks 2 to 9 of a stage\n(circle, square, triangle: stage 1, 2, 3)"
    )
    figure.suptitle("Jacobians of the CIFAR network of Hardt & Ma at one training image")
    add_grids(figure)
    save_figure(figure, path)
