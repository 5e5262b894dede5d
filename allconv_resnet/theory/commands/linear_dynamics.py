"""From where gradient descent on linear residual networks succeeds: a phase diagram, and the certificate along paths.

The targets are rotations, stretches and reflections of `d` dimensions. At every target and depth, gradient descent
starts from each of `INITIALIZATIONS`. All networks of one depth are trained at once.
"""

import numpy as np
import scipy

from allconv_resnet.plotting import add_grids, new_figure, save_figure
from allconv_resnet.theory import linear
from allconv_resnet.theory.commands.reporting import add_statement, legend_beside
from allconv_resnet.theory.hardt_ma.critical_points import clearance
from allconv_resnet.theory.hardt_ma.linear_training import INITIALIZATIONS, descend, initial_factors

PHASE_DEPTHS = (2, 3, 4, 8, 16, 32)
REACHED = 1e-6  # of the squared norm of R
LABELS = {
    "identity": "identity (A = 0)",
    "near_identity": "near identity (0.01)",
    "zero_asymmetric": "zero-asymmetric",
    "standard": "standard (1/√d)",
}


def phase_targets(d):
    """Returns the targets of the phase diagram by name, `[d, d]` each."""

    def with_block(block):
        return scipy.linalg.block_diag(block, np.eye(d - len(block)))

    def rotation(angle):
        return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    return {
        "positive definite, 1/4 to 4": np.diag(np.geomspace(0.25, 4, d)),
        "rotation by 90°": with_block(rotation(np.pi / 2)),
        "rotation by 171°": with_block(rotation(0.95 * np.pi)),
        "rotation by 180° (−1, −1)": with_block(-np.eye(2)),
        "reflection (−1), det < 0": with_block(-np.eye(1)),
        "reflection and 90°, det < 0": with_block(scipy.linalg.block_diag(rotation(np.pi / 2), -np.eye(1))),
    }


def phase_diagram(d, steps, seeds, seed=0, progress=lambda done, total: None):
    """Runs gradient descent from every start at every target and depth.

    Args:
        d: Integer, at least 3, the dimension.
        steps: Positive integer.
        seeds: Positive integer, the number of runs from each random start.
        seed: Integer, the first seed of these runs; the others follow.
        progress: Callable `(done, total)`.

    Returns:
        List of dictionaries with `initialization`, `target`, `depth`, `learning_rate`, `steps` (the median number of
        steps until the risk is `REACHED`, None if fewer than half of the runs reach it), `reached` (share of the runs),
        `risk` (median of the last risk, relative to the squared norm of the target).
    """
    rows, targets = [], phase_targets(d)
    for depth in PHASE_DEPTHS:
        runs = [
            (start, name, seed + i)
            for start in INITIALIZATIONS
            for name in targets
            for i in range(seeds if start in ("near_identity", "standard") else 1)
        ]
        R = np.stack([targets[name] for _, name, _ in runs])
        factors = np.stack([initial_factors(start, depth, d, own) for start, _, own in runs], axis=1)
        size = np.sum(R**2, axis=(1, 2))
        rates = 1 / (4 * depth * np.maximum(1, np.linalg.norm(R, 2, axis=(1, 2))) ** 2)
        first = np.full(len(runs), np.inf)
        descent = descend(factors, R, np.eye(d), rates[:, None, None])
        for step, (_, risk, _) in zip(range(steps + 1), descent, strict=False):
            first = np.where((risk <= REACHED * size) & np.isinf(first), step, first)
            if step % 500 == 0:
                progress(PHASE_DEPTHS.index(depth) * steps + step, len(PHASE_DEPTHS) * steps)
        for start in INITIALIZATIONS:
            for name in targets:
                of = np.array([run[:2] == (start, name) for run in runs])
                rows.append(
                    {
                        "initialization": start,
                        "target": name,
                        "depth": depth,
                        "learning_rate": rates[of][0],
                        "steps": np.median(first[of]),
                        "reached": np.mean(np.isfinite(first[of])),
                        "risk": np.median(risk[of] / size[of]),
                    }
                )
    return rows


