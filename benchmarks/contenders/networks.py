"""The data of all contenders: the tables of the two networks, their weights, and one batch of images."""

import numpy as np

CLASSES = {"cifar": 10, "imagenet": 1000}
SIZES = {"cifar": 32, "imagenet": 224}
STEMS = {"cifar": (16, 3, 1, 1), "imagenet": (96, 7, 2, 2)}  # filters, kernel, stride, pooling
STAGES = {
    "cifar": ((9, 64, 1), (9, 128, 2), (9, 256, 2)),
    "imagenet": ((3, 96, 1), (4, 176, 2), (6, 336, 2), (3, 656, 2)),
}
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 1e-4


def batch(task, n, seed=0):
    """Returns float32 images `[n, h, w, 3]` and int64 labels `[n]`."""
    random = np.random.default_rng(seed)
    size = SIZES[task]
    images = random.standard_normal((n, size, size, 3), dtype=np.float32)
    return images, random.integers(0, CLASSES[task], n)


def operations(task):
    """Returns the floating-point operations of the convolutions for one image: two for each product and its sum."""
    filters, kernel, stride, pool = STEMS[task]
    size = SIZES[task] // stride
    total, size = 2 * size**2 * kernel**2 * 3 * filters, size // pool
    for blocks, width, stride in STAGES[task]:
        size //= stride
        for _ in range(blocks):
            total += 2 * size**2 * 9 * width * (filters + width)
            filters = width
    return total


def save(task, path):
    """Writes weights in the order of the network, with He's initialization so that every layer affects the logits."""
    random = np.random.default_rng(0)
    filters, kernel, *_ = STEMS[task]
    shapes = [(kernel, kernel, 3, filters)]
    for blocks, width, _ in STAGES[task]:
        for _ in range(blocks):
            shapes += [(3, 3, filters, width), (3, 3, width, width)]
            filters = width
    kernels = [random.standard_normal(s, dtype=np.float32) * 0.5 * (2 / np.prod(s[:3])) ** 0.5 for s in shapes]
    kernels.append(random.standard_normal((filters, CLASSES[task]), dtype=np.float32) / filters**0.5)
    np.savez(path, *kernels)


def load(path):
    """Returns a list of the convolution kernels, `[height, width, in, out]`, and the projection, `[in, out]`."""
    with np.load(path) as file:
        return [file[f"arr_{i}"] for i in range(len(file.files))]
