"""The experiment `network` of landscape: certificates of a deep residual network along its training.

The network is an `AllConvResNet` with tanh, whose Hessian sees the whole neighbourhood of a point, and a trained head.
Its stem stays as it was drawn. With all blocks at zero and the best head the derivatives vanish: one run starts at this
saddle, and leaves it along the direction that the certificate gives. Another one starts from the paper's
initialization.
"""

from itertools import pairwise

import keras
import numpy as np

import allconv_resnet as acr
from allconv_resnet.errors import BadInput
from allconv_resnet.plotting import add_grids, new_figure, plain, save_figure
from allconv_resnet.theory import autodiff, landscape
from allconv_resnet.theory.commands.reporting import add_statement, print_table, progress_callback, write_results
from allconv_resnet.theory.shamir.certificates import ESCAPES, GOOD, MOVING, RESTING
from allconv_resnet.theory.shamir.networks import LOSSES

SIZE, BATCH_SIZE, LEARNING_RATE = 8, 100, 3e-3
STAGES = ((2, 16), (2, 32, 2))
MARKS = {GOOD: ("C0", "o"), MOVING: ("C1", "^"), RESTING: ("C2", "D"), ESCAPES: ("C3", "v")}


def certify_along_training(output_dir, images, labels, steps, settings):
    """Trains from the saddle and from the initialization, prints the certificates, and writes a figure and a JSON file.

    Args:
        output_dir: Path.
        images: Float array `[n, height, width, channels]`, which is reduced to 8x8 pixels by averages.
        labels: Integer array `[n]` of ten classes.
        steps: Positive integer, number of steps of each run.
        settings: Dictionary for the JSON file with `data`, `images` and `seed`.

    Raises:
        BadInput: if there are more than ten classes, or if the images cannot be reduced to 8x8 pixels.
    """
    if labels.max() > 9:
        raise BadInput(f"data must have at most 10 classes. Received: a dataset with the label {labels.max()}")
    height, width = images.shape[1:3]
    if height != width or height % SIZE:
        raise BadInput(
            f"data must have square images of a multiple of {SIZE} pixels a side. Received: {height}x{width} pixels"
        )
    x, y = keras.ops.convert_to_numpy(shrunk(images)), np.eye(10)[labels]
    inputs = np.concatenate([x.reshape(len(x), -1), np.ones((len(x), 1))], axis=1)
    linear = landscape.linear_optimum(landscape.Problem(inputs, y, "squared", 10)).value
    stops = sorted({0, steps // 10, steps})
    progress, results = progress_callback("certificates"), []
    try:
        for start in ("saddle", "initialization"):
            model = residual_network(x.shape[1:], settings["seed"])
            if start == "saddle":
                go_to_saddle(model, x, y)
            for done, until in pairwise([0, *stops]):
                if until > 0:
                    train(model, x, y, done, until, settings["seed"])
                progress(len(results), 2 * len(stops))
                found = landscape.certify_network(model, x, y, "squared", linear, seed=settings["seed"])
                results.append({"start": start, "training_step": until, **numbers(found), **along(model, x, y, found)})
                if start == "saddle" and until == 0:
                    move(model, found.direction, found.step)
        progress(len(results), len(results))
    finally:
        if results:
            write_results(output_dir / "network.json", **settings, steps=steps, linear=linear, results=results)
            draw_certificates(results, linear, settings, output_dir / "network.png")
    weights = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    print(f"Certificates of a residual network of {weights:,} weights on {len(x)} images of {settings['data']}:")
    keys = (
        "start",
        "training_step",
        "objective",
        "gradient_norm",
        "smallest",
        "residual",
        "largest",
        "decrease",
        "verdict",
    )
    print_table([key.replace("_", " ") for key in keys], [[r[key] for key in keys] for r in results])
    print(f"Best linear predictor of the pixels: {linear:.4g}")


def shrunk(images):
    """Returns images of 8x8 pixels, the averages of equal squares."""
    return keras.ops.average_pool(images, images.shape[1] // SIZE, data_format="channels_last")


def residual_network(shape, seed):
    """Returns the network that is certified."""
    stages = [acr.Stage(*stage) for stage in STAGES]
    options = {"activation": "tanh", "trainable_head": True, "trainable_stem": False, "seed": seed}
    return acr.AllConvResNet(tuple(shape), 10, stages=stages, **options)


def go_to_saddle(model, x, y):
    """Sets all blocks to zero and the head to the best one, where the derivatives vanish up to some 1e-4."""
    for variable in model.trainable_variables:
        variable.assign(keras.ops.zeros_like(variable))
    pooled = keras.Model(model.input, model.get_layer("pool").output)
    features = keras.ops.convert_to_numpy(pooled(x, training=False)).reshape(len(x), -1).astype(np.float64)
    # Features that hardly vary would make the head, and with it the curvature, huge.
    head = np.linalg.lstsq(features, y, rcond=0.03)[0]
    model.get_layer("projection").trainable_variables[0].assign(head)


def move(model, direction, step):
    """Moves the trainable weights by a step along a direction."""
    for variable, part in zip(model.trainable_variables, direction, strict=True):
        variable.assign(keras.ops.convert_to_numpy(variable) + step * part)


def train(model, x, y, first, last, seed):
    """Trains with Adam from step `first` to step `last`, on batches that depend on the seed and the step."""
    if not model.compiled:
        loss = LOSSES["squared"]
        model.compile(keras.optimizers.Adam(LEARNING_RATE), lambda y, p: loss(p, y), jit_compile=False)
    for step in range(first, last):
        rows = np.random.default_rng([seed, step]).integers(len(x), size=BATCH_SIZE)
        model.train_on_batch(x[rows], y[rows])


def numbers(found):
    """Returns a `NetworkCertificate` without its direction."""
    return {name: value for name, value in found._asdict().items() if name != "direction"}


def along(model, x, y, found, count=9):
    """Returns the objective on both sides of a point along the direction of the certificate, as a dictionary."""
    gradients, _ = autodiff.weight_derivatives(model, LOSSES["squared"])
    weights = [keras.ops.convert_to_numpy(variable) for variable in model.trainable_variables]
    reach = 1.5 * found.step or 0.1
    positions, values = np.linspace(-reach, reach, count), []
    for position in positions:
        move(model, found.direction, position)
        values.append(gradients(x, y)[0] / len(x))
        for variable, weight in zip(model.trainable_variables, weights, strict=True):
            variable.assign(weight)
    return {"positions": positions, "values": values}


def draw_certificates(results, linear, settings, path):
    """Draws objectives with verdicts, the ends of the spectrum, and the objective along the direction at the saddle."""
    figure, (objectives, spectra, path_axes) = new_figure(16, 4.8, columns=3)
    for start, style in (("saddle", "-"), ("initialization", "--")):
        runs = [r for r in results if r["start"] == start]
        steps = [r["training_step"] for r in runs]
        objectives.plot(steps, [r["objective"] for r in runs], style, color="0.5", lw=1, label=f"run from the {start}")
        spectra.plot(steps, [-r["smallest"] for r in runs], style, color="C3", marker="v", label=f"-smallest, {start}")
        spectra.plot(steps, [r["largest"] for r in runs], style, color="C0", marker="^", label=f"largest, {start}")
        for r in runs:
            color, marker = MARKS[r["verdict"]]
            objectives.plot(r["training_step"], r["objective"], marker, color=color)
    objectives.axhline(linear, color="k", lw=1, ls=":", label="best linear predictor")
    for verdict in dict.fromkeys(r["verdict"] for r in results):
        color, marker = MARKS[verdict]
        objectives.plot([], [], marker, color=color, label=verdict)
    scale = {"xscale": "symlog", "yscale": "log", "xlabel": "training step"}
    objectives.set(**scale, ylabel="objective F (mean squared loss / 2)")
    spectra.set(**scale, ylabel="eigenvalues of the Hessian")
    saddle = results[0]
    t = np.array(saddle["positions"])
    path_axes.plot(t, saddle["values"], "o-", color="C3", ms=4, label="F, measured")
    fine = np.linspace(t[0], t[-1], 100)
    path_axes.plot(fine, saddle["objective"] + saddle["smallest"] * fine**2 / 2, "k:", label="F(0) + smallest t²/2")
    low, high = min(saddle["values"]), max(saddle["values"])
    path_axes.set(xlabel="t, position along the direction at the saddle", ylabel="objective F")
    path_axes.set_ylim(low - 0.3 * (high - low), high + 0.1 * (high - low))
    for axes in (objectives, spectra, path_axes):
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=1, fontsize="small")
    figure.suptitle(f"Residual network on {settings['images']:,} images of {plain(settings['data'])}, 8x8 pixels, tanh")
    add_statement(
        figure,
        "Measured for this network: a point above the best linear predictor has a gradient, or a direction of negative "
        "curvature that lowers F.",
    )
    add_grids(figure)
    save_figure(figure, path)
