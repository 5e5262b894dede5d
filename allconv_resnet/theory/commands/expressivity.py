"""`allconv-resnet theory expressivity`: the size of networks that memorize random labels (Hardt & Ma, theorem 3.2).

    allconv-resnet theory expressivity --data cifar10 --data-dir DIR --points 1000 10000 50000 --widths 16

builds every network, saves it, loads it, and counts the labels and the unit vectors that the loaded network gets wrong.
It prints one table and writes parameters.png (the number of weights against that of points, with the number that the
theorem states), margin.png (the smallest margin and the precision that it needs) and expressivity.json.
"""

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.checks import positive_integer
from allconv_resnet.theory.commands.expressivity_figures import draw_margins, draw_parameters
from allconv_resnet.theory.commands.reporting import (
    load_images,
    print_table,
    progress_callback,
    refuse_unused,
    write_results,
)

CONSTRUCTIONS = ("points", "sweep")
SHARED = ("data", "points", "widths", "num_classes", "seed", "output_dir")


@dataclass(frozen=True)
class Options:
    """Builds networks that memorize random labels and reports their sizes (Hardt & Ma, theorem 3.2)."""

    data: str = "digits"
    """Dataset: normal for random points, or the name of an image dataset such as digits or cifar10."""
    data_dir: Path | None = None
    """Directory of tensorflow-datasets, for image datasets."""
    points: tuple[int, ...] = (100, 300, 1000, 1437)
    """Numbers of points to memorize; the first points of the dataset are used. The digits have 1,437."""
    widths: tuple[int, ...] = (4, 16)
    """Widths of the networks."""
    dimension: int = 128
    """Dimension of the points of --data normal."""
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
        BadInput: if an option is out of range or has no effect, or if the dataset is not available.
    """
    for name in ("dimension", "num_classes"):
        positive_integer(getattr(options, name), name)
    for name in ("points", "widths"):
        values = getattr(options, name)
        if not values:
            raise BadInput(f"{name} must have at least one number. Received: {name}={values}")
        for value in values:
            positive_integer(value, name)
    own = "dimension" if options.data == "normal" else "data_dir"
    refuse_unused(options, f"the dataset {options.data}", (*SHARED, own))
    x = load_points(options)
    if max(options.points) > len(x):
        raise BadInput(
            f"points must be at most {len(x)}, the size of {options.data}. Received: points={options.points}"
        )
    labels = np.random.default_rng(options.seed).integers(0, options.num_classes, len(x))
    rows = [
        memorize_and_reload(x[:n], labels[:n], width, construction, options)
        for construction in CONSTRUCTIONS
        for width in options.widths
        for n in options.points
    ]
    columns = ("construction", "points", "width", "blocks", "neurons", "parameters", "theorem_parameters")
    columns = (*columns, "smallest_margin", "precision", "rounding", "seconds", "wrong", "inexact")
    print_table([name.replace("_", " ") for name in columns], [[row[name] for name in columns] for row in rows])
    settings = {name: value for name, value in vars(options).items() if name != "data_dir"}
    dimension = x[0].size
    write_results(options.output_dir / "expressivity.json", options=settings, dimension=dimension, rows=rows)
    draw_parameters(rows, options, dimension, options.output_dir / "parameters.png")
    draw_margins(rows, options, options.output_dir / "margin.png")
    print(f"Wrote expressivity.json, parameters.png and margin.png to {options.output_dir}")


def memorize_and_reload(x, labels, width, construction, options):
    """Returns the report of a network with exact unit vectors as outputs, and the errors of its saved copy.

    Args:
        x: `[n, ...]`, the points.
        labels: `[n]`, integers.
        width: Positive integer.
        construction: `"points"` or `"sweep"`.
        options: `Options`.

    Returns:
        Dictionary with the fields of `MemorizationReport`, the `seconds` of the construction, and how many outputs of
        the loaded network have the `wrong` label or are not exactly its unit vector (`inexact`).
    """
    import keras

    from allconv_resnet.theory import expressivity

    show = progress_callback(f"{construction}, {len(x)} points, width {width}")
    began = time.perf_counter()
    model = expressivity.memorize(
        x,
        labels,
        width,
        construction=construction,
        outputs="unit",
        num_classes=options.num_classes,
        seed=options.seed,
        progress=lambda stage, done, total: show(done, total),
    )
    seconds = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        loaded = keras.saving.load_model(Path(folder) / "model.keras")
    wrong = inexact = 0
    for rows in np.array_split(np.arange(len(x)), -(-len(x) // 4096)):
        outputs = loaded.predict_on_batch(x[rows])
        wrong += int(np.count_nonzero(outputs.argmax(axis=1) != labels[rows]))
        units = np.eye(options.num_classes)[labels[rows]]
        inexact += int(np.count_nonzero((outputs != units).any(axis=1)))
    return {**asdict(model.report), "seconds": seconds, "wrong": wrong, "inexact": inexact}


def load_points(options):
    """Returns the points that the options choose, `[n, ...]`."""
    if options.data == "normal":
        rng = np.random.default_rng(options.seed)
        return rng.standard_normal((max(options.points), options.dimension)).astype(np.float32)
    return load_images(options.data, options.data_dir)[0]
