#!/usr/bin/env python3
r"""Trains a recipe from arrays with Keras on JAX: for a machine with a GPU and without TensorFlow.

    python examples/train_on_jax.py prepare --recipe cifar10 --data-dir DIR --arrays cifar10.npz     (with TensorFlow)
    KERAS_BACKEND=jax python examples/train_on_jax.py train --recipe cifar10 --arrays cifar10.npz --run-dir runs/jax \
        --minutes 9

The same `train` command goes on where the last one stopped, until the recipe's last step; `--minutes` bounds one call.
The images lie on the device as bytes; batch and augmentation are functions of (seed, step), so that a resumed run makes
the steps of one that was never interrupted. The run directory has the files that `allconv-resnet report` reads.
"""

import argparse
import json
import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path

import keras
import numpy as np

from allconv_resnet.errors import BadInput
from allconv_resnet.provenance import commit, processor
from allconv_resnet.recipes import SMALL_IMAGES
from allconv_resnet.training.run_directory import RunDirectory, read_metrics, resolve

RECIPES = {recipe.name: recipe for recipe in SMALL_IMAGES}  # those whose images fit in memory


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("prepare", "train"):
        command = commands.add_parser(name)
        command.add_argument("--recipe", choices=RECIPES, default="cifar10")
        command.add_argument("--arrays", type=Path, required=True, help="file of the images and labels")
        if name == "prepare":
            command.add_argument("--data-dir", type=Path, help="directory of tensorflow-datasets")
        else:
            command.add_argument("--run-dir", type=Path, required=True)
            command.add_argument("--minutes", type=float, default=float("inf"), help="of this call")
            command.add_argument(
                "--chunk", type=int, default=50, help="steps between two looks at the loss and the clock"
            )
            command.add_argument("--seed", type=int, default=0)
            command.add_argument("--steps", type=int, help="default: the recipe's")
            command.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    options = parser.parse_args()
    try:
        if options.command == "prepare":
            return prepare(RECIPES[options.recipe], options.arrays, options.data_dir)
        recipe = RECIPES[options.recipe].replace(seed=options.seed, precision=options.precision)
        return train(recipe.replace(steps=options.steps or recipe.steps), options)
    except BadInput as error:
        sys.exit(f"error: {error}")


def prepare(recipe, path, data_dir):
    """Writes the arrays of a data set to one file."""
    from allconv_resnet.data import sources

    data = sources.load(recipe.dataset, data_dir)
    (x, y), (test_x, test_y) = data.split("train"), data.split("test")
    np.savez(path, images=x, labels=y, test_images=test_x, test_labels=test_y, names=np.array(data.label_names))
    print(f"{path}: {len(x):,} training and {len(test_x):,} test images")


