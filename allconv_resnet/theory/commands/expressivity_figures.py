"""Figures of `allconv-resnet theory expressivity`: numbers of weights, and margins."""

import numpy as np

from allconv_resnet.plotting import add_grids, new_figure, plain, save_figure
from allconv_resnet.theory.commands.reporting import add_statement, legend_beside

MARKERS = {"points": "o", "sweep": "s"}
NAMES = {"points": "section 3, one neuron a point", "sweep": "sweep, two neurons a group"}


def draw_parameters(rows, options, dimension, path):
    """Draws the number of weights against that of points: of all layers, and of the blocks for each point."""
    from allconv_resnet.theory.expressivity import theorem_parameters

    figure, (total, of_blocks) = new_figure(14, 4.6, columns=2)
    n = np.unique(np.geomspace(min(options.points), 3 * max(options.points), 60).astype(int))
    count = np.array([theorem_parameters(int(k), options.num_classes, dimension) for k in n])
    total.loglog(n, count, "k--")
    neurons = 4 * n / dimension + 6 * options.num_classes
    total.loglog(n, neurons * (2 * dimension + 1), "k:")
    of_blocks.loglog(n, 2 * np.log(n) + 1, "k--", label="theorem 3.2, constants 1")
    of_blocks.plot([], [], "k:", label="4 n/d + 6 r neurons of 2 d + 1\nweights (Yun et al. 2018)")
    for construction, marker in MARKERS.items():
        for i, width in enumerate(options.widths):
            chosen = [r for r in rows if (r["construction"], r["width"]) == (construction, width)]
            sizes = np.array([row["points"] for row in chosen])
            stream = width if construction == "points" else width + 1
            blocks = np.array([row["neurons"] * (2 * stream + 1) for row in chosen])
            style = {"color": f"C{i}", "marker": marker, "linewidth": 1, "fillstyle": "full" if i % 2 else "none"}
            total.loglog(sizes, [row["parameters"] for row in chosen], **style)
            of_blocks.loglog(sizes, blocks / sizes, label=f"{NAMES[construction]}, width {width}", **style)
    total.set(
        xlabel="points n",
        ylabel="weights of all layers",
        title=f"Random labels, {plain(options.data)}, d = {dimension}",
    )
    of_blocks.set(xlabel="points n", ylabel="weights of the blocks / n", title="Without projection and last layers")
    legend_beside(of_blocks)
    add_grids(figure)
    add_statement(
        figure,
        "Theorem 3.2: O(n log n + r²) weights map n separated points exactly to the unit vectors of their labels. "
        "The sweep needs two neurons for up to as many points as the network is wide.",
    )
    save_figure(figure, path, dpi=130)


def draw_margins(rows, options, path):
    """Draws the smallest relative margin against the number of points, with the precision of the network."""
    figure, axes = new_figure(8.6, 4.4)
    for construction in MARKERS:
        for i, width in enumerate(options.widths):
            chosen = [r for r in rows if (r["construction"], r["width"]) == (construction, width)]
            line = "-" if construction == "points" else "--"
            axes.loglog(
                [row["points"] for row in chosen],
                [row["smallest_margin"] for row in chosen],
                line,
                color=f"C{i}",
                linewidth=1,
                label=f"{NAMES[construction]}, width {width}",
            )
            for row in chosen:
                axes.loglog(
                    row["points"], row["smallest_margin"], "o" if row["precision"] == "float32" else "s", color=f"C{i}"
                )
    axes.plot([], [], "ko", label="float32 suffices")
    axes.plot([], [], "ks", label="needs float64")
    axes.set(xlabel="points n", ylabel="smallest relative margin", title=f"Room for rounding ({plain(options.data)})")
    legend_beside(axes)
    add_grids(figure)
    add_statement(figure, "A neuron that is active on its points is inactive on all later ones by at least the margin.")
    save_figure(figure, path, dpi=130)
