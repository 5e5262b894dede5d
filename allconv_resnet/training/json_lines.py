"""The logs of a run, metrics.jsonl and evaluations.jsonl, with one JSON object per line.

A line that cannot be read (a bad disk, an editor, two processes) is left out, and only that line.
"""

import functools
import json
from pathlib import Path

from allconv_resnet import files
from allconv_resnet.errors import BadInput
from allconv_resnet.part import LARGEST
from allconv_resnet.progress import say


def read(path):
    """Returns the lines of a log that can be read as dictionaries, or an empty list if the file does not exist.

    A last line that a kill cut short is left out. If other lines are left out, the first call for this file says so on
    standard error.

    Args:
        path: Path of the file.

    Raises:
        BadInput: if the file cannot be opened.
    """
    lines, damaged, _ = _parse(path)
    if damaged:
        _say_once(f"{path}: {_left_out(damaged)}")
    return lines


def repair(path, say, last_step=LARGEST):
    """Removes the lines of a log that cannot be read, and those of later steps, and returns the others.

    Args:
        path: Path of the file, which is created if it does not exist. If a line besides a last one that a kill cut
            short cannot be read, the file is copied to `NAME.damaged-1` beforehand.
        say: Function that shows a message to the user.
        last_step: Integer, step of the last line to keep.

    Raises:
        BadInput: if the file cannot be opened.
    """
    lines, damaged, whole = _parse(path)
    kept = [line for line in lines if line["step"] <= last_step]
    if damaged:
        say(f"{path}: {_left_out(damaged)}, and {files.copy_damaged(path)} has the file as it was")
    if not whole or damaged or len(kept) < len(lines):
        files.write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
    return kept


def _parse(path):
    """Returns the readable lines, the numbers of the damaged ones, and whether the file exists and ends with a line."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        return [], [], False
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error
    *rows, rest = content.split(b"\n")
    parsed = [_parse_line(row) for row in rows]
    damaged = [number for number, line in enumerate(parsed, 1) if line is None]
    lines = [line for line in parsed if line is not None]
    if rest and (last := _parse_line(rest)):
        lines.append(last)
    return lines, damaged, not rest


def _parse_line(row):
    """Returns a line as a dictionary, or None if it is not one of a log."""
    try:
        line = json.loads(row.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or not isinstance(line.get("split"), str):
        return None
    step = line.get("step")
    if type(step) is not int or not 0 <= step < LARGEST:
        return None
    numbers = [value for name, value in line.items() if name != "split"]
    measured = {"loss", "error"} <= line.keys()
    return line if measured and all(type(value) in (int, float) for value in numbers) else None


def _left_out(numbers):
    shown = ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
    return f"line {shown} cannot be read and is left out" if len(numbers) == 1 else (
        f"lines {shown} cannot be read and are left out"
    )  # fmt: skip


_say_once = functools.cache(say)
