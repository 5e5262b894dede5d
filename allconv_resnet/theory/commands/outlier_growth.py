"""The experiment `outliers`: what "irrespectively of the activation" leaves out, against depth and for activations."""

import math

import numpy as np
from keras import ops

from allconv_resnet.plotting import add_grids, new_figure, save_figure
from allconv_resnet.theory import isometry
from allconv_resnet.theory.commands.reporting import print_table, progress_callback, write_results
from allconv_resnet.theory.isometry import ACTIVATIONS, Activation

DEPTHS = (10, 30, 100, 200)
SHIFTED = Activation("relu - 0.1", lambda h: ops.relu(h) - 0.1, {0.0})


def centered_relu(depth):
    """Returns the ReLU minus its mean in the first layer, at weight scale 1."""
    mean = 1 / math.sqrt(2 * math.pi * depth)
    return Activation("relu - mean", lambda h: ops.relu(h) - mean, {0.0})


COSINE = Activation("cos", ops.cos)
CENTERED = Activation("sigmoid - 1/2", lambda h: ops.sigmoid(h) - 0.5)
ABOVE = {  # activation, mixed
    "relu": ("relu", False),
    "softplus": ("softplus", False),
    "leaky relu": ("leaky_relu", False),
    "relu - its mean": (centered_relu, False),
    "tanh": ("tanh", False),
    "V relu(U x)": ("relu", True),
}
BELOW = {
    "relu, input mean -1": ("relu", -1.0),
    "cos, input mean 0": (COSINE, 0.0),
    "tanh, input mean -1": ("tanh", -1.0),
}
TABLE = [*ACTIVATIONS.values(), CENTERED, Activation("sin", ops.sin), COSINE, SHIFTED]
STATEMENT = (
    "D W = D W' + k x$^T$/|x|$^2$ with k = $\\varphi$'(h) h; the noise W' gives the bulk, which depends on c alone. "
    "Outliers need E[$\\varphi$'(h) h] $\\neq$ 0, that is, a $\\varphi$ that is not an odd function plus a constant."
)


def compare_outliers(output_dir, width, seeds):
    """Predicts and simulates the ends of spectra, prints two tables, and writes `outliers.png` and `outliers.json`.

    Args:
        output_dir: Path.
        width: Positive integer, number of neurons of the simulated layers.
        seeds: Positive integer, number of simulated networks of each kind.
    """
    rows = [classify(activation) for activation in TABLE]
    print("Weight scale 1, biases 0.1, depth 100, input of mean 0 and mean square 1:")
    headings = ("activation", "even part of phi(1)", "E[phi'(h) h] / q", "c", "upper edge", "outliers", "as a whole")
    print_table(headings, [(*row[:-1], "isometric" if row[-1] else "not") for row in rows])
    progress, done = progress_callback("simulations"), 0
    sides = {"above": [], "below": []}
    for side, cases in (("above", ABOVE), ("below", BELOW)):
        for label, (activation, setting) in cases.items():
            options = {"mixed": setting} if side == "above" else {"input_mean": setting}
            entries = []
            for depth in DEPTHS:
                progress(done, (len(ABOVE) + len(BELOW)) * len(DEPTHS))
                done += 1
                entries.append(compare_end(activation, depth, width, seeds, side, options))
            sides[side].append({"label": label, "entries": entries})
    progress(done, done)
    for side, curves in sides.items():
        print(f"\nThe singular value furthest {side} the median, squared: predicted, and simulated at width {width}:")
        lines = [
            (c["label"], e["depth"], e["edge"], e["predicted"], e["simulated"]) for c in curves for e in c["entries"]
        ]
        print_table(("network", "depth", "edge of the bulk", "predicted", "simulated"), lines)
    write_results(output_dir / "outliers.json", width=width, seeds=list(range(seeds)), activations=rows, **sides)
    draw_outliers(sides, width, seeds, output_dir / "outliers.png")


def classify(activation, depth=100, bias_scale=0.1):
    """Returns a row of the table of activations."""
    means = isometry.gaussian_means(activation, 1.0)
    c = isometry.effective_cumulant(activation, 1.0, bias_scale, depth)
    outside = isometry.outliers(activation, 1.0, bias_scale, depth)
    even = float(np.mean(activation(np.array([1.0, -1.0]))[0]) - activation(np.zeros(1))[0][0])
    drift = 0.0 if abs(means.h_d) < 1e-9 else means.h_d
    found = ", ".join(f"{v:.4g}" for v in outside) or None
    edge = isometry.spectral_edges(c, depth)[1]
    return activation.name, round(even, 12), drift, c, edge, found, not outside.size


def compare_end(activation, depth, width, seeds, side, options):
    """Returns the end of one spectrum, predicted and simulated, as a dictionary."""
    network = (activation(depth) if activation is centered_relu else activation, 1.0, 0.0, depth)
    c = isometry.effective_cumulant(*network, **options)
    end = {"above": -1, "below": 0}[side]
    edge = isometry.spectral_edges(c, depth)[end]
    outside = isometry.outliers(*network, **options)
    predicted = outside[end] if outside.size and (outside[end] > 1) == (side == "above") else edge
    simulated = []
    for seed in range(seeds):
        values = isometry.simulate_network(*network, width, seed, **options).squared_singular_values
        simulated.append(values[0 if side == "above" else -1])
    return {
        "depth": depth,
        "c": c,
        "edge": edge,
        "predicted": predicted,
        "simulated": np.exp(np.mean(np.log(simulated))),
    }


def draw_outliers(sides, width, seeds, path):
    """Draws the ends of the spectra against depth."""
    figure, axes = new_figure(14, 4.8, columns=2)
    for ax, curves in zip(axes, sides.values(), strict=True):
        for i, curve in enumerate(curves):
            depth = [e["depth"] for e in curve["entries"]]
            ax.plot(depth, [e["predicted"] for e in curve["entries"]], color=f"C{i}", label=curve["label"])
            ax.plot(depth, [e["simulated"] for e in curve["entries"]], "o", color=f"C{i}")
            ax.plot(depth, [e["edge"] for e in curve["entries"]], ":", color=f"C{i}", lw=1)
        ax.set(xscale="log", yscale="log", xlabel="depth")
        ax.set_xticks(DEPTHS, DEPTHS)
        ax.set_xticks([], minor=True)
        ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
    axes[0].set(ylabel="largest squared singular value", title="above the bulk, input mean 0")
    axes[1].set(ylabel="smallest squared singular value", title="below the bulk")
    figure.suptitle(
        f"Lines: predicted; dots: simulated (width {width}, geometric mean of {seeds} networks); "
        "dotted: edge of the bulk. Weight scale 1, no biases"
    )
    figure.supxlabel(STATEMENT, fontsize="small")
    add_grids(figure)
    save_figure(figure, path, dpi=90)
