"""The experiment `network`: the Jacobian of the CIFAR network of this package, and the law of its own blocks.

The law applies to each stage without its first block, where the shape does not change: eight blocks x + V phi(U x),
that is `depth=8` and `inner=1/2`, with the effective cumulant c measured as the sum over the blocks of
|J_branch v|^2 / |v|^2 for random v. All singular values are computed for stage 1 at the middle of its feature map,
`CROP` x `CROP` positions of 64 channels. With `body`, the experiment also measures the largest singular value of each
whole stage, and all singular values from the 3,072 pixels to the last feature map before the pooling.
"""

import json
import re
from collections import Counter

import keras
import numpy as np

import allconv_resnet as acr
from allconv_resnet.errors import BadInput
from allconv_resnet.layers import standardize
from allconv_resnet.plotting import new_figure, plain, save_figure
from allconv_resnet.theory import isometry
from allconv_resnet.theory.commands.reporting import (
    add_statement,
    legend_beside,
    load_images,
    load_run,
    print_table,
    progress_callback,
    write_results,
)

INITIALIZATIONS = {"paper": "near_identity", "standard": "standard", "he": "he"}
PROBES, BATCH_SIZE, CROP = 32, 32, 6
MARKERS = "os^"  # of the three stages
CARRIED = 16 * 8 * 8  # values that the shortcuts carry from the stem to the last feature map
OWN_LAW = {"depth": 8, "inner": 0.5}  # of blocks 2 to 9 of a stage; half of the ReLUs are active
LAWS = {"its own law": OWN_LAW, "layers x + W x": {"depth": 8}, "universal law": {}}
STATEMENT = (
    "Law of a product of L wide blocks 1 + V D U:  1/z = y/(1+y) (r(1+r)/(y(1+y)))$^L$,  "
    "y = r + v r(1+r) / (1 - v r(1+r)/inner),  v = c/L,  density of log z = -Im y/$\\pi$."
)


def measure_networks(output_dir, data_dir, run_dirs, train_steps, body):
    """Measures every network, prints the tables, and writes `network.png` and `network.json`.

    Args:
        output_dir: Path. Networks that have a JSON file there already are not measured again.
        data_dir: Path of the directory of tensorflow-datasets, or None for the default.
        run_dirs: Sequence of paths of run directories.
        train_steps: Integer, number of training steps of another network; 0 for none.
        body: Whether to measure the whole body and the whole stages, some minutes for a network.

    Raises:
        BadInput: if the steps exceed one epoch, or if the network of a run does not have the stages of this experiment.
    """
    images, labels = load_images("cifar10", data_dir, "train", False)
    epoch = len(images) // BATCH_SIZE
    if not 0 <= train_steps <= epoch:
        raise BadInput(f"train_steps must lie in [0, {epoch}], at most one epoch. Received: train_steps={train_steps}")
    order = np.random.default_rng(0).permutation(len(images))[: train_steps * BATCH_SIZE]
    image, batches, classes = keras.ops.convert_to_numpy(standardize(images[:1]))[0], images[order], labels[order]
    del images  # which are 150 MB
    builders = {name: _initialized(kind) for name, kind in INITIALIZATIONS.items()}
    if train_steps:
        builders[f"paper, {train_steps} steps of 32"] = lambda: train_cifar_resnet(batches, classes)
    for run_dir in run_dirs:
        model, step = load_run(run_dir)
        check_stages(model, run_dir)
        name = f"{'/'.join(run_dir.resolve().parts[-2:])}, step {step}"
        if name in builders:
            raise BadInput(f"Expected run directories whose last two names differ. Received: {name} twice")
        builders[name] = lambda model=model: model
    results = []
    for name, build in builders.items():
        path = output_dir / "network" / f"{name}.json".replace(" ", "_").replace(",", "").replace("/", "_")
        measurements = {"stage": (path.with_name(f"stage_{path.name}"), measure_stage)}
        measurements |= {"body": (path, measure)} if body else {}
        found = {"network": name}
        for file, function in measurements.values():
            if not file.is_file() or json.loads(file.read_text())["network"] != name:
                write_results(file, network=name, **function(build(), image, name))
            found |= json.loads(file.read_text())
        results.append(found)
    print_tables(results)
    write_results(output_dir / "network.json", image=0, **OWN_LAW, results=results)
    draw_jacobians(results, output_dir / "network.png")


