"""`allconv-resnet theory expressivity`: networks that memorize random labels (Hardt & Ma, theorem 3.2), and their size.

    allconv-resnet theory expressivity --data cifar10 --data-dir DIR --points 1000 10000 50000 --widths 16 64

prints one table, writes parameters.png (weights against points, with the theorem's count), margin.png (the smallest
margin and the precision that it asks for) and expressivity.json.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import expressivity
from allconv_resnet.theory.commands.linear import canvas, finish
from allconv_resnet.theory.commands.reporting import Progress, environment, print_table, write_json
from allconv_resnet.theory.matrices import positive_integer


@dataclass(frozen=True)
class Options:
    """Which points, how many and how wide."""

    data: str = "normal"
    """normal, for random points, or the name of an image data set: digits, cifar10, ..."""
    data_dir: Path | None = None
    """Directory of tensorflow-datasets, for data sets that need it."""
    points: tuple[int, ...] = (100, 300, 1000, 3000)
    """Numbers of points, each the first so many of the data."""
    widths: tuple[int, ...] = (4, 16, 64)
    """Widths of the network."""
    dimension: int = 128
    """Dimension of the normal points."""
    num_classes: int = 10
    """Number of classes from which the random labels are drawn."""
    seed: int = 0
    """Seed of the labels, the normal points and the projection."""
    output_dir: Path = Path("results/theory/expressivity")
    """Where the figures and expressivity.json go."""


def run(options: Options) -> None:
    """Memorizes, and writes what it took.

    Raises:
        BadInput: if an option is out of range or the data are not there.
    """
    for name in ("dimension", "num_classes"):
        positive_integer(getattr(options, name), name)
    for name in ("points", "widths"):
        values = getattr(options, name)
        if not values:
            raise BadInput(f"{name} must name at least one number. Received: none.")
        for value in values:
            positive_integer(value, f"every one of {name}")
    x = load(options)
    if max(options.points) > len(x):
        raise BadInput(f"points must be at most the {len(x)} that {options.data} has. Received: {max(options.points)}.")
    labels = np.random.default_rng(options.seed).integers(0, options.num_classes, len(x))
    rows = []
    for width in options.widths:
        for n in options.points:
            bar = Progress(f"{n} points, width {width}")
            began = time.perf_counter()
            model = expressivity.memorize(
                x[:n],
                labels[:n],
                width,
                num_classes=options.num_classes,
                seed=options.seed,
                progress=lambda stage, done, total, bar=bar: bar(done, total),
            )
            seconds = time.perf_counter() - began
            wrong = int(np.count_nonzero(expressivity.predict_labels(model, x[:n]) != labels[:n]))
            rows.append({**asdict(model.report), "seconds": seconds, "wrong": wrong})
    columns = ("points", "width", "blocks", "parameters", "theorem_parameters", "smallest_margin", "precision")
    columns = (*columns, "rounding", "seconds", "wrong")
    print_table([name.replace("_", " ") for name in columns], [[row[name] for name in columns] for row in rows])
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    settings.pop("data_dir")
    write_json(
        options.output_dir / "expressivity.json", {"options": settings, "rows": rows, "environment": environment()}
    )
    draw_parameters(rows, options, options.output_dir / "parameters.png")
    draw_margins(rows, options, options.output_dir / "margin.png")
    print(f"wrote expressivity.json, parameters.png and margin.png to {options.output_dir}")


def load(options):
    """Returns the points, `[n, ...]`."""
    if options.data == "normal":
        rng = np.random.default_rng(options.seed)
        return rng.standard_normal((max(options.points), options.dimension)).astype(np.float32)
    from allconv_resnet.data import sources  # brings TensorFlow along, which the theory itself does without

    return sources.load(options.data, options.data_dir).train_images


def draw_parameters(rows, options, path):
    """Draws the number of weights against the number of points."""
    figure, axes = canvas()
    n = np.unique(np.geomspace(min(options.points), 20 * max(options.points), 60).astype(int))
    count = [expressivity.theorem_parameters(int(k), options.num_classes) for k in n]
    axes.loglog(n, count, "k--", label="theorem 3.2 with constants 1: n (2 log n + 1) + r²")
    for i, width in enumerate(options.widths):
        mine = [row for row in rows if row["width"] == width]
        fixed = mine[0]["parameters"] - mine[0]["blocks"] * (2 * width**2 + width)
        axes.loglog(n, fixed + np.ceil(n / width) * (2 * width**2 + width), color=f"C{i}", linewidth=1, alpha=0.6)
        axes.loglog(
            [row["points"] for row in mine],
            [row["parameters"] for row in mine],
            "o",
            color=f"C{i}",
            label=f"width {width}",
        )
    axes.set(xlabel="points n", ylabel="parameters", title=f"Fitting random labels ({options.data})")
    axes.legend(loc="lower right")
    finish(figure, path)


def draw_margins(rows, options, path):
    """Draws the smallest relative margin against the number of points."""
    figure, axes = canvas()
    for i, width in enumerate(options.widths):
        mine = [row for row in rows if row["width"] == width]
        for dtype, marker in (("float32", "o"), ("float64", "s")):
            at = [(row["points"], row["smallest_margin"]) for row in mine if row["precision"] == dtype]
            if at:
                axes.loglog(*zip(*at, strict=True), marker, color=f"C{i}", label=f"width {width}, {dtype}")
        axes.loglog([r["points"] for r in mine], [r["smallest_margin"] for r in mine], color=f"C{i}", linewidth=1)
    axes.set(xlabel="points n", ylabel="smallest relative margin", title=f"Room for rounding ({options.data})")
    axes.legend()
    finish(figure, path)
