"""Holds out a part of the training images (`--holdout`), which is never trained on and serves for choices."""

import numpy as np

from allconv_resnet.errors import BadInput

HOLDOUT = "holdout"
"""Name of the split of the images that are held out."""


def hold_out(source, train_split, amount, seed):
    """Returns a source in which some training images have been moved to a new split, `HOLDOUT`.

    The part is stratified: each class loses the same fraction of its images, to within one image.

    Args:
        source: `Source`.
        train_split: Name of the split that is divided.
        amount: Number of images, or their fraction if it is below 1.
        seed: Integer that determines which images are held out.

    Returns:
        `Source`.

    Raises:
        BadInput: if one of the parts would be empty, or the labels cannot be read.
    """
    labels = source.labels(train_split)
    count = held_out(amount, len(labels))
    if not 0 < count < len(labels):
        raise BadInput(f"holdout must be at least 1 and below {len(labels):,} images. Received: holdout={amount:g}")
    return source.divide(train_split, stratified(labels, count, seed), HOLDOUT)


def held_out(amount, images):
    """Returns the number of images that are held out.

    Args:
        amount: See `hold_out`.
        images: Integer, number of training images.

    Raises:
        BadInput: if a number of images is not a whole number.
    """
    if amount >= 1 and amount != int(amount):
        raise BadInput(f"holdout must be a whole number of images, or a fraction below 1. Received: holdout={amount:g}")
    return round(amount * images) if amount < 1 else int(amount)


def stratified(labels, count, seed):
    """Returns which images are held out: a boolean array `[n]` with `count` entries that are True.

    Args:
        labels: Integer array `[n]`.
        count: Integer, number of images to hold out.
        seed: Integer.
    """
    # Images are ranked within their class in a random order. Those of the lowest relative ranks are held out.
    order = np.random.default_rng([seed, len(labels)]).permutation(len(labels))
    ranks = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        ranks[members] = (np.arange(len(members)) + 0.5) / len(members)
    held = np.zeros(len(labels), bool)
    held[order[np.argsort(ranks[order], kind="stable")[:count]]] = True
    return held