def certified_paths(depth=20, steps=2000, points=60, seed=0):
    """Follows gradient descent to `R = diag(-1, -1, 1)` from every start, with the certificate of every point.

    Args:
        depth: Integer, at least 2.
        steps: Positive integer.
        points: Positive integer, the number of points of a path at which the certificate is computed.
        seed: Integer, seed of the random starts.

    Returns:
        List of dictionaries with `initialization`, `depth`, and for each of the points `step`, `risk`, `certified` (the
        upper bound of the risk by the gradient) and `clearance` (see `critical_points.clearance`).
    """
    R, cov, paths = np.diag([-1.0, -1.0, 1.0]), np.eye(3), []
    at = set(np.unique(np.geomspace(1, steps + 1, points).astype(int) - 1).tolist())
    for start in INITIALIZATIONS:
        path = {"initialization": start, "depth": depth, "step": [], "risk": [], "certified": [], "clearance": []}
        descent = descend(initial_factors(start, depth, 3, seed), R, cov, 1 / (4 * depth))
        for step, (factors, risk, _) in zip(range(steps + 1), descent, strict=False):
            if step in at:
                A = factors - np.eye(3)
                path["step"].append(step)
                path["risk"].append(float(risk))
                path["certified"].append(linear.certified_risk(A, R, cov))
                path["clearance"].append(clearance(A))
        paths.append(path)
    return paths


def draw_phases(rows, path, steps):
    """Draws the phase diagram: for each start, the number of steps by target and depth, or the risk that is left."""
    targets = list(dict.fromkeys(row["target"] for row in rows))
    figure, panels = new_figure(15, 4.4, columns=len(INITIALIZATIONS), sharey=True)
    for axes, start in zip(panels, INITIALIZATIONS, strict=True):
        table = {(r["target"], r["depth"]): r for r in rows if r["initialization"] == start}
        grid = np.array([[table[target, depth]["steps"] for depth in PHASE_DEPTHS] for target in targets])
        image = axes.imshow(
            np.log10(np.where(np.isfinite(grid), np.maximum(grid, 1), np.nan)),
            cmap="viridis_r",
            vmin=0.5,
            vmax=max(np.log10(steps), 1.0),  # above vmin, for a few steps too
            aspect="auto",
        )
        axes.set_facecolor("0.85")
        for i, target in enumerate(targets):
            for j, depth in enumerate(PHASE_DEPTHS):
                row = table[target, depth]
                late = np.isfinite(row["steps"]) and row["steps"] > 10**1.8
                text = f"{row['steps']:.0f}" if np.isfinite(row["steps"]) else f"{row['risk']:.2g}"
                axes.text(j, i, text, ha="center", va="center", fontsize=8, color="w" if late else "k")
        axes.set(xticks=range(len(PHASE_DEPTHS)), xticklabels=PHASE_DEPTHS, xlabel="depth l", title=LABELS[start])
    panels[0].set(yticks=range(len(targets)), yticklabels=targets, ylabel="target R")
    bar = figure.colorbar(image, ax=list(panels), label=f"steps to risk {REACHED:g} |R|²")
    ticks = [1, 2, 3, 4]
    bar.set_ticks(ticks, labels=[f"{10**t:,}" for t in ticks])
    add_statement(
        figure,
        f"Colored: median number of steps. Grey: not reached by half of the runs in {steps:,} steps; the number is the "
        "risk that is left, over |R|². From A = 0 the factors stay functions of R: no negative eigenvalue is reached.",
    )
    save_figure(figure, path, dpi=130)


def draw_paths(paths, path):
    """Draws the risk along each path with the bound by the certificate, and how close to singular the factors are."""
    low, high = 1e-12, 1e12
    figure, (risks, singular) = new_figure(13, 4.4, columns=2)
    for i, run in enumerate(paths):
        step = np.array(run["step"]) + 1
        risks.loglog(step, np.maximum(run["risk"], low), color=f"C{i}")
        risks.loglog(step, np.clip(run["certified"], low, high), "--", color=f"C{i}", linewidth=1)
        singular.loglog(step, np.maximum(run["clearance"], low), color=f"C{i}", label=LABELS[run["initialization"]])
    risks.loglog([], [], "k", label="excess risk")
    risks.loglog([], [], "k--", linewidth=1, label="upper bound that\nthe gradient certifies")
    risks.set(xlabel="step + 1", ylabel="excess risk", title=f"R = diag(−1, −1, 1), depth {paths[0]['depth']}")
    singular.set(
        xlabel="step + 1",
        ylabel="$\\Sigma_i\\,\\Pi_{j \\neq i}\\,s_{min}(I + A_j)^2$",
        title="Distance from two singular factors",
    )
    for axes in (risks, singular):
        axes.set_ylim(low, high)
        legend_beside(axes)
    add_grids(figure)
    add_statement(
        figure,
        "Theorem 2.2 without its hypothesis: "
        "|∇f|² ≥ 4 λ₊(cov) (f − C) $\\Sigma_i\\,\\Pi_{j \\neq i}\\,s_{min}(I + A_j)^2$. "
        "A critical point at which at most one factor is singular is a global minimum.",
    )
    save_figure(figure, path, dpi=130)
