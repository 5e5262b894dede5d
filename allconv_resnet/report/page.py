"""What a page shows: the classes that a `page.py` is written with, and the page of a directory that has none."""

import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from allconv_resnet.errors import BadInput

HOW_TO_READ = (
    "Errors are percentages. Each figure is the mean ± standard deviation over the seeds that have finished, at the "
    "last step. If none has finished, it is that over all seeds at the last step that all of them have passed. The "
    "training loss and the training error are means over the steps since the previous line of the log, "
    "on the images as the steps saw them: augmented, with label smoothing, dropout and batch statistics where a recipe "
    "has them. The minutes are the time of the training steps. The processor minutes are the time of the whole process "
    "on all its cores from the first step to the last, including the evaluations between them. If a run was stopped "
    'and resumed, the time between its last line and the stop is not counted. A "+" after a code version means that '
    "the code had changes that were not yet committed."
)


class Training(NamedTuple):
    """Runs of one recipe under several seeds, in the run directories `NAME` or `NAME/*`.

    Args:
        name: Directory below the page's directory.
        what: Sentence that says what is trained, in Markdown.
        command: Command line of a run.
        seeds: How many seeds the page asks for.
    """

    name: str
    what: str
    command: str
    seeds: int = 3


class Section(NamedTuple):
    """Trainings that share a table.

    Args:
        title: Heading.
        text: Markdown above the table.
        trainings: Tuple of `Training`, one for each row.
        figure: Path of a PNG, relative to the page, in which the test errors of all trainings of the section are drawn
            together. If it is None, the page shows the curves of each training that has several seeds.
        against: `"processor minutes"` or `"steps"`, the horizontal axis of that figure.
        notes: Tuple of sentences, in Markdown. They become a list below the table.
        curves: Names of trainings whose curves are drawn although they have only one run.
        show_single_runs: Whether the page also shows the `curves.png` that the run of a one-run training drew.
    """

    title: str
    text: str
    trainings: tuple[Training, ...]
    figure: str | None = None
    against: str = "processor minutes"
    notes: tuple[str, ...] = ()
    curves: tuple[str, ...] = ()
    show_single_runs: bool = False


class Claim(NamedTuple):
    """The claim that one training's error at the last step is below another's. The logs of the seeds decide it.

    Args:
        what: Sentence, in Markdown.
        source: Who makes the claim.
        lower: Name of the training whose error is said to be the lower one.
        higher: Name of the other training.
        split: Images that the error is measured on, `"test"` or `"train"`.
        verdicts: What is said if the error is lower, and if it is not, in Markdown.
    """

    what: str
    source: str
    lower: str
    higher: str
    split: str = "test"
    verdicts: tuple[str, str] = ("reproduces", "**does not reproduce**")


class Measurement(NamedTuple):
    """A JSON file that a benchmark wrote, summarized in one row.

    Args:
        file: Path of the JSON, relative to the page. A glob pattern gives a row for each file that it matches.
        what: What was measured, in Markdown.
        command: Command line that writes the file.
        summary: Function from the content of the JSON to the text of the row. The content must have an `environment`,
            as `allconv_resnet.environment.describe` returns it.
    """

    file: str
    what: str
    command: str
    summary: Callable[[dict], str]


class Comparison(NamedTuple):
    """JSON files that hold many settings each, shown in a table of their own.

    Args:
        title: Heading.
        text: Markdown above the table.
        commands: Dictionary from the path of a file, or a glob pattern, to the command line that writes it.
        columns: Names of the columns. The page adds the hardware and the log.
        rows: Function from the content of a JSON to a list of rows. A row is a pair: its cells, and the list of the
            commits that it was measured at, which is empty if they are those of the file.
        figure: Path of a PNG, relative to the page, for the ratios; or None.
        ratios: Function from the content of a JSON to what the figure shows: a list of pairs of a setting and a
            dictionary from the name of each peer to its `min`, `median` and `max`.
        axis: Label of the ratios in the figure.
    """

    title: str
    text: str
    commands: dict[str, str]
    columns: tuple[str, ...]
    rows: Callable[[dict], list[tuple[tuple[str, ...], list[str]]]]
    figure: str | None = None
    ratios: Callable[[dict], list[tuple[str, dict]]] | None = None
    axis: str = "ratio to each peer"


@dataclass(frozen=True)
class Page:
    """What the page of a directory of runs must show. What has no log yet is shown as not run.

    Trainings that are found in the directory and are in no section get a section of their own.

    Args:
        introduction: Markdown, with the title of the page.
        sections: Tuple of `Section`.
        claims: Tuple of `Claim`.
        claims_text: Markdown above the table of the claims.
        comparisons: Tuple of `Comparison`.
        measurements: Tuple of `Measurement`.

    Raises:
        BadInput: if two trainings have one name, or a claim names a training that is in no section.
    """

    introduction: str
    sections: tuple[Section, ...] = ()
    claims: tuple[Claim, ...] = ()
    claims_text: str = ""
    comparisons: tuple[Comparison, ...] = ()
    measurements: tuple[Measurement, ...] = ()

    def __post_init__(self):
        names = self.names()
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise BadInput(f"Expected trainings with different names. Received: {', '.join(twice)} more than once")
        for claim in self.claims:
            if missing := {claim.lower, claim.higher}.difference(names):
                raise BadInput(
                    f"Expected claims about trainings of the page. Received: {claim.what!r} about {min(missing)!r}"
                )
            if claim.split not in ("test", "train"):
                raise BadInput(f"Expected a claim about test or train. Received: {claim.what!r} about {claim.split!r}")

    def names(self):
        """Returns the list of the names of all trainings."""
        return [training.name for section in self.sections for training in section.trainings]


def neutral_page(directory):
    """Returns the `Page` of a directory that has no `page.py`. It says nothing about the runs but what their logs say.

    Args:
        directory: Path.
    """
    title = Path(directory).resolve().name
    return Page(f"# {title}\n\nThis page shows the runs of this directory. {HOW_TO_READ}\n")


def read_page(directory):
    """Returns the `Page` that `directory/page.py` defines as `PAGE`, or None if there is no such file.

    Args:
        directory: Path. The file is Python code and is executed.

    Raises:
        BadInput: if the file cannot be executed or does not define a `Page`.
    """
    path = Path(directory) / "page.py"
    if not path.exists():
        return None
    expected = f"Expected {path} to define PAGE, an allconv_resnet.report.Page."
    try:
        page = runpy.run_path(str(path)).get("PAGE")
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise BadInput(f"{expected} Received: {type(error).__name__}: {error}") from error
    if not isinstance(page, Page):
        raise BadInput(f"{expected} Received: PAGE={page!r}")
    return page
