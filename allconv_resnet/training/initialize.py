"""The first weights of a run that begins with those of another network (`--initialize-from`)."""

from allconv_resnet.errors import BadInput
from allconv_resnet.training.loading import load
from allconv_resnet.transfer import arrays_by_name, take_weights

SHOWN = 4  # weights of a kind that a message lists


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
    parts = [f"{len(transfer.taken)} of {total} weights are those of {source}"]
    if transfer.new:
        parts.append(f"new: {_first([f'{name} ({reason})' for name, reason in transfer.new.items()])}")
    if transfer.unused:
        parts.append(f"not used, because this network has no such weights: {_first(transfer.unused)}")
    return "; ".join(parts)


def _first(names):
    more = [f"{len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return ", ".join([*names[:SHOWN], *more])
