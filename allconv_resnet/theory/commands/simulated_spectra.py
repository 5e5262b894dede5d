"""The experiment `spectra`: spectra of simulated networks with every activation, and the law outside of outliers."""

import numpy as np

from allconv_resnet.plotting import new_figure, save_figure
from allconv_resnet.theory import isometry
from allconv_resnet.theory.commands.reporting import print_table, progress_callback, write_results

SCALES = {  # weight scale and bias scale; the first seven are those of Tarnowski et al., section 4
    "linear": (1.0, 0.0),
    "tanh": (1.0, 0.5),
    "sigmoid": (2.0, 0.5),
    "hard_tanh": (1.0, 0.3),
    "selu": (0.7, 0.1),
    "relu": (1.0, 0.0),
    "leaky_relu": (1.0, 0.0),
    "elu": (0.8, 0.1),
    "gelu": (1.0, 0.1),
    "softplus": (1.0, 0.1),
}
OPPOSED = ("relu", "leaky_relu")  # also at inputs of mean -1 and mean square 1, which oppose their drift
STATEMENT = (
    "Universal law (Tarnowski et al., section 3): the squared singular values z of J have y/(1+y) exp(-c(1+2y)) = 1/z, "
    "y = zG - 1, and the density of log z is -Im y/$\\pi$. It holds for the bulk, and the outliers are not part of it."
)


def compare_spectra(output_dir, width, depth, seed=0):
    """Simulates one network with each activation, prints the table, and writes `spectra.png` and `spectra.json`.

    Args:
        output_dir: Path.
        width: Positive integer, number of neurons of a layer.
        depth: Positive integer, number of residual layers.
        seed: Integer, seed of the networks.
    """
    progress, results = progress_callback("simulations"), []
    plan = [(name, 0.0) for name in SCALES] + [(name, -1.0) for name in OPPOSED]
    for done, (name, input_mean) in enumerate(plan):
        progress(done, len(plan))
        results.append(compare_spectrum(name, *SCALES[name], depth, width, seed, input_mean))
    progress(len(plan), len(plan))
    headings = ("activation", "input mean", "sw", "sb", "c", "lambda_-", "lambda_+", "min", "max", "outliers", "KS")
    rows = []
    for r in results:
        bulk = bulk_of(r)
        pairs = [f"{a:.4g} ({b:.4g})" for a, b in zip(r["outliers"], r["predicted_outliers"], strict=True)]
        row = (r["activation"], r["input_mean"], r["weight_scale"], r["bias_scale"], r["c"], *r["edges"])
        rows.append((*row, bulk[-1], bulk[0], ", ".join(pairs) or None, r["kolmogorov_smirnov"]))
    print(f"One simulated network for each activation, width {width}, depth {depth}.")
    print("min, max and the distance KS are those of the bulk; outliers (in brackets: predicted) are not part of it:")
    print_table(headings, rows)
    write_results(output_dir / "spectra.json", width=width, depth=depth, seed=seed, results=results)
    draw_spectra(results, width, depth, output_dir / "spectra.png")


def compare_spectrum(name, weight_scale, bias_scale, depth, width, seed, input_mean=0.0):
    """Returns one simulated spectrum and the predictions of the theory as a dictionary."""
    network = (name, weight_scale, bias_scale, depth)
    c = isometry.effective_cumulant(*network, input_mean=input_mean)
    edges = isometry.spectral_edges(c)
    # Predictions at less than 5 % from the edge cannot be told from the bulk at these widths.
    predicted = [
        v for v in isometry.outliers(*network, input_mean=input_mean) if not 0.95 * edges[0] < v < 1.05 * edges[1]
    ]
    below = sum(v < 1 for v in predicted)
    values = isometry.simulate_network(*network, width, seed, input_mean=input_mean).squared_singular_values
    above = len(predicted) - below
    result = {"activation": name, "weight_scale": weight_scale, "bias_scale": bias_scale, "input_mean": input_mean}
    result |= {"c": c, "edges": edges, "predicted_outliers": predicted, "values": values}
    result["outliers"] = [*values[::-1][:below], *values[:above][::-1]]
    result["kolmogorov_smirnov"] = isometry.kolmogorov_smirnov(bulk_of(result), c)
    return result


def bulk_of(r):
    """Returns the squared singular values of a result without its outliers."""
    below = sum(v < 1 for v in r["predicted_outliers"])
    return r["values"][len(r["predicted_outliers"]) - below : len(r["values"]) - below]


def draw_spectra(results, width, depth, path):
    """Draws the histogram of log lambda, the universal law and the outliers for each activation."""
    figure, axes = new_figure(15, 8.4, 3, 4)
    axes = axes.ravel()
    for ax, r in zip(axes, results, strict=True):
        low, high = r["edges"]
        grid = np.geomspace(low, high, 400)
        ends = 1.1 * np.log(low), 1.1 * np.log(high)
        values = np.log(r["values"])
        ax.hist(values, 50, ends, density=True, color="0.8", label="simulated network")
        ax.plot(np.log(grid), grid * isometry.spectral_density(grid, r["c"]), color="C3", label="universal law")
        for measured, predicted in zip(r["outliers"], r["predicted_outliers"], strict=True):
            height = 0.12 * ax.get_ylim()[1]
            ax.vlines(np.log(measured), 0, height, color="0.3", lw=2.5, label="simulated outlier")
            ax.plot(np.log(predicted), height, "v", color="C0", label="predicted outlier")
            side = "left" if measured < 1 else "right"
            ax.text(np.log(measured), 1.35 * height, f"{measured:.3g}\n({predicted:.3g})", fontsize=7, ha=side)
        mean = f", input mean {r['input_mean']:g}" if r["input_mean"] else ""
        title = f"{r['activation'].replace('_', ' ')}{mean}: c = {r['c']:.3f}, KS = {r['kolmogorov_smirnov']:.3f}"
        ax.set_title(title, fontsize=9)
    for ax in axes[8:]:
        ax.set_xlabel("log of the squared singular value")
    for ax in axes[::4]:
        ax.set_ylabel("density")
    handles, labels = axes[5].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")
    figure.suptitle(f"Input-output Jacobians of random residual networks, width {width}, depth {depth}")
    figure.supxlabel(STATEMENT, fontsize="small")
    save_figure(figure, path, dpi=90)
