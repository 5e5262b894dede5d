"""Loads trained networks, wherever they are: runs, files of Keras, exports, and networks that come with the package."""

import keras

from allconv_resnet import files, pretrained
from allconv_resnet.errors import BadInput, reason
from allconv_resnet.training import run_directory
from allconv_resnet.training.run_directory import MODEL
from allconv_resnet.training.weights import load_model
from allconv_resnet.types import StrPath


def load(source: StrPath) -> keras.Model:
    """Returns a trained network with its weights and the names of its classes.

    Args:
        source: Path of a run directory, of a `.keras` file, or of an export (the directory of all versions, of which
            the newest is loaded, or of one of them; on TensorFlow alone), or the name of a network that comes with the
            package. The absolute path of a directory is never such a name.

    Returns:
        Keras model from standardized images to logits. Its attribute `label_names` is a tuple with the names of the
        classes, or None for a `.keras` file that is not in a run directory.

    Raises:
        BadInput: if there is no such network, or it cannot be read.

    Example:

    >>> model = acr.load("cifar10-fast")
    >>> model.label_names[:3]
    ('airplane', 'automobile', 'bird')
    >>> logits = model(acr.standardize(np.zeros((1, 32, 32, 3), "uint8")))
    """
    path = files.expand(source, "source")
    if path.suffix in (".h5", ".hdf5"):
        raise BadInput(f"A network is read from a .keras file, and not from HDF5. Received: source={str(path)!r}")
    path = pretrained.find(path)
    model, model.label_names = _load(path)
    return model


def _load(path):
    if path.suffix == ".keras":
        return _load_file(path)
    if (path / "config.json").exists():
        return load_model(path)[0], tuple(run_directory.read_labels(path))
    if keras.backend.backend() == "tensorflow":
        from allconv_resnet.training.exporting import read_network

        if found := read_network(path):
            return found
    raise BadInput(
        f"A network must be a run directory, a .keras file, an export, or the name of a network. "
        f"{pretrained.available()}. Received: source={str(path)!r}"
    )


def _load_file(path):
    try:
        model = keras.saving.load_model(path)
    except Exception as error:  # Keras and zipfile raise many types of errors for damaged files
        raise BadInput(f"{path} cannot be read: {reason(error)}") from error
    in_run = path.name == MODEL and (path.parent / "labels.txt").exists()
    return model, tuple(run_directory.read_labels(path.parent)) if in_run else None
