"""Figures without a display: Matplotlib's `Figure` is used directly, since `pyplot` keeps global state."""

import warnings
from pathlib import Path

from allconv_resnet.files import replacing
from allconv_resnet.progress import say


def new_figure(width, height, rows=1, columns=1, **options):
    """Returns a figure and its axes.

    Args:
        width: Float, width of the figure in inches.
        height: Float, height of the figure in inches.
        rows: Integer, number of rows of axes.
        columns: Integer, number of columns of axes.
        **options: Further arguments of `Figure.subplots`, such as `sharex` or `squeeze`.

    Returns:
        `matplotlib.figure.Figure`, and one `Axes` or an array of them as `Figure.subplots` returns it.
    """
    from matplotlib.figure import Figure  # takes a while, and most commands draw nothing

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def plain(text):
    """Returns text that Matplotlib shows as it is: names may have `$`, which begins a formula, or begin with `_`.

    A legend leaves out labels that begin with `_`. Such text is shown after a space.

    Args:
        text: String, or what has a text, such as a path.
    """
    text = str(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def add_grids(figure, **options):
    """Adds a faint grid to all axes of a figure.

    Args:
        figure: `matplotlib.figure.Figure`.
        **options: Further arguments of `Axes.grid`, such as `which="both"`.
    """
    for axes in figure.axes:
        axes.grid(alpha=0.3, **options)


def save_figure(figure, path, dpi=110):
    """Writes a figure atomically and creates the directory if it does not exist.

    Args:
        figure: `matplotlib.figure.Figure`.
        path: Path; its suffix determines the format.
        dpi: Integer, dots per inch.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure.savefig(temporary, dpi=dpi)
    messages = [warning.message for warning in caught]
    lacking = [message for message in messages if "missing from font" in str(message)]
    for message in messages:
        if message not in lacking:
            warnings.warn(message, stacklevel=2)
    if lacking:
        say(f"The font of {path} does not have all letters of its texts. They are drawn as boxes.")
