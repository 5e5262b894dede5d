"""Folders of image files, one folder for each class."""

import numpy as np
from PIL import Image


def write_folder(directory, images, labels, names, suffix=".png"):
    """Writes images, uint8 `[n, h, w, c]` or a list of such arrays, to `directory/CLASS/NUMBER` + suffix."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = directory / names[label] / f"{number:05}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.squeeze(image)).save(path, **({"quality": 95} if suffix == ".jpg" else {}))


def random_images(count, shape, seed=0):
    """Returns a list of random soft images, of which no two are equal. A None in the shape is drawn for each image."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        height, width, channels = (int(rng.integers(40, 90)) if size is None else size for size in shape)
        small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize((width, height))
        images.append(np.asarray(small.convert("L" if channels == 1 else "RGB")))
    return images
