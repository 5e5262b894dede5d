"""Figures of `allconv-resnet theory linear`: norms of optima, bounds of gradients, and curves of gradient descent."""

import numpy as np

from allconv_resnet.plotting import add_grids, new_figure, save_figure
from allconv_resnet.theory.commands.reporting import add_statement, legend_beside

SLACK = 1e-9  # relative rounding error that is tolerated in comparisons
DEPTHS = (2, 4, 8, 16)
# Parameterizations, with the standard deviation of the initial A multiplied by sqrt(d).
STARTS = (("residual", 0.05), ("standard", 0.05), ("standard", 1.0))


def draw_norms(rows, path):
    """Draws the norm of the global optimum against depth."""
    figure, axes = new_figure(7.6, 4.2)
    depths = [row["depth"] for row in rows]
    axes.loglog(depths, [row["bound"] or np.nan for row in rows], "k--", label="bound of theorem 2.1")
    axes.loglog(depths, [row["svd"] for row in rows], "o-", color="C1", label="svd, the paper's construction")
    axes.loglog(depths, [row["polar"] for row in rows], "s-", color="C0", label="polar")
    axes.set(xlabel="depth l", ylabel="largest spectral norm of a factor", title="A global optimum of small norm")
    legend_beside(axes)
    add_grids(figure)
    add_statement(
        figure,
        "Theorem 2.1, for det R > 0 and l ≥ 3γ: some global optimum has norm at most 2 (√π + √(3γ))² / l.",
    )
    save_figure(figure, path, dpi=130)


def draw_bounds(sizes, ratios, path, shown=4000):
    """Draws the squared gradient norm against each bound, for the first `shown` networks."""
    figure, panels = new_figure(16, 4.2, columns=3)
    titles = ("Equation (2.3), corrected", "Equation (2.3), as printed", "Bound for any norm")
    for axes, size, ratio, title in zip(panels, sizes[:shown].T, ratios[:shown].T, titles, strict=True):
        bound = size / ratio
        holds = size >= bound * (1 - SLACK)
        axes.loglog(bound[holds], size[holds], ".", markersize=2, color="C0", label=f"holds ({holds.mean():.1%})")
        if not holds.all():
            axes.loglog(
                bound[~holds], size[~holds], ".", markersize=2, color="C3", label=f"violated ({1 - holds.mean():.1%})"
            )
        ends = [bound.min(), bound.max()]
        axes.loglog(ends, ends, "k--", linewidth=1, label="equality")
        axes.set(xlabel="lower bound", ylabel="squared gradient norm |∇f|²", title=title)
        legend_beside(axes, markerscale=4)
    add_grids(figure)
    add_statement(
        figure,
        "|∇f|² ≥ 4 l (1−t)^(2(l−1)) λmin(cov) (f − C) for norms t < 1, and "
        "|∇f|² ≥ 4 λ₊(cov) (f − C) $\\Sigma_i\\,\\Pi_{j \\neq i}\\,s_{min}(I + A_j)^2$ for any norm.",
    )
    save_figure(figure, path, dpi=130)


def draw_descents(descents, path):
    """Draws the risk against the step, one panel for each start."""
    figure, panels = new_figure(16.4, 4.2, columns=3)
    for axes, (parameterization, deviation) in zip(panels, STARTS, strict=True):
        for descent in descents:
            if descent["start"] == f"{parameterization} from {deviation:g}":
                width = 4 / (1 + DEPTHS.index(descent["depth"])) ** 0.7  # so that coinciding curves stay visible
                axes.semilogy(np.maximum(descent["risk"], 1e-16), linewidth=width, label=f"depth {descent['depth']}")
        factor = "I + A" if parameterization == "residual" else "A"
        axes.set(xlabel="step of gradient descent", title=f"Factors {factor}, A of standard deviation {deviation:g}/√d")
    legend_beside(panels[-1])
    panels[0].set_ylabel("excess risk")
    limits = np.array([axes.get_ylim() for axes in panels])
    for axes in panels:
        axes.set_ylim(limits[:, 0].min(), limits[:, 1].max())
    add_grids(figure)
    add_statement(
        figure,
        "A = 0 is a critical point of the standard parameterization, which is no minimum; theorem 2.2 excludes such "
        "points near the identity of the residual one.",
    )
    save_figure(figure, path, dpi=130)
