"""`allconv-resnet theory gradients`: what near-identity initialization is for (Balduzzi et al., arXiv 1702.08591).

For the initializations of this project, Fixup, SkipInit and networks without the identity, with and without batch
normalization, the command measures at initialization, against the number of blocks: by how much the blocks change the
norm of a gradient, the norm of the gradient of the weights, the singular values of the Jacobian, and the correlation of
gradients at close inputs. It prints one table and writes gradients.png and gradients.json.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import threadpoolctl

from allconv_resnet.errors import BadInput
from allconv_resnet.plotting import add_grids, new_figure, save_figure
from allconv_resnet.theory.checks import positive_integer
from allconv_resnet.theory.commands.reporting import (
    add_statement,
    check_count,
    legend_beside,
    load_images,
    print_table,
    progress_callback,
    write_results,
)
from allconv_resnet.usage import DATA_DIR

DEPTHS = (1, 2, 4, 8, 16, 32, 64)
NAMES = {
    "near_identity": "near identity, 1/(k²c)",
    "standard": "standard, 1/(k√c)",
    "he": "He, √2/(k√c)",
    "fixup": "Fixup",
    "skipinit": "SkipInit",
    "plain": "He, without the identity",
}
PANELS = {
    "backward_growth": "|∂L/∂h₀| / |∂L/∂h_l|",
    "weight_gradient": "|∂L/∂W| of all blocks",
    "largest": "singular values of ∂h_l/∂h₀",
    "correlation": "correlation of gradients",
}


@dataclass(frozen=True)
class Options:
    """Measures gradients against depth at initialization, for several initializations (Balduzzi et al.)."""

    data: str = "digits"
    """Dataset of images, such as digits or cifar10. They are reduced to size x size pixels."""
    data_dir: Annotated[Path | None, DATA_DIR] = None
    """Directory of tensorflow-datasets."""
    images: int = 64
    """Number of training images; the first images of the dataset are used."""
    size: int = 8
    """Height and width of the maps. It must divide that of the images."""
    channels: int = 4
    """Number of channels."""
    distance: float = 0.1
    """Relative distance of the inputs whose gradients are compared."""
    seeds: int = 5
    """Number of networks of each kind."""
    seed: int = 0
    """Seed of the first network; the others follow."""
    output_dir: Path = Path("results/theory/gradients")
    """Directory of the figure and of gradients.json."""


def run(options: Options) -> None:
    """Measures all networks, prints a table, and writes the results and the figure.

    Args:
        options: `Options`.

    Raises:
        BadInput: if an option is out of range or the dataset is not available.
    """
    for name in ("images", "size", "channels", "seeds"):
        positive_integer(getattr(options, name), name)
    if not (np.isfinite(options.distance) and options.distance > 0):
        raise BadInput(f"distance must be a finite number above 0. Received: distance={options.distance}")
    images, labels = load_inputs(options)
    with threadpoolctl.threadpool_limits(1, "blas"):  # several threads are slower on matrices of this size
        rows = measure(images, labels, options, progress_callback("networks"))
    deepest = [summary(rows, variant, norm, DEPTHS[-1]) for variant in NAMES for norm in (None, "batch")]
    columns = ("variant", "normalization", *PANELS, "smallest")
    headings = ("initialization", "normalization", *PANELS, "smallest")
    print(f"At {DEPTHS[-1]} blocks, geometric means over {options.seeds} networks (correlation: mean):")
    print_table([name.replace("_", " ") for name in headings], [[row[name] for name in columns] for row in deepest])
    settings = {name: value for name, value in vars(options).items() if name != "data_dir"}
    write_results(options.output_dir / "gradients.json", options=settings, rows=rows)
    draw(rows, options.output_dir / "gradients.png", options)
    print(f"Wrote gradients.json and gradients.png to {options.output_dir}")


def measure(images, labels, options, progress):
    """Returns the measures of networks of all kinds, depths and seeds, one dictionary each.

    Args:
        images: `[n, size, size, channels]`.
        labels: `[n]`, integers.
        options: `Options`.
        progress: Callable `(done, total)`.
    """
    from allconv_resnet.theory.gradients import measure_gradients

    rows, kinds = [], [(variant, norm, depth) for variant in NAMES for norm in (None, "batch") for depth in DEPTHS]
    for k, (variant, normalization, depth) in enumerate(kinds):
        for seed in range(options.seed, options.seed + options.seeds):
            h = stem(images, options.channels, seed)
            found = measure_gradients(variant, depth, h, labels, options.size, normalization, options.distance, seed)
            rows.append(
                {"variant": variant, "normalization": normalization, "depth": depth, "seed": seed, **asdict(found)}
            )
        progress(k + 1, len(kinds))
    return rows


def load_inputs(options):
    """Returns the first images, reduced by averaging and standardized, `[n, size, size, 3]`, and their labels."""
    import keras

    from allconv_resnet.layers import standardize

    images, labels = load_images(options.data, options.data_dir)
    check_count(options.images, images, options.data)
    images, labels = images[: options.images], np.asarray(labels[: options.images])
    height, width = images.shape[1:3]
    if height % options.size or width % options.size:
        raise BadInput(
            f"size must divide the height and width of the images, {height}x{width}. Received: size={options.size}"
        )
    blocks = images.reshape(
        len(images), options.size, height // options.size, options.size, width // options.size, images.shape[3]
    )
    small = np.clip(np.round(blocks.mean(axis=(2, 4))), 0, 255).astype(np.uint8)
    return keras.ops.convert_to_numpy(standardize(small)).astype(np.float64), labels


def stem(images, channels, seed):
    """Returns the images after a convolution with the initialization of the paper's stem, `[n, size^2 channels]`."""
    import keras

    from allconv_resnet import initializers
    from allconv_resnet.theory.balduzzi.matrix_networks import convolution_matrix

    kernel = initializers.for_kernel("standard", 10_000 * seed + 9_999)((3, 3, images.shape[3], channels), "float32")
    return images.reshape(len(images), -1) @ convolution_matrix(keras.ops.convert_to_numpy(kernel), images.shape[1]).T


