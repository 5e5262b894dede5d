"""Which version of the code made a run."""

import subprocess
from pathlib import Path


def commit():
    """Returns the commit of the package's checkout, with `+changes` if files differ from it; None outside of one."""
    here = Path(__file__).parent

    def git(*arguments):
        return subprocess.run(
            ["git", "-C", here, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
