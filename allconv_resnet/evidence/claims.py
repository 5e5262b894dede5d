"""What the paper says of its network beside others, and whether the runs under results/ show it."""

import math
import statistics
from typing import NamedTuple


class Claim(NamedTuple):
    """That one training's error is below another's: at the last step, over the seeds."""

    what: str
    source: str
    lower: str
    higher: str
    split: str = "test"


SECTION_4 = "section 4.1, of 13.5M parameters"
ASKED_HERE = "asked here"

CLAIMS = (
    Claim("ours below All-CNN-C", "table 2: 6.38 against 7.25", "cifar10-small-20", "all-cnn-c-20"),
    Claim("ours below He et al.'s", "table 2: 6.38 against 6.43, of 110 layers", "cifar10-small-20", "resnet20-20"),
    Claim(
        "batch normalization overfits: less training error", SECTION_4, "small-4000-batch-norm", "small-4000", "train"
    ),
    Claim("and more test error", SECTION_4, "small-4000", "small-4000-batch-norm"),
    Claim("at 13.5M parameters: less training error", SECTION_4, "cifar10-batch-norm", "cifar10-he", "train"),
    Claim("and more test error", SECTION_4, "cifar10-he", "cifar10-batch-norm"),
    Claim("a fixed projection has slightly less test error", SECTION_4, "small-4000", "small-4000-trained-head"),
    Claim("1/(k^2 c) is better than 1/(k sqrt(c))", SECTION_4, "small-4000-near-identity", "small-4000-standard"),
    Claim("1/(k^2 c) is better than He et al.'s", ASKED_HERE, "small-4000-near-identity", "small-4000"),
    Claim("and twice as deep", ASKED_HERE, "small-4000-deep-near-identity", "small-4000-deep"),
    Claim("the identity matters", ASKED_HERE, "small-4000", "small-4000-no-identity"),
    Claim("and twice as deep", ASKED_HERE, "small-4000-deep", "small-4000-deep-no-identity"),
    Claim("with the identity, depth helps", ASKED_HERE, "small-4000-deep", "small-4000"),
    Claim("without it, depth harms", ASKED_HERE, "small-4000-no-identity", "small-4000-deep-no-identity"),
)

VERDICTS = (("reproduces", "**does not reproduce**"), ("holds", "**does not hold**"))


def row(claim, found):
    """Returns the cells of a claim: what, whose, of which images, the errors of both, their difference, the verdict.

    The difference is that of the means with Welch's interval of 95 %; the verdict is that of the interval. Runs that
    have not finished do not count.

    Args:
        claim: `Claim`.
        found: Dictionary of the runs of each training.
    """
    names = (claim.lower, claim.higher)
    errors = [
        [100 * line["error"] for run in found.get(name, ()) if run.finished() and (line := run.last(claim.split))]
        for name in names
    ]
    told = [f"`{name}` {_mean(values)}".rstrip() for name, values in zip(names, errors, strict=True)]
    difference, verdict = "", "*not run*"
    if min(map(len, errors)) == 1:
        verdict = "one seed"
    elif all(errors):
        middle, half = welch(*errors)
        difference = f"{middle:+.2f} ± {half:.2f}"
        yes, no = VERDICTS[claim.source == ASKED_HERE]
        verdict = yes if middle > half else no if middle < -half else "not decided"
    return claim.what, claim.source, claim.split, *told, difference, verdict


def welch(first, second):
    """Returns the mean of `second` less that of `first`, and half the width of Welch's interval of 95 %.

    Args:
        first: Sequence of at least two numbers.
        second: The same.
    """
    from scipy.stats import t

    parts = [statistics.variance(values) / len(values) for values in (first, second)]
    difference = statistics.fmean(second) - statistics.fmean(first)
    if not sum(parts):  # errors come in steps: seeds that agree to the last image are chance
        return difference, math.inf
    squares = sum(part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True))
    return difference, float(t.ppf(0.975, sum(parts) ** 2 / squares)) * math.sqrt(sum(parts))


def _mean(values):
    return f"{statistics.fmean(values):.2f} (n = {len(values)})" if values else ""
