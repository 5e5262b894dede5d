"""Checks of the points and labels that `memorize` is to fit."""

import hashlib

import numpy as np

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.checks import positive_integer
from allconv_resnet.theory.hardt_ma.embedding import chunks


def check_points(x, labels, num_classes):
    """Returns points, labels and the number of classes, or raises `BadInput` as `memorize` documents."""
    x, labels = np.asarray(x), np.asarray(labels)
    if x.dtype == bool:
        x = x.astype(np.uint8)
    if x.ndim < 2 or x.size == 0:
        raise BadInput(f"x must be [n, ...] with at least one point and one feature. Received: shape {list(x.shape)}")
    if x.dtype.kind not in "iuf" or x.dtype.itemsize > 8:
        raise BadInput(f"x must hold real numbers of at most 64 bits. Received: dtype {x.dtype}")
    for rows in chunks(len(x), x[0].nbytes):
        finite = np.isfinite(x[rows]).reshape(rows.stop - rows.start, -1).all(axis=1)
        if not finite.all():
            raise BadInput(f"x must be finite. Received: NaN or infinity in x[{rows.start + int(finite.argmin())}]")
    if labels.shape != (len(x),) or labels.dtype.kind not in "iu":
        raise BadInput(
            f"labels must be {len(x)} integers, one for each point. "
            f"Received: shape {list(labels.shape)}, dtype {labels.dtype}"
        )
    labels = labels.astype(np.int64)
    if num_classes is None:
        num_classes = max(0, int(labels.max())) + 1
    num_classes = positive_integer(num_classes, "num_classes")
    outside = (labels < 0) | (labels >= num_classes)
    if outside.any():
        i = int(outside.argmax())
        raise BadInput(f"labels must lie in [0, {num_classes}). Received: labels[{i}]={labels[i]}")
    return x, labels, num_classes


def indices_of_distinct_points(x, labels):
    """Returns the index of the first row of each set of equal rows; raises `BadInput` if their labels differ."""
    first, distinct, conflicts = {}, [], []
    for i, row in enumerate(x):
        row = row + row.dtype.type(0)  # -0.0 equals 0.0
        j = first.setdefault(hashlib.blake2b(np.ascontiguousarray(row), digest_size=16).digest(), i)
        if j == i:
            distinct.append(i)
        elif labels[i] != labels[j]:
            conflicts.append(f"x[{j}] and x[{i}] with labels {labels[j]} and {labels[i]}")
    if conflicts:
        listed = "; ".join(conflicts[:5]) + ("; ..." if len(conflicts) > 5 else "")
        raise BadInput(f"Equal points must have equal labels. Received: {len(conflicts)} conflicts: {listed}")
    return np.array(distinct)
