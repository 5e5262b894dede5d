"""The experiment `spectra`: spectra of simulated networks with every activation, compared with the universal law."""

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


def compare_spectra(output_dir, width, depth, seed=0):
    """Simulates one network with each activation, prints the table, and writes `spectra.png` and `spectra.json`.

    Args:
        output_dir: Path.
        width: Positive integer, number of neurons of a layer.
        depth: Positive integer, number of residual layers.
        seed: Integer, seed of the networks.
    """
    progress = progress_callback("simulations")
    results = []
    for done, (name, (weight_scale, bias_scale)) in enumerate(SCALES.items()):
        progress(done, len(SCALES))
        results.append(compare_spectrum(name, weight_scale, bias_scale, depth, width, seed))
    progress(len(SCALES), len(SCALES))
    headings = (
        "activation",
        "sw",
        "sb",
        "c",
        "lambda_-",
        "lambda_+",
        "min",
        "max of bulk",
        "outlier",
        "predicted",
        "KS",
    )
    rows = [
        (
            r["activation"],
            r["weight_scale"],
            r["bias_scale"],
            r["c"],
            *r["edges"],
            r["values"][-1],
            r["values"][1 if r["predicted_outlier"] else 0],
            r["values"][0] if r["predicted_outlier"] else None,
            r["predicted_outlier"],
            r["kolmogorov_smirnov"],
        )
        for r in results
    ]
    print(f"One simulated network for each activation, width {width}, depth {depth} (KS without the outlier):")
    print_table(headings, rows)
    write_results(output_dir / "spectra.json", width=width, depth=depth, seed=seed, results=results)
    draw_spectra(results, width, depth, output_dir / "spectra.png")


def compare_spectrum(name, weight_scale, bias_scale, depth, width, seed):
    """Returns one simulated spectrum and the predictions of the theory as a dictionary."""
    c = isometry.effective_cumulant(name, weight_scale, bias_scale, depth)
    predicted = isometry.outlier(name, weight_scale, bias_scale, depth)
    simulation = isometry.simulate_network(name, weight_scale, bias_scale, depth, width, seed)
    values = simulation.squared_singular_values
    return {
        "activation": name,
        "weight_scale": weight_scale,
        "bias_scale": bias_scale,
        "c": c,
        "edges": isometry.spectral_edges(c),
        "predicted_outlier": predicted,
        "kolmogorov_smirnov": isometry.kolmogorov_smirnov(values[1:] if predicted else values, c),
        "values": values,
    }


def draw_spectra(results, width, depth, path):
    """Draws the histogram of log lambda and the universal law for each activation."""
    figure, axes = new_figure(15, 6.2, 2, 5)
    axes = axes.ravel()
    for ax, r in zip(axes, results, strict=True):
        low, high = r["edges"]
        grid = np.geomspace(low, high, 400)
        ax.hist(
            np.log(r["values"]),
            bins=50,
            range=(1.1 * np.log(low), 1.1 * np.log(high)),
            density=True,
            color="0.8",
            label="simulated network",
        )
        ax.plot(np.log(grid), grid * isometry.spectral_density(grid, r["c"]), color="C3", label="universal law")
        title = f"{r['activation'].replace('_', ' ')}: c = {r['c']:.3f}, KS = {r['kolmogorov_smirnov']:.3f}"
        if r["predicted_outlier"]:
            title += f"\noutlier {r['values'][0]:.1f}, predicted {r['predicted_outlier']:.1f}"
        ax.set_title(title, fontsize=9)
    for ax in axes[5:]:
        ax.set_xlabel("log of the squared singular value")
    for ax in axes[::5]:
        ax.set_ylabel("density")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle(f"Input-output Jacobians of random residual networks, width {width}, depth {depth}")
    save_figure(figure, path)
