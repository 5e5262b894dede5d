"""The two ways in which a run ends without a result. Anything else that is raised is a bug and shows its traceback."""

import re


class BadInput(ValueError):
    """The user's input cannot be used. The message says in one sentence what was expected and what was received.

    Example:

    >>> acr.Momentum(momentum=2.0)
    Traceback (most recent call last):
        ...
    allconv_resnet.errors.BadInput: momentum must be at least 0 and below 1. Received: momentum=2.0
    """


class RunFailed(RuntimeError):
    """The run cannot continue (a non-finite loss, a full disk). The message says what was kept and what to do next.

    Example:

    >>> acr.theory.linear.train_linear([[2.0]], [[1.0]], depth=2, learning_rate=1e6)
    Traceback (most recent call last):
        ...
    allconv_resnet.errors.RunFailed: ...
    """


def reason(error: BaseException) -> str:
    """Returns the first line of an error's message without the names of TensorFlow's operations, for a sentence.

    Args:
        error: Exception.
    """
    text = re.sub(r"\{\{.*?\}\} ?", "", getattr(error, "message", None) or str(error))
    line = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    line = re.sub(r"\s*\[Op:.*|\s*\[\[.*", "", line)
    before, assertion, values = line.partition("assertion failed: ")
    # TensorFlow puts each value of a failed assertion into brackets.
    return (re.sub(r"[\[\]]", "", values) if assertion else before)[:300]
