"""The trained networks that come with the package, each in a folder of its name.

A folder has the files of a run directory (config.json, labels.txt, environment.json, metrics.jsonl), so that what reads
a run reads it too, and in place of checkpoints

weights.npz      the weights by name, without pickled objects: in float16, or kernels in int8 (see `encode`)
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
SCALE = ":scale"  # ends the names of the scales of kernels in int8


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
        BadInput: if it is a single name, and there is neither such a network nor such a file or directory, or both.
    """
    path = Path(source)
    if str(source) in names():
        if path.exists() and not path.samefile(HERE / source):
            raise BadInput(
                f"{source} is a network of the package, and {path.absolute()} exists too: give that path, or run the "
                f"command in another directory"
            )
        return HERE / source
    if path.name == str(source) and not path.exists():
        raise BadInput(f"There is no file, directory or network of the package called {source}. {available()}")
    return path


def encode(arrays, bits):
    """Returns weights as they are stored.

    With 8 bits, a kernel is stored in int8 with a float32 scale for each output channel. What remains is in float16.

    Args:
        arrays: Dictionary of float arrays by name.
        bits: 16 or 8, the bits of a number of a kernel.

    Returns:
        Dictionary of arrays by name.

    Raises:
        BadInput: if weights are not finite in float16.
    """
    with np.errstate(over="ignore"):  # the message below says so
        stored = {name: value.astype(np.float16) for name, value in arrays.items()}
    if bad := [name for name, value in stored.items() if not np.isfinite(value).all()]:
        raise BadInput(f"The weights must be finite in float16. Received others in {', '.join(bad)}")
    for name, value in arrays.items():
        if bits == 8 and value.ndim > 1:
            largest = np.abs(value).max(axis=tuple(range(value.ndim - 1)))
            scale = np.where(largest > 0, largest, 1).astype(np.float32) / 127
            stored[name], stored[name + SCALE] = np.round(value / scale).astype(np.int8), scale
    return stored


def decode(stored):
    """Returns the float32 weights of what `encode` returned, as a dictionary of arrays by name."""
    return {
        name: value.astype(np.float32) * (stored[name + SCALE] if value.dtype == np.int8 else np.float32(1))
        for name, value in stored.items()
        if not name.endswith(SCALE)
    }


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
            return decode({name: file[name] for name in file.files})
    except (OSError, ValueError, LookupError, zipfile.BadZipFile) as error:
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
