"""The trained weights of a run: from a checkpoint, or from model.keras if a finished run has no checkpoints.

The folder of a packed network reads like that of a finished run, see `pretrained`.
"""

from pathlib import Path

import keras

from allconv_resnet import pretrained
from allconv_resnet.errors import BadInput, reason
from allconv_resnet.progress import say
from allconv_resnet.training import run_directory, run_state
from allconv_resnet.training.checkpoints import Checkpoints
from allconv_resnet.training.run_directory import MODEL
from allconv_resnet.transfer import take_weights


def load_model(run_dir, checkpoint="latest"):
    """Returns the network of a run with its trained weights.

    Args:
        run_dir: Path of the run directory, or the name of a network that comes with the package.
        checkpoint: Which checkpoint: `"latest"`, or `"best"`, the one with the lowest test error. If a finished run has
            no checkpoints any more, or its newest one is damaged, the latest one is its model.keras.

    Returns:
        Keras model, `Recipe`, and the step of the checkpoint.

    Raises:
        BadInput: if the directory has no run, or the run has no such checkpoint that can be read.
    """
    run_dir = pretrained.find(run_dir)
    recipe = run_directory.read_recipe(run_dir)
    model = recipe.build_model()

    def load(state):
        weights = [state[name] for name in sorted(state) if name.startswith("model/")]
        if [weight.shape for weight in weights] != [tuple(variable.shape) for variable in model.variables]:
            raise ValueError(f"it holds another network, of {len(weights)} variables")
        for variable, weight in zip(model.variables, weights, strict=True):
            variable.assign(weight)

    return model, recipe, load_weights(run_dir, checkpoint, load)


def load_weights(run_dir, checkpoint, load):
    """Loads the weights of a run and returns their step.

    Args:
        run_dir: Path of the run directory.
        checkpoint: See `load_model`.
        load: Function of a dictionary of arrays, which raises `ValueError` if the arrays do not fit.

    Raises:
        BadInput: if the run has no such checkpoint that can be read.
    """
    if (Path(run_dir) / pretrained.WEIGHTS).exists():
        return _load_packed(run_dir, checkpoint, load)
    directory = Path(run_dir) / "checkpoints" / ("best" if checkpoint == "best" else "")
    try:
        step, damaged = Checkpoints(directory).restore(load)
    except BadInput:
        step = _load_finished(run_dir, load) if checkpoint == "latest" else None
        if step is None:
            raise
        say(f"No checkpoint in {directory} can be read: {MODEL}, of step {step}, is read instead")
        return step
    finished = None
    if checkpoint == "latest" and (damaged or step is None):
        finished = _load_finished(run_dir, load)
    if damaged:
        instead = f"the checkpoint of step {step}" if finished is None else f"{MODEL}, of step {finished},"
        say(f"The checkpoint of step {damaged[0]} in {directory} is damaged: {instead} is read instead")
    step = step if finished is None else finished
    if step is None:
        raise BadInput(f"{run_dir} has no {checkpoint} checkpoint yet")
    return step


def _load_packed(directory, checkpoint, load):
    """Loads the weights of a packed network and returns their step."""
    if checkpoint != "latest":
        raise BadInput(f"{directory} has the weights of one step alone. Received: checkpoint={checkpoint!r}")
    arrays = pretrained.read_weights(directory)
    model = run_directory.read_recipe(directory).build_model()
    transfer = take_weights(model, arrays)
    if different := (*transfer.new, *transfer.unused):
        raise BadInput(f"{directory} holds another network than its config.json: {', '.join(different)} differ")
    load(_state(model))
    return _last_step(directory)


def _state(model):
    """Returns the arrays of a model by their names in a checkpoint."""
    return {f"model/{i:04}": keras.ops.convert_to_numpy(variable) for i, variable in enumerate(model.variables)}


def _last_step(run_dir):
    steps = [line["step"] for line in run_directory.read_metrics(run_dir)]
    if not steps:
        raise BadInput(f"{Path(run_dir) / run_directory.METRICS} does not say of which step the weights are")
    return max(steps)


def _load_finished(run_dir, load):
    """Loads the weights of model.keras, and returns the last step, or None if the run has not finished."""
    if not run_state.finished(run_dir, run_directory.read_recipe(run_dir).run):
        return None
    try:
        model = keras.saving.load_model(Path(run_dir) / MODEL, compile=False)
        load(_state(model))
    except Exception as error:  # Keras and zipfile raise many types of errors for damaged files
        raise BadInput(f"{run_dir}/{MODEL} cannot be read: {reason(error)}") from error
    return _last_step(run_dir)
