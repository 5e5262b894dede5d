"""Whether the logs of runs show what is claimed about their errors."""

import math
import statistics
import warnings

from allconv_resnet.report.tables import NOT_RUN, markdown

COLUMNS = ("claim", "source", "split", "error of", "is below that of", "difference", "verdict")


def claim_section(page, found):
    """Returns the section of a page's claims, in Markdown.

    Args:
        page: `Page`.
        found: Dictionary from the name of each training to its runs.
    """
    table = markdown([COLUMNS, *(claim_row(claim, found) for claim in page.claims)])
    return "\n\n".join(part for part in ("## Claims", page.claims_text, table) if part)


def claim_row(claim, found):
    """Returns the cells of a claim, for `COLUMNS`.

    The difference is that of the mean errors over the seeds, with Welch's 95 % interval. The claim is undecided if the
    interval contains 0. Only runs that have finished or diverged count. A run that diverged has more error than any
    other, and the claim is undecided if only some of the runs of a training diverged.

    Args:
        claim: `Claim`.
        found: Dictionary from the name of each training to its runs.
    """
    names = (claim.lower, claim.higher)
    lower, higher = (
        [e for run in found.get(name, ()) if (e := _error(run, claim.split)) is not None] for name in names
    )
    cells = [f"`{name}` {_mean(errors)}".rstrip() for name, errors in zip(names, (lower, higher), strict=True)]
    difference, verdict = "", NOT_RUN
    if min(len(lower), len(higher)) == 1:
        verdict = "one seed"
    elif lower and higher:
        sign, difference = compare(lower, higher)
        yes, no = claim.verdicts
        verdict = {1: yes, -1: no, 0: "not decided"}[sign]
    return claim.what, claim.source, claim.split, *cells, difference, verdict


def compare(lower, higher):
    """Compares the errors of two trainings.

    Args:
        lower: Sequence of the errors of at least two runs in percent, which are infinite for runs that diverged.
        higher: The same for the other training.

    Returns:
        1 if the errors of `lower` are lower, -1 if they are higher, 0 if neither is certain, and the difference of the
        means with its interval as text, which is empty if runs diverged.
    """
    if math.inf not in (*lower, *higher):
        middle, half = welch(lower, higher)
        return (middle > half) - (middle < -half), f"{middle:+.2f} ± {half:.2f}"
    if len({*map(math.isinf, lower)}) == len({*map(math.isinf, higher)}) == 1:  # all or none of each diverged
        return math.isinf(higher[0]) - math.isinf(lower[0]), ""
    return 0, ""


def _error(run, split):
    """Returns the error of a run in percent, which is infinite if it diverged, or None if it has not finished."""
    if run.diverged_at():
        return math.inf
    return 100 * line["error"] if run.finished() and (line := run.last(split)) else None


def welch(first, second):
    """Returns the mean of `second` minus the mean of `first`, and half the width of its 95 % confidence interval.

    The interval is that of Welch's t-test, which does not assume equal variances. It is infinite if neither sample
    varies: errors are multiples of one image, so seeds that agree exactly agree by chance.

    Args:
        first: Sequence of at least two numbers.
        second: Sequence of at least two numbers.
    """
    from scipy.stats import ttest_ind

    difference = statistics.fmean(second) - statistics.fmean(first)
    if len(set(first)) == len(set(second)) == 1:
        return difference, math.inf
    with warnings.catch_warnings():  # SciPy warns if one of the samples does not vary; the interval is still right
        warnings.simplefilter("ignore", RuntimeWarning)
        interval = ttest_ind(second, first, equal_var=False).confidence_interval(0.95)
    return difference, float(interval.high - interval.low) / 2


def _mean(values):
    if math.inf in values:
        return f"diverged in {values.count(math.inf)} of {len(values)}"
    return f"{statistics.fmean(values):.2f} (n = {len(values)})" if values else ""
