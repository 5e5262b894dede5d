"""The two ways in which a run ends without a result. Anything else that is raised is a bug and shows its traceback."""

import re


class BadInput(ValueError):
    """The user's input cannot be used. The message says in one sentence what was expected and what was received."""


class RunFailed(RuntimeError):
    """The run cannot continue (a non-finite loss, a full disk). The message says what was kept and what to do next."""


def reason(error):
    """Returns the first line of an error's message without the names of TensorFlow's operations, for a sentence.

    Args:
        error: Exception.
    """
    text = getattr(error, "message", None) or str(error)
    text = re.sub(r"\{\{.*?\}\}|\[Op:.*?\]|\[\[.*|.*assertion failed: ", "", text)
    lines = [re.sub(r"[\[\]]", "", line).strip(" :") for line in text.splitlines()]
    return next((line for line in lines if line), type(error).__name__)[:300]
