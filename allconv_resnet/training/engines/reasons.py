"""The reason in an error of TensorFlow, without the names of operations and the places in its source around it."""

import re

NO_REASON = re.compile(r"Graph execution error:?|Detected at node.*|<stack traces unavailable>|File \".*|Node: .*|")


def tensorflow_reason(error):
    """Returns ` (the reason)`, to be put into a sentence, or an empty string if the error has no reason.

    Args:
        error: `tf.errors.OpError`.
    """
    for line in error.message.splitlines():
        line = re.sub(r"\{\{.*?\}\}|\[\[.*?\]\]|\[Op:.*?\]", "", line).strip()
        if not NO_REASON.fullmatch(line):
            return f" ({line})"
    return ""
