"""The trained networks that come with the package, each in a folder of its name.

A folder has the files of a run directory (config.json, labels.txt, environment.json, metrics.jsonl), so that what reads
a run reads it too, and in place of checkpoints

weights.npz      the weights in float16, by name, without pickled objects
SHA256SUMS       the checksum of weights.npz, for `sha256sum --check`
network.json     the arguments of `AllConvResNet`
MODEL_CARD.md    data, error, licence

`allconv-resnet pack RUN_DIR NAME` writes it from a run that has finished.
"""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np

from allconv_resnet.errors import BadInput

HERE = Path(__file__).parent
WEIGHTS = "weights.npz"
CHECKSUM = "SHA256SUMS"
NETWORK = "network.json"


def names():
    """Returns the names of the networks that come with the package, as a list of strings."""
    return sorted(path.parent.name for path in HERE.glob(f"*/{WEIGHTS}"))


def available():
    """Returns a sentence that says which networks come with the package."""
    return f"The networks of the package are: {', '.join(names())}" if names() else "The package has no networks yet"


def find(source):
    """Returns the path of a network: the folder of one that comes with the package, or the given path.

    Args:
        source: Name of a network of the package, or a path. The absolute path of a directory is never such a name.

    Raises:
        BadInput: if it is a single name, and there is neither such a network nor such a file or directory.
    """
    if str(source) in names():
        return HERE / source
    path = Path(source)
    if path.name == str(source) and not path.exists():
        raise BadInput(f"There is no file, directory or network of the package called {source}. {available()}")
    return path


def read_weights(directory):
    """Returns the weights of a packed network.

    Args:
        directory: Path of its folder.

    Returns:
        Dictionary of float32 arrays by name, see `transfer.weights_by_name`.

    Raises:
        BadInput: if the weights cannot be read, or their checksum is another one.
    """
    path = Path(directory) / WEIGHTS
    try:
        content = path.read_bytes()
        expected = (path.parent / CHECKSUM).read_text().split()[0]
        if checksum(content) != expected:
            raise ValueError(f"its checksum is {checksum(content)}, and {CHECKSUM} has {expected}")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {name: file[name].astype("float32") for name in file.files}
    except (OSError, ValueError, IndexError, zipfile.BadZipFile) as error:
        raise BadInput(f"{path} cannot be read: {error}") from error


def read_arguments(directory):
    """Returns the arguments of `AllConvResNet` of a packed network as a dictionary.

    Raises:
        BadInput: if the file cannot be read.
    """
    path = Path(directory) / NETWORK
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from error


def checksum(content):
    """Returns the SHA-256 of bytes as a hexadecimal string."""
    return hashlib.sha256(content).hexdigest()
