"""The run part of a recipe: how much is trained, and how often the run is looked at."""

from allconv_resnet.part import Count, Fraction, part


@part
class Run:
    """Batch, steps and intervals of a run."""

    batch_size: Count = 128
    """Images a step, over all devices."""
    steps: Count = 60_000
    """Steps of the whole run. The paper's accuracy peaks near 50,000."""
    label_smoothing: Fraction = 0.0
    """Part of a label that is spread over all classes in training. The paper has none."""
    log_every: Count = 100
    """Steps between two lines of training loss and error."""
    evaluate_every: Count = 1_000
    """Steps between two evaluations on the test split."""
    patience: Count | None = None
    """Tests without a lower error after which the run ends early; it needs a holdout."""
    checkpoint_every: Count = 1_000
    """Steps between two checkpoints."""
