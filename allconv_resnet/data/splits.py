"""The names that splits usually have."""

TRAIN = ("train", "training")
"""Names of training images."""
TEST = ("test", "testing", "validation", "valid", "val")
"""Names of images to test on. If there are several, the first of these is tested on."""
