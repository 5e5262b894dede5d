"""The tables of what benchmarks measured, from the JSON files that they write."""

import json

from allconv_resnet.errors import BadInput
from allconv_resnet.report.tables import NOT_RUN, link, markdown, where


def measurement_section(measurements, directory):
    """Returns the section of measurements, in Markdown.

    Args:
        measurements: Tuple of `Measurement`.
        directory: Path of the page.

    Raises:
        BadInput: if a file is not what its command writes.
    """
    rows = [("what", "figure", "command", "where", "log")]
    for measurement in measurements:
        command = f"`{measurement.command}`"
        logs = list(_read(measurement.file, measurement.command, measurement.summary, directory))
        for path, environment, summary in logs:
            log = link(path.name, path, directory)
            rows.append((measurement.what, summary or NOT_RUN, command, where(environment), log))
        if not logs:
            rows.append((measurement.what, NOT_RUN, command, "", ""))
    return "## Measurements\n\n" + markdown(rows)


def comparison_section(comparison, directory):
    """Returns the section of a comparison, in Markdown: its title, its text with the commands, and its table.

    Args:
        comparison: `Comparison`.
        directory: Path of the page.

    Raises:
        BadInput: if a file is not what its command writes.
    """
    rows = [(*comparison.columns, "where", "log")]
    for file, command in comparison.commands.items():
        logs = list(_read(file, command, comparison.rows, directory))
        for path, environment, found in logs:
            rows += [(*cells, where(environment, commits), link("log", path, directory)) for cells, commits in found]
        if not logs:
            rows.append((f"`{command}`", *[NOT_RUN] * (len(rows[0]) - 1)))
    commands = ", ".join(f"`{command}`" for command in comparison.commands.values())
    return f"## {comparison.title}\n\n{comparison.text} {commands}.\n\n" + markdown(rows)


def comparison_ratios(comparison, directory):
    """Returns the rows of a comparison's figure: pairs of a setting and the ratios to each peer.

    Args:
        comparison: `Comparison`.
        directory: Path of the page.
    """
    drawn = []
    for file, command in comparison.commands.items() if comparison.figure else ():
        logs = list(_read(file, command, comparison.ratios, directory))
        for _, environment, ratios in logs:
            machine = f"\n{environment['cpu'].replace('(R)', '')}" if len(logs) > 1 else ""
            drawn += [(setting + machine, values) for setting, values in ratios]
    return drawn


def spread(values, form=".3g"):
    """Returns a median with the minimum, the maximum and the number of repetitions, as text.

    Args:
        values: Dictionary of `median`, `min`, `max` and `n`.
        form: Format of the numbers.
    """
    median, least, most = (format(values[key], form) for key in ("median", "min", "max"))
    return f"{median} ({least} to {most}, n = {values['n']:g})"


def _read(file, command, read, directory):
    """Yields for each JSON that a pattern matches its path, its environment, and what `read` makes of it."""
    for path in sorted(directory.glob(file)):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            where(content["environment"])
            yield path, content["environment"], read(content)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise BadInput(f"Expected what `{command}` writes in {path}. Received: {error!r}") from error