def summary(rows, variant, normalization, depth):
    """Returns the means over the networks of one kind: of the logarithms, and of the correlation itself."""
    chosen = [r for r in rows if (r["variant"], r["normalization"], r["depth"]) == (variant, normalization, depth)]
    row = {"variant": NAMES[variant], "normalization": normalization or "none"}
    for name in (*PANELS, "smallest"):
        values = np.array([r[name] for r in chosen])
        if name == "correlation":
            row[name] = float(values.mean())
        else:  # None, where a smallest singular value is within rounding
            row[name] = float(np.exp(np.log(values).mean())) if values.min() > 0 else None
    return row


def draw(rows, path, options):
    """Draws the four measures against depth, without and with batch normalization, with bands over the networks."""
    figure, panels = new_figure(19, 8.4, rows=2, columns=len(PANELS))
    for line, normalization in zip(panels, (None, "batch"), strict=True):
        for axes, (name, label) in zip(line, PANELS.items(), strict=True):
            for i, variant in enumerate(NAMES):
                chosen = [r for r in rows if (r["variant"], r["normalization"]) == (variant, normalization)]
                width = 4.5 - 0.7 * i  # so that coinciding lines stay visible
                band(axes, chosen, name, f"C{i}", "-", NAMES[variant], width)
                if name == "largest":
                    band(axes, chosen, "smallest", f"C{i}", "--", None, width)
            axes.set_xscale("log", base=2)
            axes.set_xticks(DEPTHS, labels=DEPTHS)
            if name != "correlation":
                axes.set_yscale("log")
                axes.set_ylim(max(axes.get_ylim()[0], 1e-8), min(axes.get_ylim()[1], 1e12))
            title = "batch normalization" if normalization else "no normalization"
            axes.set(xlabel="blocks l", ylabel=label, title=title)
    legend_beside(panels[0, -1])
    panels[1, -1].plot([], [], "k-", label="largest singular value")
    panels[1, -1].plot([], [], "k--", label="smallest singular value\n(while above rounding)")
    lines = [pair for pair in zip(*panels[1, -1].get_legend_handles_labels(), strict=True) if "singular" in pair[1]]
    legend_beside(panels[1, -1], handles=[handle for handle, _ in lines])
    add_grids(figure)
    add_statement(
        figure,
        f"At initialization; lines are means and bands are the range over {options.seeds} networks. Correlation: mean "
        f"cosine of the input gradients of one output at relative distance {options.distance:g} (Balduzzi et al.: it "
        "decays exponentially with depth without the identity, and slowly with it).",
    )
    save_figure(figure, path, dpi=110)


def band(axes, rows, name, color, style, label, width):
    """Draws the mean of a measure against depth, and its range over the networks as a band."""
    values = np.array([[row[name] for row in rows if row["depth"] == depth] for depth in DEPTHS])
    if name == "correlation":
        mean = values.mean(axis=1)
    else:
        values = np.where((values > 0).all(axis=1, keepdims=True), values, np.nan)
        mean = np.exp(np.log(values).mean(axis=1))
    axes.plot(DEPTHS, mean, style, color=color, label=label, linewidth=width)
    axes.fill_between(DEPTHS, values.min(axis=1), values.max(axis=1), color=color, alpha=0.2, linewidth=0)