def train(recipe, options):
    """Goes on with a run until its last step or the end of the time."""
    if keras.backend.backend() != "jax":
        raise BadInput(f"This program needs KERAS_BACKEND=jax. Received: {keras.backend.backend()}")
    import jax

    recipe = resolve(options.run_dir, recipe, recipe.precision)
    with np.load(options.arrays) as file:
        arrays = {name: file[name] for name in file.files}
    if arrays["images"].shape[1:] != recipe.image_size or arrays["labels"].max() >= recipe.num_classes:
        raise BadInput(
            f"{options.arrays} must hold images of shape {recipe.image_size} with labels below {recipe.num_classes}. "
            f"Received: {arrays['images'].shape[1:]} and {arrays['labels'].max()}"
        )
    data = {name: jax.device_put(arrays[name]) for name in arrays if name != "names"}
    model, optimizer = recipe.build_model(arrays["images"]), recipe.build_optimizer()
    optimizer.build(model.trainable_variables)
    variables = [*model.trainable_variables, *model.non_trainable_variables, *optimizer.variables]
    state = jax.device_put([np.asarray(variable) for variable in variables])
    advance, test = make_functions(model, optimizer, recipe, data)

    with RunDirectory(options.run_dir) as run:
        checkpoint = run.path / "state.npz"
        step, state, sums = restore(checkpoint, state, recipe)
        run.write_recipe(recipe, arrays["names"].tolist())
        run.add_session(step, environment(recipe))
        keep_lines(run.path / "metrics.jsonl", step)
        print(f"{recipe.name}: from step {step:,} of {recipe.steps:,} on {jax.devices()[0].device_kind}", flush=True)
        began = since = time.monotonic()
        since_step, in_time = step, True
        while step < recipe.steps and in_time:
            count = steps_ahead(recipe, step, options.chunk)
            state, chunk = advance(state, step, count)
            sums, step = sums + [*np.asarray(chunk, np.float64), count * recipe.batch_size], step + count
            if not np.isfinite(sums[0]):
                sys.exit(f"failed: the loss is not finite before step {step}: the last checkpoint is kept")
            last, in_time = step == recipe.steps, time.monotonic() - began < 60 * options.minutes
            if last or step % recipe.log_every == 0:
                loss, error = (sums[:2] / sums[2]).tolist()
                speed = recipe.batch_size * (step - since_step) / (time.monotonic() - since)
                rate = float(recipe.build_schedule()(step - 1))
                values = {"loss": loss, "error": error, "learning_rate": rate, "images_per_second": speed}
                add_line(run.path, step, "train", values)
                print(f"step {step:,}  loss {loss:.4f}  error {error:.2%}  {speed:,.0f} images/s", flush=True)
                sums = np.zeros(3)
            if last or step % recipe.evaluate_every == 0:
                loss, error = test(state)
                add_line(run.path, step, "test", {"loss": loss, "error": error, "images": len(arrays["test_labels"])})
                print(f"step {step:,}: test loss {loss:.4f}, test error {error:.2%}", flush=True)
            if last or not in_time or step % recipe.checkpoint_every == 0:
                save(checkpoint, step, state, sums)
            if step % recipe.log_every == 0:
                since, since_step = time.monotonic(), step
        if step == recipe.steps:
            for variable, value in zip(variables, state, strict=True):
                variable.assign(value)
            run.finish(model)
            print(f"{run.path} has finished")


def steps_ahead(recipe, step, chunk):
    """Returns how many steps to make without a look: at most a chunk, and none beyond a log, a test or a checkpoint.

    Each number that is returned is compiled for: less than a chunk is a power of two.
    """
    intervals = (recipe.log_every, recipe.evaluate_every, recipe.checkpoint_every)
    ahead = min(recipe.steps - step, *(every - step % every for every in intervals))
    return chunk if ahead >= chunk else 1 << (ahead.bit_length() - 1)


def make_functions(model, optimizer, recipe, data):
    """Returns the functions (state, step, count) -> state, sums and (state) -> test loss, test error."""
    import jax
    import jax.numpy as jnp

    trained, fixed = len(model.trainable_variables), len(model.non_trainable_variables)

    def split(state):
        return state[:trained], state[trained : trained + fixed], state[trained + fixed :]

    def losses_of(weights, others, images, labels, training):
        logits, others = model.stateless_call(weights, others, images, training=training)
        logs = jax.nn.log_softmax(logits)
        smoothing = recipe.label_smoothing if training else 0.0
        losses = -(1 - smoothing) * jnp.take_along_axis(logs, labels[:, None], axis=1)[:, 0] - smoothing * logs.mean(1)
        return losses, others, jnp.stack([losses.sum(), (jnp.argmax(logits, axis=1) != labels).sum()])

    def one_step(state, numbered_rows):
        step, rows = numbered_rows
        weights, others, slots = split(state)
        images, labels = augment(data["images"][rows], recipe, step), data["labels"][rows]

        def mean_loss(weights):
            losses, rest, sums = losses_of(weights, others, images, labels, True)
            return losses.mean(), (rest, sums)

        gradients, (others, sums) = jax.grad(mean_loss, has_aux=True)(weights)
        if recipe.clip_norm is not None:
            norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in gradients))
            gradients = [g * jnp.minimum(1.0, recipe.clip_norm / norm) for g in gradients]
        weights, slots = optimizer.stateless_apply(slots, gradients, weights)
        return [*weights, *others, *slots], sums

    @jax.jit
    def many_steps(state, steps, rows):
        state, sums = jax.lax.scan(one_step, state, (steps, rows))
        return state, sums.sum(axis=0)

    @jax.jit
    def test_batch(state, images, labels):
        weights, others, _ = split(state)
        return losses_of(weights, others, standardize(images), labels, False)[2]

    def advance(state, step, count):
        steps = np.arange(step, step + count)
        return many_steps(state, steps, rows_of(recipe, steps, len(data["labels"])))

    def test(state, size=500):
        images, labels = data["test_images"], data["test_labels"]
        parts = [test_batch(state, images[i : i + size], labels[i : i + size]) for i in range(0, len(labels), size)]
        return (np.sum([np.asarray(part, np.float64) for part in parts], axis=0) / len(labels)).tolist()

    return advance, test


