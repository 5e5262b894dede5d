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
    interval contains 0. Only runs that have finished count.

    Args:
        claim: `Claim`.
        found: Dictionary from the name of each training to its runs.
    """
    names = (claim.lower, claim.higher)
    errors = [
        [100 * line["error"] for run in found.get(name, ()) if run.finished() and (line := run.last(claim.split))]
        for name in names
    ]
    cells = [f"`{name}` {_mean(values)}".rstrip() for name, values in zip(names, errors, strict=True)]
    difference, verdict = "", NOT_RUN
    if min(map(len, errors)) == 1:
        verdict = "one seed"
    elif all(errors):
        middle, half = welch(*errors)
        difference = f"{middle:+.2f} ± {half:.2f}"
        yes, no = ("reproduces", "**does not reproduce**") if claim.published else ("holds", "**does not hold**")
        verdict = yes if middle > half else no if middle < -half else "not decided"
    return claim.what, claim.source, claim.split, *cells, difference, verdict


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
    return f"{statistics.fmean(values):.2f} (n = {len(values)})" if values else ""