def print_tables(results):
    """Prints the spectra and the largest singular values beside the laws, and what was measured of the whole body."""
    rows = []
    for r in results:
        values = np.maximum(r["squared_singular_values"], 1e-300)
        distances = [isometry.kolmogorov_smirnov(values, r["c"], **law) for law in LAWS.values()]
        edge = isometry.spectral_edges(r["c"], **OWN_LAW)[1]
        rows.append(
            (r["network"], r["c"], values.mean(), isometry.spectral_mean(r["c"], 8), values[0], edge, *distances)
        )
    headings = ("network", "c", "mean", "of the law", "largest", "edge", *(f"KS to {name}" for name in LAWS))
    print(f"Squared singular values of blocks 2 to 9 of stage 1 on {CROP}x{CROP} positions, one network each:")
    print_table(headings, rows)
    whole = [r for r in results if "stages" in r]
    if not whole:
        return
    headings = ("network", "largest", "median", "smallest", "above 1/100 of it")
    rows = [
        (r["network"], v[0], v[len(v) // 2], v[-1], f"{np.sum(v > v[0] / 100)} of {len(v)}")
        for r in whole
        for v in [np.array(r["singular_values"])]
    ]
    print("\nSingular values of the Jacobian from the pixels of one image to the last feature map:")
    print_table(headings, rows)
    print(
        "\nBlocks 2 to 9 of each whole stage, c measured, the largest squared singular value and the edge of the law:"
    )
    rows = []
    for r in whole:
        for s in r["stages"]:
            own, universal = isometry.spectral_edges(s["c"], **OWN_LAW)[1], isometry.spectral_edges(s["c"])[1]
            rows.append((r["network"], s["stage"], s["c"], s["largest"], own, s["largest"] / own, universal))
    print_table(("network", "stage", "c", "largest", "edge", "ratio", "universal edge"), rows)


def measure_stage(model, image, name):
    """Returns c and all squared singular values of blocks 2 to 9 of stage 1, at the middle of its feature map."""
    blocks = [layer for layer in model.layers if layer.name.startswith("stage1_block")]
    x = keras.ops.convert_to_numpy(keras.Model(model.input, blocks[0].output)(image[None], training=False))
    start = (x.shape[1] - CROP) // 2
    x = x[:, start : start + CROP, start : start + CROP]
    c = branch_cumulant(blocks[1:], keras.ops.convert_to_tensor(x))
    y = inputs = keras.Input(x.shape[1:])
    for block in blocks[1:]:
        y = block(y)
    progress = progress_callback(f"{name}, stage 1")
    values = isometry.jacobian_singular_values(keras.Model(inputs, y), x[0], progress=progress)
    return {"crop": CROP, "c": c, "squared_singular_values": values**2}


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
        stages.append({"stage": number, "c": c, "largest": largest[0] ** 2})
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


def train_cifar_resnet(images, labels):
    """Returns the CIFAR network after training on uint8 images once, with batches of 32."""
    model = acr.cifar_resnet(10)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(acr.Momentum(0.05, weight_decay=1e-4), loss, jit_compile=False)
    progress = progress_callback("training")
    steps = len(images) // BATCH_SIZE
    for step in range(steps):
        rows = slice(step * BATCH_SIZE, (step + 1) * BATCH_SIZE)
        model.train_on_batch(standardize(images[rows]), labels[rows])
        progress(step + 1, steps)
    return model


def check_stages(model, run_dir):
    """Checks that the network of a run has the stages that are measured.

    Args:
        model: Keras model.
        run_dir: Path of the run directory, for the message.

    Raises:
        BadInput: if it has not, or if `OWN_LAW` is not the law of its blocks.
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
    layers = [layer for layer in model.layers if re.fullmatch(r"stage\d+_block\d+", layer.name)]
    lawful = all(
        type(layer) is acr.ResidualBlock
        and layer.shortcut is not None
        and layer.normalization is None
        and layer.activation is keras.activations.relu
        for layer in layers
    )
    if not lawful or set(blocks.values()) != {OWN_LAW["depth"] + 1}:
        raise BadInput(
            "The stages must be of nine ResidualBlocks each, with shortcuts and ReLUs and without normalization, since "
            f"the law is that of the last eight of them. Received: {run_dir} with blocks={dict(blocks)} of type "
            f"{', '.join(sorted({type(layer).__name__ for layer in layers}))}"
        )


def draw_jacobians(results, path):
    """Draws the spectrum of each network over the laws, and the whole stages and bodies of those that were measured."""
    whole = [r for r in results if "stages" in r]
    columns = max(len(results), 2)
    figure, axes = new_figure(4.2 * columns + 3, 8.6 if whole else 4.4, 2 if whole else 1, columns, squeeze=False)
    for ax, r in zip(axes[0], results, strict=False):
        draw_spectrum(ax, r)
    axes[0, 0].set_ylabel("density of the logarithm")
    legend_beside(axes[0, len(results) - 1])
    for ax in (*axes[0, len(results) :], *(axes[1, 2:] if whole else ())):
        ax.set_axis_off()
    if whole:
        draw_stages(axes[1, 0], whole)
        draw_bodies(axes[1, 1], whole)
        legend_beside(axes[1, 1], handles=marks_of(whole))
        axes[1, 1].get_legend().set_in_layout(columns == 2)  # otherwise there is an empty panel beside
    figure.suptitle(
        "Jacobians of the CIFAR network of Hardt & Ma at one training image. "
        f"Above: blocks 2 to 9 of stage 1, {CROP}x{CROP} positions"
    )
    add_statement(figure, STATEMENT)
    save_figure(figure, path, dpi=90)


def draw_spectrum(ax, r):
    """Draws the histogram of the squared singular values on a logarithmic axis, and the densities of the laws."""
    values = np.maximum(r["squared_singular_values"], 1e-300)
    c = r["c"]
    low, high = (max(values[int(0.98 * len(values))], 1e-12), values[0])
    bins = np.geomspace(low / (high / low) ** 0.05, high * (high / low) ** 0.05, 50)
    shown = np.histogram(values, bins)[0] / (len(values) * np.diff(np.log(bins)))
    ax.stairs(shown, bins, fill=True, color="0.8", label="measured")
    grid = np.geomspace(bins[0], bins[-1], 600)
    distances = []
    for (name, law), style in zip(LAWS.items(), ("C3-", "C2-.", "C0--"), strict=True):
        ax.plot(grid, grid * isometry.spectral_density(grid, c, **law), style, lw=1.2, label=name)
        distances.append(f"{isometry.kolmogorov_smirnov(values, c, **law):.3f}")
    ax.set(xscale="log", xlabel="squared singular value")
    ax.set_title(f"{plain(r['network'])}: c = {c:.3g}\nKS distances to the laws: {', '.join(distances)}", fontsize=10)
    if high < 2 * low:
        ax.set_xscale("linear")
        ax.locator_params(axis="x", nbins=4)


def draw_stages(ax, whole):
    """Draws the largest squared singular value of each whole stage against the edges of both laws."""
    for i, r in enumerate(whole):
        for s, marker in zip(r["stages"], MARKERS, strict=True):
            largest = s["largest"] - 1
            own, universal = isometry.spectral_edges(s["c"], **OWN_LAW)[1], isometry.spectral_edges(s["c"])[1]
            ax.plot(own - 1, largest, marker, color=f"C{i}")
            ax.plot(universal - 1, largest, marker, color=f"C{i}", mfc="none")
    limits = [1e-3, 1e6]
    ax.plot(limits, limits, color="0.6", lw=1)
    ax.set(xscale="log", yscale="log", xlabel="upper edge of the law - 1", ylabel="largest squared singular value - 1")
    ax.set_title("blocks 2 to 9 of whole stages", fontsize=10)
    ax.grid(alpha=0.3)


def draw_bodies(ax, whole):
    """Draws all singular values of the bodies in order."""
    for i, r in enumerate(whole):
        values = np.array(r["singular_values"])
        ax.plot(np.arange(1, len(values) + 1), values / values[0], color=f"C{i}")
    ax.set(yscale="log", xlabel="index", ylabel="singular value / largest")
    ax.set_title("from the pixels to the last feature map", fontsize=10)
    ax.axvline(CARRIED, color="0.6", lw=1, ls=":")
    ax.grid(alpha=0.3)


def marks_of(whole):
    """Returns the handles of the legend of the lower row."""
    from matplotlib.lines import Line2D

    networks = [Line2D([], [], color=f"C{i}", label=plain(r["network"])) for i, r in enumerate(whole)]
    stages = [Line2D([], [], color="0.4", ls="", marker=m, label=f"left: stage {i}") for i, m in enumerate(MARKERS, 1)]
    return [
        *networks,
        *stages,
        Line2D([], [], color="0.4", ls="", marker="o", label="left, filled: edge of its own law"),
        Line2D([], [], color="0.4", ls="", marker="o", mfc="none", label="left, open: edge of the universal law"),
        Line2D([], [], color="0.6", lw=1, label="left: equality"),
        Line2D([], [], color="0.6", lw=1, ls=":", label="right: the 16 channels at 8x8\nthat the shortcuts carry"),
    ]
