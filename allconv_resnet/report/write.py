"""Writes the page of a directory of runs: README.md and its figures, from the logs and nothing else."""

import functools
import shlex
from pathlib import Path

from allconv_resnet.errors import BadInput
from allconv_resnet.files import write_text
from allconv_resnet.report.claims import claim_section
from allconv_resnet.report.figures import draw_comparison, draw_curves, draw_ratios
from allconv_resnet.report.json_logs import comparison_ratios, comparison_section, measurement_section
from allconv_resnet.report.page import Section, Training, neutral_page
from allconv_resnet.report.runs import find_runs
from allconv_resnet.report.tables import finished, link, training_table

MARKER = "<!-- Written by allconv-resnet report. Edit page.py or the logs, not this file. -->"


def write_report(directory, page=None):
    """Writes README.md and the figures of a directory of runs.

    A training NAME has its runs at `directory/NAME` or `directory/NAME/*`. The figure of a training with several
    seeds is `directory/NAME/curves.png`.

    Args:
        directory: Path.
        page: `Page` that says what must be shown. The default shows all trainings of the directory in one table.

    Returns:
        Path of README.md.

    Raises:
        BadInput: if there is no such directory, it has no run and no page, a log in it cannot be read, runs of one
            training differ in more than their seeds, or README.md was written by somebody else. Nothing is written
            then.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise BadInput(f"Expected a directory of runs. Received: {directory} is not a directory")
    path = directory / "README.md"
    if path.exists() and not (path.is_file() and path.read_bytes().startswith(MARKER.encode())):
        raise BadInput(
            f"Expected no README.md, or one that the report wrote, since it would be replaced. Received: {path}, which "
            f"does not begin with {MARKER}"
        )
    found = find_runs(directory)
    if page is None and not found:
        raise BadInput(f"Expected run directories at NAME or NAME/* in {directory}. Received: none that can be read")
    page = page or neutral_page(directory)
    parts, figures = [MARKER, page.introduction], []  # the figures are drawn when all logs have been read
    for section in (*page.sections, *_other_trainings(page, found)):
        runs = {training.name: found[training.name] for training in section.trainings if training.name in found}
        parts.append(_training_section(section, runs, directory))
        parts.extend(_show(section, runs, directory, figures))
    parts += [claim_section(page, found)] if page.claims else []
    for comparison in page.comparisons:
        parts.append(comparison_section(comparison, directory))
        if ratios := comparison_ratios(comparison, directory):
            figures.append(
                functools.partial(draw_ratios, ratios, comparison.title, comparison.axis, directory / comparison.figure)
            )
            parts.append(f"![{comparison.title}: ratios to the peers]({comparison.figure})\n")
    parts += [measurement_section(page.measurements, directory)] if page.measurements else []
    try:
        for draw in figures:
            draw()
        write_text(path, "\n".join(parts))
    except OSError as error:
        raise BadInput(f"The report cannot be written to {directory}: {error.strerror or error}") from error
    return path


def _other_trainings(page, found):
    """Yields a section with the trainings that are in no section of the page, if there are any."""
    names = sorted(set(found) - set(page.names()))
    trainings = tuple(Training(name, "", _command(found[name]), len(found[name])) for name in names)
    if trainings:
        yield Section("Other trainings" if page.sections else "Trainings", "", trainings, show_single_runs=True)


def _training_section(section, found, directory):
    """Returns a section's title, text, table and notes, in Markdown."""
    table = training_table(section.trainings, found, directory)
    notes = "".join(f"- {note}\n" for note in section.notes)
    return "\n\n".join(part for part in (f"## {section.title}", section.text, table) if part) + (
        f"\n{notes}" if notes else ""
    )


def _show(section, found, directory, figures):
    """Yields the images of a section, in Markdown, and appends to `figures` the calls that draw them."""
    counted = {name: [run for run in finished(runs) if run.lines] for name, runs in found.items()}
    counted = {name: runs for name, runs in counted.items() if runs}
    if section.figure and len(counted) > 1:
        path = directory / section.figure
        figures.append(functools.partial(draw_comparison, counted, section.title, path, section.against))
        yield f"![{section.title}: test error against {section.against}]({section.figure})\n"
    for name, runs in counted.items():
        several = len(runs) > 1 or name in section.curves
        curves = (directory / name if several else runs[0].path) / "curves.png"
        if several:
            figures.append(functools.partial(draw_curves, runs, name, curves))
        if (several and not section.figure) or (not several and section.show_single_runs and curves.exists()):
            yield "!" + link(f"{name}: training and test error against steps", curves, directory) + "\n"


def _command(runs):
    """Returns the command of the last session of a run, or an empty string for a packed network, which has none."""
    command = runs[0].sessions[-1].get("command")
    return shlex.join(["python", *command]) if command else ""
