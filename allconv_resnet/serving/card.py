"""The model card of an export."""

import json
from datetime import UTC, datetime

CARD, LABELS = "MODEL_CARD.md", "labels.txt"
NO_LICENCE = "none is stated by its authors"
SOURCES = {
    "digits": (
        "Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998, UCI), as scikit-learn has it",
        "CC BY 4.0",
    ),
    "cifar10": ("CIFAR-10 (Krizhevsky 2009), https://www.cs.toronto.edu/~kriz/cifar.html", NO_LICENCE),
    "cifar100": ("CIFAR-100 (Krizhevsky 2009), https://www.cs.toronto.edu/~kriz/cifar.html", NO_LICENCE),
    "imagenet2012": (
        "ImageNet 2012 (Russakovsky et al. 2015), https://www.image-net.org",
        "terms of access that allow non-commercial research and education alone",
    ),
}
"""Source and licence of datasets by name."""

SAVEDMODEL = """
| signature | takes |
|---|---|
| `serving_default` | `images`: float32 `[n, h, w, {channels}]`, pixels from 0 to 255 |
| `serve_uint8` | `images`: uint8 `[n, h, w, {channels}]` |
| `serve_bytes` | `images`: string `[n]`, each a JPEG or PNG file |

Each returns `logits` `[n, {classes}]`, and `classes`, `labels` and `probabilities` of the {top} most probable classes
`[n, {top}]`. Images of another size than {height} x {width} are cropped in the middle and resized. JPEG files are
turned as their EXIF orientation says. In the directory of this card, with TensorFlow alone:

```python
import tensorflow as tf

network = tf.saved_model.load(".")
with open("IMAGE", "rb") as file:
    answer = network.signatures["serve_bytes"](images=tf.constant([file.read()]))
print(answer["labels"].numpy()[0], answer["probabilities"].numpy()[0])
```
"""

FILE = """
The file takes `images`, float32 `[n, {height}, {width}, {channels}]` with pixels from 0 to 255, and returns `logits`
and `probabilities` `[n, {classes}]`. Images of another size must be cropped and resized before: {other_sizes}.
{quantized}
In the directory of this card:

```python
{call}
with open("{labels}", encoding="utf-8") as file:
    print(file.read().splitlines()[probabilities[0].argmax()], probabilities[0].max())
```
"""
ONNX = """import numpy as np
import onnxruntime
from PIL import Image

image = np.float32(Image.open("IMAGE").convert("{mode}")).reshape(1, {height}, {width}, {channels})
session = onnxruntime.InferenceSession("{file}")
(probabilities,) = session.run(["probabilities"], {{"images": image}})"""
LITERT = """import numpy as np
import tensorflow as tf  # or: from ai_edge_litert import interpreter
from PIL import Image

image = np.float32(Image.open("IMAGE").convert("{mode}")).reshape(1, {height}, {width}, {channels})
probabilities = tf.lite.Interpreter("{file}").get_signature_runner()(images=image)["probabilities"]"""
CALLS = {
    "onnx": (ONNX, "ONNX Runtime refuses them"),
    "litert": (LITERT, "LiteRT computes something else without a word"),
}


def cell(text):
    """Returns a text as it stands in a cell of a table of Markdown.

    Args:
        text: String.
    """
    return text.replace("|", "\\|")


def savedmodel_usage(image_size, classes, top):
    """Returns how to call a SavedModel, as Markdown.

    Args:
        image_size: `(height, width, channels)`.
        classes: Integer, number of classes.
        top: Integer, number of classes in an answer.
    """
    height, width, channels = image_size
    return SAVEDMODEL.format(height=height, width=width, channels=channels, classes=classes, top=top)


def file_usage(path, kind, image_size, classes, representative=0):
    """Returns how to call an ONNX or LiteRT file, as Markdown.

    Args:
        path: Path of the file.
        kind: `"onnx"` or `"litert"`.
        image_size: `(height, width, channels)`.
        classes: Integer, number of classes.
        representative: Integer, number of images that determined the ranges of int8, or 0 for float32.
    """
    height, width, channels = image_size
    shape = {"height": height, "width": width, "channels": channels, "mode": "L" if channels == 1 else "RGB"}
    call, other_sizes = CALLS[kind]
    quantized = f"Its weights and maps are int8, with the ranges of {representative} training images."
    return FILE.format(
        **shape,
        classes=classes,
        other_sizes=other_sizes,
        quantized=quantized if representative else "It computes in float32.",
        call=call.format(file=path.name, **shape),
        labels=f"{path.name}.{LABELS}",
    )


