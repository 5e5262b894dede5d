"""The data part of a recipe: the images, their splits and their augmentation."""

from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt

from allconv_resnet.data.augment import CropAndFlip, Cutout
from allconv_resnet.data.holdout import HOLDOUT
from allconv_resnet.errors import BadInput
from allconv_resnet.part import LARGEST, Count, Name, Size, part

STANDARD_CENTRE = 224 / 256
"""The standard centre crop: 224 pixels of an image that was resized to 256 on its shorter side."""


@part
class Images:
    """Labelled images, and the splits that a run uses."""

    dataset: Name = "cifar10"
    """`digits` (embedded), a dataset of tensorflow-datasets such as `cifar10`, or the path of a folder of images, of
    the original files of CIFAR, or of a file of arrays, FILE.npz."""
    num_classes: Count = 10
    """Number of classes of the dataset and of logits of the network."""
    image_size: tuple[Size, Size, Size] = (32, 32, 3)
    """Height, width (pixels) and channels of the network's images."""
    train_split: Name = "train"
    """Name of the split that is trained on."""
    holdout: Annotated[float, Ge(0), Lt(LARGEST)] = 0
    """Number of training images, or a fraction of them below 1, that are held out. Curves, the best checkpoint and
    patience then depend on them, and the test split is read only once, at the end. The part is stratified and
    determined by the seed. The labels of all records are read first if the images are in records."""

    @property
    def watched_split(self) -> str:
        """Name of the split that is tested on during the run and determines the best checkpoint."""
        return HOLDOUT if self.holdout else self.test_split


@part
class Arrays(Images):
    """Images of one size in memory (section 4.1).

    Example:

    >>> acr.recipes.Arrays(dataset="cifar100", num_classes=100).watched_split
    'test'
    """

    test_split: Name = "test"
    """Name of the split that is tested on."""
    crop: CropAndFlip = CropAndFlip()
    erasing: Cutout = Cutout()
    centre: Annotated[float, Gt(0), Le(1)] | None = 1.0
    """Fraction of the height and width of an image that evaluation shows. Serving crops larger images likewise."""

    kind: ClassVar[str] = "arrays"

    def __post_init__(self) -> None:
        check_cutout(self)
        self.crop.require_fit(*self.image_size[:2])
        if self.centre not in (None, 1.0):
            raise BadInput(
                f"centre must be 1 for images in memory, which evaluation shows whole. Received: centre={self.centre}"
            )

    def augmentations(self) -> tuple[Any, ...]:
        """Returns the augmentations of training, in the order in which they are applied."""
        return (self.crop, self.erasing)


@part
class Records(Images):
    """JPEG and PNG files of all sizes, in folders or in record files, as tensorflow-datasets prepares ImageNet (section
    4.2).

    Example:

    >>> acr.recipes.Records(dataset="imagenet2012", num_classes=1000, image_size=(224, 224, 3)).watched_split
    'validation'
    """

    test_split: Name = "validation"
    """Name of the split that is tested on."""
    smallest_crop: Annotated[float, Gt(0), Le(1)] = 0.08
    """Smallest fraction of an image's area that a random crop shows. The crop is resized to `image_size`."""
    flip: bool = True
    """Mirror half of the training images, left to right."""
    erasing: Cutout = Cutout()
    centre: Annotated[float, Gt(0), Le(1)] | None = STANDARD_CENTRE
    """Fraction of the height and width of an image that evaluation shows. Serving crops images likewise."""
    shuffle_buffer: Count = 2_048
    """Number of undecoded images, about 110 kB each, from which the next one is drawn. The record files are shuffled as
    well. The images of a folder are shuffled as a whole, without such a buffer."""
    bad_images: Literal["skip", "fail"] = "skip"
    """Whether images that cannot be decoded are skipped (and named, and counted in the metrics) or end the run."""

    kind: ClassVar[str] = "records"

    def __post_init__(self) -> None:
        check_cutout(self)

    def augmentations(self) -> tuple[Any, ...]:
        """Returns the augmentations of the standardized images, after the random crop and the mirroring."""
        return (self.erasing,)


def check_cutout(data):
    """Raises `BadInput` if the square of the cutout is larger than the images."""
    if data.erasing.cutout > min(data.image_size[:2]):
        raise BadInput(
            "cutout must be at most the height and width of image_size. "
            f"Received: cutout={data.erasing.cutout}, image_size={data.image_size}"
        )


DATA = {"arrays": Arrays(), "records": Records()}
"""Kinds of data by name, as in `--data NAME`."""
