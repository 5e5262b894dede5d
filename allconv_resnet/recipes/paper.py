"""The paper's experiments (Hardt & Ma, arXiv 1611.04231, section 4)."""

from allconv_resnet.architectures import PLAIN_IMAGENET_WIDTHS, imagenet_stages, imagenet_stem
from allconv_resnet.recipes.parts import AllConv, Epochs, Records, Run
from allconv_resnet.recipes.recipe import Recipe

CIFAR10 = Recipe(name="cifar10")
"""The network of table 1 (section 4.1). The paper reports 6.38 % test error after 24 h on a Tesla K40. Here it had
7.04 % with seed 0, see results/README.md.
"""

CIFAR10_SHORT = CIFAR10.replace(
    name="cifar10-short", steps=6_000, boundaries=(3_000, 5_000), evaluate_every=200, checkpoint_every=500
)
"""The same in a tenth of the steps. Its learning rate falls at the same fractions of them."""

CIFAR100 = CIFAR10.replace(name="cifar100", dataset="cifar100", num_classes=100)
"""The same with 100 classes. The paper reports 24.64 % test error."""

IMAGENET = Recipe(
    name="imagenet",
    data=Records(dataset="imagenet2012", num_classes=1000, image_size=(224, 224, 3)),
    network=AllConv(stem=tuple(imagenet_stem()), stages=tuple(map(tuple, imagenet_stages()))),
    schedule=Epochs(learning_rate=0.1, decay_factor=0.94, decay_epochs=2, epoch_images=1_281_167),
    run=Run(batch_size=256, steps=700_000, evaluate_every=5_000),
)
"""The ImageNet network of section 4.2, with 35.7M trained parameters. The paper reports 35.29 % top-1 and 14.17 %
top-5 error after a week on 6 machines of 8 GPUs, which made their steps asynchronously, each with batches of 256 images
(`--strategy parameter-server`). For ImageNet the paper states neither the widths, nor the weight decay, nor how images
are cropped: the widths are inferred, the weight decay is that of CIFAR-10, and the crops are those of common practice.
"""

IMAGENET_PLAIN = IMAGENET.replace(
    name="imagenet-plain",
    stem=tuple(imagenet_stem(PLAIN_IMAGENET_WIDTHS[0])),
    stages=tuple(map(tuple, imagenet_stages(PLAIN_IMAGENET_WIDTHS))),
)
"""`imagenet` with the widths of He et al. and 21.1M trained parameters."""

IMAGENET_TINY = IMAGENET.replace(
    name="imagenet-tiny",
    image_size=(64, 64, 3),
    stem=(16, 7, 2, 2),
    stages=((1, 16, 1), (1, 32, 2), (1, 64, 2), (1, 128, 2)),
    initialization="he",  # see CIFAR10_SMALL
    batch_size=64,
    steps=20_000,
    learning_rate=0.05,
    clip_norm=1.0,
    evaluate_every=1_000,
)
"""A narrow, shallow network on 64x64 crops of ImageNet, for trying out a CPU, a cluster or a dataset."""

IMAGENETS: tuple[Recipe, ...] = (IMAGENET, IMAGENET_PLAIN, IMAGENET_TINY)
