"""The problems of `allconv-resnet theory landscape`: images with three losses."""

import numpy as np

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.landscape import Problem

POSITIVE = (2, 3, 4, 5, 6, 7)  # the labels of the class 1 of the logistic loss: on CIFAR-10 the animals


def image_problems(images, labels, components=64):
    """Returns a `Problem` on images for each loss.

    Args:
        images: Float array `[n, height, width, channels]`.
        labels: Integer array `[n]` of ten classes.
        components: Positive integer, number of principal components.

    Returns:
        Dictionary: `"cross_entropy"` with the ten classes, `"logistic"` with the classes 2 to 7 against the others (on
        CIFAR-10 animals against vehicles), and `"squared"` with one-hot targets.

    Raises:
        BadInput: if there are more classes, or fewer than 10 different images.
    """
    if labels.max() > 9:
        raise BadInput(f"data must have at most 10 classes. Received: a dataset with the label {labels.max()}")
    flat = images.reshape(len(labels), -1).astype(np.float64)
    left, values, _ = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    components = min(components, int(np.sum(values > 1e-6 * values[0])))
    x = np.concatenate([left[:, :components] * np.sqrt(len(flat)), np.ones((len(flat), 1))], axis=1)
    if x.shape[1] < 10:
        raise BadInput(f"images must have at least 9 principal components. Received: images={len(labels)}")
    return {
        "cross_entropy": Problem(x, labels, "cross_entropy", outputs=10),
        "logistic": Problem(x, np.where(np.isin(labels, POSITIVE), 1.0, -1.0)[:, None], "logistic"),
        "squared": Problem(x, np.eye(10)[labels], "squared", outputs=10),
    }
