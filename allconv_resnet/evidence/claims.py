"""What the paper says of its network beside others, and whether the runs under results/ show it."""

import math
import statistics
from typing import NamedTuple


class Claim(NamedTuple):
    """That one training's error is below another's: at the last step, over the seeds."""

    what: str
    lower: str
    higher: str
    split: str = "test"
    margin: float = 0.0  # percentage points by which the lower one may be above: "no worse"


CLAIMS = (
    Claim("no normalization is needed: below All-CNN-C (table 2)", "cifar10-small-20", "all-cnn-c-20"),
    Claim("no normalization is needed: below ResNet-20 with it (table 2)", "cifar10-small-20", "resnet20-20"),
    Claim("batch normalization overfits: its test error is above (section 4.1)", "small-4000", "small-4000-batch-norm"),
    Claim("and its training error below", "small-4000-batch-norm", "small-4000", "train"),
    Claim("1/(k^2 c) is a better start than 1/(k sqrt(c))", "small-4000-near-identity", "small-4000-standard"),
    Claim("1/(k^2 c) is a better start than He et al.'s", "small-4000-near-identity", "small-4000"),
    Claim("so it is twice as deep", "small-4000-deep-near-identity", "small-4000-deep"),
    Claim("a fixed projection costs less than a point", "small-4000", "small-4000-trained-head", margin=1.0),
    Claim("identity matters", "small-4000", "small-4000-no-identity"),
    Claim("identity matters twice as deep", "small-4000-deep", "small-4000-deep-no-identity"),
    Claim("with the identity, depth helps", "small-4000-deep", "small-4000"),
    Claim("without it, depth harms", "small-4000-no-identity", "small-4000-deep-no-identity"),
)


def row(claim, found):
    """Returns the cells of a claim: what, the errors of both, their difference, the verdict.

    The difference is that of the means with Welch's interval of 95 %; the verdict is that of the interval.

    Args:
        claim: `Claim`.
        found: Dictionary of the runs of each training.
    """
    errors = [
        [100 * line["error"] for run in found.get(name, ()) if (line := run.last(claim.split))]
        for name in (claim.lower, claim.higher)
    ]
    told = [f"`{name}` {_mean(values)}" for name, values in zip((claim.lower, claim.higher), errors, strict=True)]
    if min(map(len, errors)) < 2:
        return claim.what, claim.split, *told, "", "*not run*"
    difference, half = welch(*errors)
    if difference - half > -claim.margin:
        verdict = "reproduces"
    elif difference + half < -claim.margin:
        verdict = "**does not reproduce**"
    else:
        verdict = "not decided"
    return claim.what, claim.split, *told, f"{difference:+.2f} ± {half:.2f}", verdict


def welch(first, second):
    """Returns the mean of `second` less that of `first`, and half the width of Welch's interval of 95 %.

    Args:
        first: Sequence of at least two numbers.
        second: The same.
    """
    from scipy.stats import t

    parts = [statistics.variance(values) / len(values) for values in (first, second)]
    difference = statistics.fmean(second) - statistics.fmean(first)
    if not sum(parts):
        return difference, 0.0
    squares = sum(part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True))
    return difference, float(t.ppf(0.975, sum(parts) ** 2 / squares)) * math.sqrt(sum(parts))


def _mean(values):
    return f"{statistics.fmean(values):.2f} (n = {len(values)})" if values else ""
