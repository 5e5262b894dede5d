"""Packs the network of a run that has finished for `pretrained`: small weights, a checksum and a model card."""

import io
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from allconv_resnet import files, pretrained
from allconv_resnet.errors import BadInput
from allconv_resnet.pretrained import CHECKSUM, NETWORK, WEIGHTS
from allconv_resnet.training import run_directory, run_state
from allconv_resnet.training.weights import load_model
from allconv_resnet.transfer import arrays_by_name

LARGEST = 10_000_000  # bytes of weights.npz
COPIED = ("config.json", "labels.txt", run_directory.METRICS)
CARD = "MODEL_CARD.md"
WRITTEN = {WEIGHTS, CHECKSUM, NETWORK, CARD, "environment.json", *COPIED}  # all names in a packed folder
OWN = ("command", "data_dir", "initialized")  # entries of environment.json with paths of the machine


def pack_run(run_dir, name, directory=None):
    """Writes the network of a run as one that `load` finds by its name, or by the path of its folder.

    Args:
        run_dir: Path of a run that has finished. Its network must be an `AllConvResNet`.
        name: String, name of the network, and of its folder.
        directory: Path of the directory of all networks. Default: that of the package.

    Returns:
        Path of the folder.

    Raises:
        BadInput: if the run has not finished, has another kind of network or one that is too large, or the folder
            has other files than a packed network or the network of another run, or cannot be written.
    """
    if name in ("", "..") or Path(name).name != name:
        raise BadInput(f"The name of a network must be that of a folder. Received: name={name!r}")
    run_dir = Path(files.absolute(run_dir))  # a name alone could be that of a network of the package
    recipe = run_directory.read_recipe(run_dir)
    if recipe.network.kind != "allconv_resnet":
        raise BadInput(f"Networks of kind allconv_resnet can be packed. Received: {recipe.network.kind}")
    if not run_state.finished(run_dir, recipe.run):
        raise BadInput(f"The run in {run_dir} has not finished")
    labels = run_directory.read_labels(run_dir)
    target = files.output_directory(pretrained.HERE if directory is None else directory, "output_dir") / name
    if target.exists() and (foreign := _foreign(target)):
        raise BadInput(f"{target} would be replaced, but it is not a packed network: it has {foreign[0]}")
    if target.exists() and any(target.iterdir()) and not _is_of(target, run_dir):
        raise BadInput(f"{target} is a packed network of another run: choose another name, or move it away")
    model, recipe, step = load_model(run_dir)
    content, description = _content(arrays_by_name(model))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(target) as temporary:
            temporary.mkdir()
            (temporary / WEIGHTS).write_bytes(content)
            (temporary / CHECKSUM).write_text(f"{pretrained.checksum(content)}  {WEIGHTS}\n")
            (temporary / NETWORK).write_text(json.dumps(_arguments(model), indent=1) + "\n")
            sessions = run_directory.read_sessions(run_dir)
            sessions = [{key: value for key, value in each.items() if key not in OWN} for each in sessions]
            files.write_json(temporary / "environment.json", {"sessions": sessions})
            for file in COPIED:
                shutil.copy(Path(run_dir) / file, temporary / file)
            (temporary / CARD).write_text(
                _card(name, directory is None, run_dir, recipe, step, labels, content, description)
            )
    except OSError as error:
        raise BadInput(f"The network cannot be written to {target}: {error.strerror or error}") from error
    return target


def _foreign(target):
    """Returns the names that a packed folder does not have, or the name of the target itself if it is a file."""
    return sorted({path.name for path in target.iterdir()} - WRITTEN) if target.is_dir() else [target.name]


def _is_of(target, run_dir):
    """Returns whether a packed folder has the recipe, the names of the classes and the measurements of a run."""
    return all(
        (target / name).is_file() and (target / name).read_bytes() == (run_dir / name).read_bytes() for name in COPIED
    )


def _content(arrays):
    """Returns the bytes of weights.npz, and a description of its numbers. Those of a large network are in int8."""
    count = sum(value.size for value in arrays.values())
    for bits, kind in ((16, " in float16"), (8, ", kernels in int8 with a scale for each output channel")):
        file = io.BytesIO()
        np.savez_compressed(file, **pretrained.encode(arrays, bits))
        if len(file.getvalue()) <= LARGEST:
            return file.getvalue(), f"{count:,} numbers{kind}"
    raise BadInput(f"A packed network must have at most {LARGEST:,} bytes. Received: {len(file.getvalue()):,}")


def _arguments(model):
    """Returns the arguments that make the network; its precision and what was frozen are those of the run alone."""
    return {key: value for key, value in model.get_config().items() if key not in ("dtype", "frozen")}


def _card(name, in_package, run_dir, recipe, step, labels, content, description):
    lines = run_directory.read_metrics(run_dir)
    tests = [line for line in lines if line["split"] == "test" and line["step"] == step]
    session = (run_directory.read_sessions(run_dir) or [{}])[-1]
    error = f"{tests[-1]['error']:.2%} of {_images(tests[-1])}" if tests else "not measured at this step"
    if recipe.data.holdout:
        watched = f"images held out of the training images (`--holdout {recipe.data.holdout:g}`), and no test image"
    else:
        watched = "the test images; the weights are those of the last step, whatever they showed"
    source, where = (name, "") if in_package else (".", " In the directory of this card:")
    more = ", ..." if len(labels) > 20 else ""
    shown = f"{recipe.data.dataset}, {len(labels)} classes: {', '.join(labels[:20])}{more}".replace("|", "\\|")
    return f"""# {name}

An all-convolutional residual network without normalization, after Hardt & Ma (arXiv 1611.04231).

| | |
|---|---|
| data | {shown} |
| test error | {error}, in {recipe.precision}, with the float32 weights of one run (n = 1) |
| watched during the run | {watched} |
| trained | {step:,} steps of {recipe.run.batch_size} images, recipe `{recipe.name}`, seed {recipe.seed}, on \
{session.get("cpu", "a processor that was not recorded")}, commit {session.get("commit", "not recorded")} |
| weights | {description}, {len(content):,} bytes, \
SHA-256 `{pretrained.checksum(content)}` |
| images | {"x".join(map(str, recipe.data.image_size))}, standardized by `acr.standardize` |
| licence | Apache-2.0, as the code; the terms of the data are those of their authors |
| packed | {datetime.now(UTC).date().isoformat()} |

The network knows only these classes: whatever an image shows, it answers with one of them.{where}

```
allconv-resnet evaluate {source} --data-dir DIR     # measures the test error again, from these weights
allconv-resnet predict {source} IMAGE...
```
"""


def _images(line):
    return f"{line['images']:,} test images" if "images" in line else "the test images"