def rows_of(recipe, steps, examples):
    """Returns which images make the batches of some steps, `[steps, batch]`: each epoch is a permutation of its own."""
    places = steps[:, None] * recipe.batch_size + np.arange(recipe.batch_size)
    epochs, places = places // examples, places % examples
    rows = np.empty_like(places)
    for epoch in np.unique(epochs):
        order = np.random.default_rng([recipe.seed, epoch]).permutation(examples)
        rows[epochs == epoch] = order[places[epochs == epoch]]
    return rows


def augment(images, recipe, step):
    """Returns the images of a step, cropped out of a border of zeros, half of them mirrored, standardized, and with a
    square of zeros in each.
    """
    import jax
    import jax.numpy as jnp

    key = jax.random.fold_in(jax.random.key(recipe.seed), step)
    for_offsets, for_flips = jax.random.split(key)
    n, *shape = images.shape
    p = recipe.padding
    offsets = jax.random.randint(for_offsets, (n, 2), 0, 2 * p + 1)
    padded = jnp.pad(images, ((0, 0), (p, p), (p, p), (0, 0)))
    cropped = jax.vmap(lambda image, at: jax.lax.dynamic_slice(image, (*at, 0), shape))(padded, offsets)
    flips = jax.random.bernoulli(for_flips, 0.5, (n, 1, 1, 1)) & recipe.flip
    images = standardize(jnp.where(flips, cropped[:, :, ::-1], cropped))
    if not recipe.cutout:
        return images
    first = jax.random.randint(jax.random.fold_in(key, 2), (n, 2), 0, jnp.array(shape[:2])) - recipe.cutout // 2
    rows, columns = (jnp.arange(length) - first[:, i, None] for i, length in enumerate(shape[:2]))
    rows, columns = ((places >= 0) & (places < recipe.cutout) for places in (rows, columns))
    return jnp.where((rows[:, :, None] & columns[:, None])[..., None], 0.0, images)


def standardize(images):
    """Returns the images as float32 with mean 0 and deviation 1 each."""
    import jax.numpy as jnp

    images = images.astype("float32")
    images -= images.mean(axis=(1, 2, 3), keepdims=True)
    deviation = jnp.sqrt(jnp.square(images).mean(axis=(1, 2, 3), keepdims=True))
    return images / jnp.maximum(deviation, images[0].size ** -0.5)


def restore(path, state, recipe):
    """Returns the step, the state and the sums since the last log: losses, errors, images.

    Without a checkpoint these are 0 and the initial state.
    """
    if not path.exists():
        return 0, state, np.zeros(3)
    with np.load(path) as file:
        step, sums = int(file["step"]), file["sums"]
        if len(sums) == 2:  # of a version that did not count the images
            sums = np.append(sums, step % recipe.log_every * recipe.batch_size)
        return step, [file[f"arr_{i}"] for i in range(len(state))], sums


def save(path, step, state, sums):
    """Writes the checkpoint through a temporary file: what is there is whole."""
    temporary = path.with_name(".state.npz")
    np.savez(temporary, *map(np.asarray, state), step=step, sums=sums)
    os.replace(temporary, path)


def add_line(run_dir, step, split, values):
    """Adds a line to metrics.jsonl."""
    with open(run_dir / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": step, "split": split, **values}) + "\n")


def keep_lines(path, step):
    """Drops the lines after the checkpoint: their steps are made again."""
    lines = [line for line in read_metrics(path.parent) if line["step"] <= step]
    temporary = path.with_name(".metrics.jsonl")
    temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))
    os.replace(temporary, path)


def environment(recipe):
    """Returns what this session ran on."""
    import jax

    device = jax.devices()[0]
    return {
        "command": sys.argv,
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("keras", "jax", "numpy")},
        "cpu": processor()[0],
        "cores": len(os.sched_getaffinity(0)),
        "gpus": [device.device_kind] if device.platform == "gpu" else [],
        "precision": recipe.precision,
    }


if __name__ == "__main__":
    main()
