"""The model card of an export."""

import json
from datetime import UTC, datetime


def model_card(recipe, step, test_lines, sessions, labels):
    """Returns the card as Markdown.

    Args:
        recipe: `Recipe`.
        step: Integer, number of steps for which the exported weights were trained.
        test_lines: List of dictionaries, the run's test lines of metrics.jsonl.
        sessions: List of dictionaries, the run's sessions of environment.json.
        labels: List of strings, names of the classes.
    """
    measured = [line for line in test_lines if line["step"] == step]
    error = f"{measured[-1]['error']:.2%}" if measured else "not measured at this step"
    last = sessions[-1]
    versions = ", ".join(f"{name} {version}" for name, version in last["versions"].items())
    rows = "\n".join(f"| {key} | `{json.dumps(value)}` |" for key, value in recipe.flat().items())
    return f"""# {recipe.name}

An all-convolutional residual network without normalization, after Hardt & Ma (arXiv 1611.04231).

| | |
|---|---|
| data | {recipe.data.dataset}, {len(labels)} classes: {", ".join(labels[:20])}{", ..." if len(labels) > 20 else ""} |
| test error | {error} |
| trained | {step:,} steps of {recipe.run.batch_size} images, in {last["precision"]}, on {last["cpu"]}{_gpus(last)} |
| code | commit {last["commit"]}, {versions} |
| exported | {datetime.now(UTC).date().isoformat()} |

The graph resizes, crops and standardizes images itself; it takes pixels from 0 to 255.
The network knows only these classes: whatever an image shows, it answers with one of them.

This SavedModel needs only TensorFlow. The `model.keras` of the run needs this package, which must be imported first:

```python
import keras
import allconv_resnet

model = keras.saving.load_model("model.keras")  # from standardized images to logits
```

## Recipe

| field | value |
|---|---|
{rows}
"""


def _gpus(session):
    return f" and {len(session['gpus'])} x {session['gpus'][0]}" if session["gpus"] else ""
