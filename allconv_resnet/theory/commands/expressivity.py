"""`allconv-resnet theory expressivity`: the size of networks that memorize random labels (Hardt & Ma, theorem 3.2).

    allconv-resnet theory expressivity --data cifar10 --data-dir DIR --points 1000 10000 50000 --widths 16 64

prints one table and writes parameters.png (the number of weights against that of points, with the number that the
theorem states), margin.png (the smallest margin and the precision that it needs) and expressivity.json.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from allconv_resnet.errors import BadInput
from allconv_resnet.plotting import add_grids, new_figure, save_figure
from allconv_resnet.theory import expressivity
from allconv_resnet.theory.checks import positive_integer
from allconv_resnet.theory.commands.reporting import load_images, print_table, progress_callback, write_results


@dataclass(frozen=True)
class Options:
    """Builds networks that memorize random labels and reports their sizes (Hardt & Ma, theorem 3.2)."""

    data: str = "normal"
    """Dataset: normal for random points, or the name of an image dataset such as digits or cifar10."""
    data_dir: Path | None = None
    """Directory of tensorflow-datasets, for image datasets."""
    points: tuple[int, ...] = (100, 300, 1000, 3000)
    """Numbers of points to memorize; the first points of the dataset are used."""
    widths: tuple[int, ...] = (4, 16, 64)
    """Widths of the networks."""
    dimension: int = 128
    """Dimension of the normal points."""
    num_classes: int = 10
    """Number of classes of the random labels."""
    seed: int = 0
    """Seed of the labels, the normal points and the random projection."""
    output_dir: Path = Path("results/theory/expressivity")
    """Directory of the figures and of expressivity.json."""


def run(options: Options) -> None:
    """Memorizes random labels at every size, prints a table, and writes the results and the figures.

    Args:
        options: `Options`.

    Raises:
        BadInput: if an option is out of range or the dataset is not available.
    """
    for name in ("dimension", "num_classes"):
        positive_integer(getattr(options, name), name)
    for name in ("points", "widths"):
        values = getattr(options, name)
        if not values:
            raise BadInput(f"{name} must have at least one number. Received: {name}={values}")
        for value in values:
            positive_integer(value, name)
    x = load_points(options)
    if max(options.points) > len(x):
        raise BadInput(
            f"points must be at most {len(x)}, the size of {options.data}. Received: points={options.points}"
        )
    labels = np.random.default_rng(options.seed).integers(0, options.num_classes, len(x))
    rows = []
    for width in options.widths:
        for n in options.points:
            show = progress_callback(f"{n} points, width {width}")
            began = time.perf_counter()
            model = expressivity.memorize(
                x[:n],
                labels[:n],
                width,
                num_classes=options.num_classes,
                seed=options.seed,
                progress=lambda stage, done, total, show=show: show(done, total),
            )
            seconds = time.perf_counter() - began
            wrong = int(np.count_nonzero(expressivity.predict_labels(model, x[:n]) != labels[:n]))
            rows.append({**asdict(model.report), "seconds": seconds, "wrong": wrong})
    columns = ("points", "width", "blocks", "parameters", "theorem_parameters", "smallest_margin", "precision")
    columns = (*columns, "rounding", "seconds", "wrong")
    print_table([name.replace("_", " ") for name in columns], [[row[name] for name in columns] for row in rows])
    settings = {name: value for name, value in vars(options).items() if name != "data_dir"}
    write_results(options.output_dir / "expressivity.json", options=settings, rows=rows)
    draw_parameters(rows, options, options.output_dir / "parameters.png")
    draw_margins(rows, options, options.output_dir / "margin.png")
    print(f"Wrote expressivity.json, parameters.png and margin.png to {options.output_dir}")


def load_points(options):
    """Returns the points that the options choose, `[n, ...]`."""
    if options.data == "normal":
        rng = np.random.default_rng(options.seed)
        return rng.standard_normal((max(options.points), options.dimension)).astype(np.float32)
    return load_images(options.data, options.data_dir)[0]


def draw_parameters(rows, options, path):
    """Draws the number of weights against the number of points, for every width and for the theorem."""
    figure, axes = new_figure(5.2, 4.2)
    n = np.unique(np.geomspace(min(options.points), 20 * max(options.points), 60).astype(int))
    count = [expressivity.theorem_parameters(int(k), options.num_classes) for k in n]
    axes.loglog(n, count, "k--", label="theorem 3.2 with constants 1: n (2 log n + 1) + r²")
    for i, width in enumerate(options.widths):
        of_width = [row for row in rows if row["width"] == width]
        fixed = of_width[0]["parameters"] - of_width[0]["blocks"] * (2 * width**2 + width)
        axes.loglog(n, fixed + np.ceil(n / width) * (2 * width**2 + width), color=f"C{i}", linewidth=1, alpha=0.6)
        axes.loglog(
            [row["points"] for row in of_width],
            [row["parameters"] for row in of_width],
            "o",
            color=f"C{i}",
            label=f"width {width}",
        )
    axes.set(xlabel="points n", ylabel="parameters", title=f"Fitting random labels ({options.data})")
    axes.legend(loc="lower right")
    add_grids(figure)
    save_figure(figure, path, dpi=130)


def draw_margins(rows, options, path):
    """Draws the smallest relative margin against the number of points, with the precision of the network."""
    figure, axes = new_figure(5.2, 4.2)
    for i, width in enumerate(options.widths):
        of_width = [row for row in rows if row["width"] == width]
        for dtype, marker in (("float32", "o"), ("float64", "s")):
            at = [(row["points"], row["smallest_margin"]) for row in of_width if row["precision"] == dtype]
            if at:
                axes.loglog(*zip(*at, strict=True), marker, color=f"C{i}", label=f"width {width}, {dtype}")
        axes.loglog(
            [r["points"] for r in of_width], [r["smallest_margin"] for r in of_width], color=f"C{i}", linewidth=1
        )
    axes.set(xlabel="points n", ylabel="smallest relative margin", title=f"Room for rounding ({options.data})")
    axes.legend()
    add_grids(figure)
    save_figure(figure, path, dpi=130)
