"""The first weights of a run that begins with those of another network (`--initialize-from`)."""

from allconv_resnet.errors import BadInput
from allconv_resnet.training.loading import load
from allconv_resnet.transfer import arrays_by_name, take_weights

SHOWN = 4  # new weights that a message lists


def initialize(model, source):
    """Gives a network the weights of another one that have the same names and shapes.

    Args:
        model: Keras model, which is changed.
        source: See `loading.load`.

    Returns:
        `Transfer`.

    Raises:
        BadInput: if the other network cannot be read, or has no such weights.
    """
    transfer = take_weights(model, arrays_by_name(load(source)))
    if not transfer.taken:
        name, reason = next(iter(transfer.new.items()))
        raise BadInput(
            f"initialize_from must be a network with weights of the same names and shapes as this one, but for {name} "
            f"{reason}. Received: initialize_from={source!r}"
        )
    return transfer


def describe_transfer(transfer, source):
    """Returns a sentence that says what was taken from another network, and what was not."""
    total = len(transfer.taken) + len(transfer.new)
    text = f"{len(transfer.taken)} of {total} weights are those of {source}"
    if not transfer.new:
        return text
    shown = [f"{name} ({reason})" for name, reason in list(transfer.new.items())[:SHOWN]]
    more = [f"{len(transfer.new) - SHOWN} more"] if len(transfer.new) > SHOWN else []
    return f"{text}; new: {', '.join([*shown, *more])}"