def model_card(recipe, step, checkpoint, metrics, session, labels, weights, usage):
    """Returns the card as Markdown.

    Args:
        recipe: `Recipe`.
        step: Integer, number of steps for which the exported weights were trained.
        checkpoint: `"latest"` or `"best"`.
        metrics: List of dictionaries, the run's lines of metrics.jsonl.
        session: Dictionary, the run's last session of environment.json.
        labels: List of strings, names of the classes.
        weights: Pair of integers: the numbers of trained weights, and of all weights.
        usage: String, how to call the network.
    """
    data = recipe.data
    source, licence = SOURCES.get(data.dataset.partition("/")[0], ("not known to this program",) * 2)
    versions = ", ".join(f"{name} {version}" for name, version in session["versions"].items())
    rows = "\n".join(f"| {key} | `{cell(json.dumps(value))}` |" for key, value in recipe.flat().items())
    shown = cell(", ".join(labels[:20])) + (
        ", ... (all are in the file of labels beside this card)" if len(labels) > 20 else ""
    )
    trained, whole = weights
    return f"""# {recipe.name}

An all-convolutional residual network without normalization, after Hardt & Ma (arXiv 1611.04231).

| | |
|---|---|
| data | {cell(data.dataset)}, {len(labels)} classes: {shown} |
| source of the data | {source} |
| licence of the data | {licence} |
{_measured(metrics, step, len(labels))}
| checkpoint | {_choice(recipe, checkpoint, step, metrics)} |
| weights | {trained:,} trained, {whole:,} in all |
| input | {" x ".join(map(str, data.image_size))} (height, width, channels) |
| trained | {step:,} steps of {recipe.run.batch_size} images, in {session["precision"]}, on {_hardware(session)} |
| code | commit {session["commit"]}, {versions} |
| exported | {datetime.now(UTC).date().isoformat()} |

## How to call it
{usage}
## Intended use and limits

The network tells the classes of this dataset apart, in images like those of this dataset. It serves to reproduce the
experiment and to try how such a network behaves. It knows only these classes: whatever an image shows, it answers with
one of them, and the probability says nothing about images of another kind. How its errors are distributed over groups
of images was not measured, so decisions about people must not rest on it.

The graph standardizes images itself: do not subtract means or divide by 255. The `model.keras` of the run takes
standardized images, and needs this package, which must be imported before `keras.saving.load_model` reads it.

## Recipe

| field | value |
|---|---|
{rows}
"""


def _measured(metrics, step, classes):
    """Returns the rows of what was measured at a step."""
    rows = []
    for split, name in (("test", "test error"), ("holdout", "error on held-out images")):
        lines = [line for line in metrics if line["split"] == split]
        line = next((line for line in reversed(lines) if line["step"] == step), None)
        if line is None:
            if split == "test":
                rows.append(f"| {name} | not measured at this step |")
            continue
        top5 = f", top-5 error {line['top5_error']:.2%}" if classes > 5 and "top5_error" in line else ""
        count = f", n = {line['images']:,} images" if "images" in line else ""
        rows.append(f"| {name} | {line['error']:.2%}{top5}{count} |")
    return "\n".join(rows)


def _choice(recipe, checkpoint, step, metrics):
    """Returns what chose the checkpoint, as a sentence."""
    if checkpoint == "best":
        split = "holdout" if recipe.data.holdout else "test"
        seen = {"holdout": "the held-out images", "test": "the test images, which makes the test error look too low"}
        tests = sum(line["split"] == split for line in metrics)
        return f"the lowest error of {tests} tests on {seen[split]}"
    ended = any(line.get("planned") == recipe.run.steps for line in metrics)
    if step < recipe.run.steps and not ended:
        return f"the newest checkpoint of a run that has made {step:,} of {recipe.run.steps:,} steps: no image chose it"
    if recipe.run.patience and step < recipe.run.steps:
        return "the last step: the error on the held-out images had stopped falling"
    return "the last step: no image chose it"


def _hardware(session):
    gpus = f" and {len(session['gpus'])} x {session['gpus'][0]}" if session["gpus"] else ""
    return f"{session['cpu']}{gpus}"
