"""Experiment (c): the Jacobian of this project's CIFAR network, at its initializations and during training.

Two views. Of the whole body, from the 3,072 pixels to the last feature map before the pooling: every singular value.
Of each stage without its first block, where the shape stays the same and the theory applies: the effective cumulant
c = sum over the blocks of |J_branch v|^2 / |v|^2 for random v, and the largest squared singular value beside the edge
lambda_+(c) of the universal law.
"""

import json

import keras
import numpy as np

import allconv_resnet as acr
from allconv_resnet.errors import BadInput
from allconv_resnet.theory import isometry
from allconv_resnet.theory.commands.reporting import Progress, cifar10, environment, print_table, write_json

INITIALIZATIONS = {"paper": "near_identity", "standard": "standard", "he": "he"}
PROBES, BATCH = 32, 32


def run(output_dir, data_dir, run_dirs, train_steps):
    """Measures every network, prints the table, writes `network.png` and `network.json`."""
    images, labels = cifar10(data_dir)[:2]
    if not 0 <= train_steps <= len(images) // BATCH:
        raise BadInput(f"train-steps must lie in [0, {len(images) // BATCH}], an epoch. Received: {train_steps}")
    makers = {name: _initialized(kind) for name, kind in INITIALIZATIONS.items()}
    if train_steps:
        makers[f"paper, {train_steps} steps of 32"] = lambda: _trained(images, labels, train_steps)
    for run_dir in run_dirs:
        model, step = _of_run(run_dir)
        makers[f"{'/'.join(run_dir.resolve().parts[-2:])}, step {step}"] = lambda model=model: model
    results = []
    for name, make in makers.items():
        path = output_dir / "network" / f"{name}.json".replace(" ", "_").replace(",", "").replace("/", "_")
        if not path.is_file():
            write_json(path, {"network": name, "environment": environment(), **measure(make(), images[0], name)})
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
    write_json(output_dir / "network.json", {"environment": environment(), "results": results})
    draw(results, output_dir / "network.png")


def measure(model, image, name):
    """Returns the singular values of a network's body, and c and the largest value of its stages."""
    body = keras.Model(model.input, model.get_layer("pool").input)
    values = isometry.jacobian_singular_values(body, image, progress=Progress(f"{name}, body"))
    stages = []
    for number in (1, 2, 3):
        blocks = [layer for layer in model.layers if layer.name.startswith(f"stage{number}_block")]
        x = keras.Model(model.input, blocks[0].output)(image[None], training=False)
        c = branch_cumulant(blocks[1:], x)
        tail = keras.Model(blocks[0].output, blocks[-1].output)
        inputs = keras.ops.convert_to_numpy(x)
        progress = Progress(f"{name}, stage {number}")
        largest = isometry.jacobian_singular_values(tail, inputs, k=1, which="largest", progress=progress)
        stages.append({"stage": number, "c": c, "largest": largest[0] ** 2, "edge": isometry.spectral_edges(c)[1]})
    return {"singular_values": values, "stages": stages}


def branch_cumulant(blocks, x):
    """Returns the sum over residual blocks of the mean square gain of a random vector through the branch, at `x`."""
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


def _trained(images, labels, steps):
    model = acr.cifar_resnet(10)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(acr.Momentum(0.05, weight_decay=1e-4), loss, jit_compile=False)
    progress = Progress("training")
    for step, rows in enumerate(np.random.default_rng(0).permutation(len(images))[: steps * BATCH].reshape(-1, BATCH)):
        model.train_on_batch(images[rows], labels[rows])
        progress(step + 1, steps)
    return model


def _of_run(run_dir):
    from allconv_resnet.training.evaluate import load_model  # TensorFlow's checkpoints

    model, recipe, step = load_model(run_dir)
    blocks = [stage[0] for stage in recipe.stages]
    if recipe.network != "allconv_resnet" or recipe.mirror_average or len(blocks) != 3 or min(blocks) < 2:
        raise BadInput(
            "The spectra are those of networks of three stages, of at least two blocks each, that do not average over "
            f"mirror images. Received: {run_dir} with network={recipe.network}, stages={recipe.stages}, "
            f"mirror_average={recipe.mirror_average}"
        )
    return model, step


def draw(results, path):
    """Writes the figure: all singular values in order, and the largest of each stage against the law's edge."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.8), layout="constrained")
    spectra, edges = figure.subplots(1, 2)
    for i, r in enumerate(results):
        values = np.array(r["singular_values"])
        spectra.plot(np.arange(1, len(values) + 1), values / values[0], color=f"C{i}", label=r["network"])
        points = [(s["edge"] - 1, s["largest"] - 1) for s in r["stages"]]
        for (edge, largest), marker in zip(points, "os^", strict=True):
            edges.plot(edge, largest, marker, color=f"C{i}")
    spectra.set(yscale="log", xlabel="index", ylabel="singular value / largest", title="image to last feature map")
    spectra.axvline(1024, color="0.6", lw=1, ls=":")
    spectra.text(1040, 1.0, "1024: 16 channels at 8x8, all that the shortcuts carry", fontsize=7, va="top")
    spectra.grid(alpha=0.3)
    spectra.legend(fontsize=8, loc="lower left")
    limits = [0.5 * min(edges.get_xlim()[0], 1e-2), 2 * edges.get_xlim()[1]]
    edges.set(xscale="log", yscale="log", xlabel="$\\lambda_+(c) - 1$ of the universal law", ylabel="measured - 1")
    edges.plot(limits, limits, color="0.6", lw=1)
    edges.set_title(
        "largest squared singular value, blocks 2 to 9 of a stage\n(circle, square, triangle: stage 1, 2, 3)"
    )
    edges.grid(alpha=0.3)
    figure.suptitle("Jacobians of the CIFAR network of Hardt & Ma at one training image")
    figure.savefig(path, dpi=110)
