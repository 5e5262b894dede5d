"""The run part of a recipe: the length of the training and its intervals."""

from allconv_resnet.part import Fraction, Int32, part
from allconv_resnet.recipes.parts.start import Start


@part
class Run:
    """Initial weights, batch, steps and intervals of a run.

    Example:

    >>> acr.recipes.Run(batch_size=64, steps=1_000).log_every
    100
    """

    start: Start = Start()
    batch_size: Int32 = 128
    """Number of images per step, over all devices. With parameter servers it is that of one worker."""
    steps: Int32 = 60_000
    """Number of steps of the whole run. On CIFAR-10 the paper's accuracy is highest near step 50,000."""
    label_smoothing: Fraction = 0.0
    """Fraction of each label that is distributed over all classes in training. The paper has none."""
    log_every: Int32 = 100
    """Steps between two lines of training loss and error."""
    evaluate_every: Int32 = 1_000
    """Steps between two evaluations on the test split, or on the held-out images if there are any."""
    patience: Int32 | None = None
    """Number of tests without a lower error after which the run ends early. It needs a holdout."""
    checkpoint_every: Int32 = 1_000
    """Steps between two checkpoints."""
