"""Writes constraints.txt, the versions of all packages that any extra of setup.cfg installs.

    python docker/constraints.py              # adds what is missing and removes what nothing needs any more
    python docker/constraints.py --upgrade    # takes the newest versions that fit together

pip resolves all extras together without installing anything.
"""

import json
import subprocess
import sys
import tempfile
from configparser import ConfigParser
from pathlib import Path

from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docker" / "constraints.txt"
HEADER = (
    "# The versions of all packages of all extras, also those of CUDA. `python docker/constraints.py` wrote them.\n"
)


def extras():
    """Returns the names of all extras in setup.cfg."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    return sorted(config["options.extras_require"])


def resolve(*options):
    """Returns the version of every package that an installation of all extras would have, by name.

    Args:
        *options: Strings, further options of pip.

    Raises:
        subprocess.CalledProcessError: if they cannot be installed together.
    """
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        what = f"{ROOT}[{','.join(extras())}]"
        subprocess.run([*command, "--report", report, *options, what], check=True, capture_output=True, text=True)
        found = [each["metadata"] for each in json.loads(report.read_text())["install"]]
    # A local version, such as that of a PyTorch without CUDA, is that of one registry.
    names = {canonicalize_name(each["name"]): each["version"].partition("+")[0] for each in found}
    return {name: version for name, version in sorted(names.items()) if name != "allconv-resnet"}


if __name__ == "__main__":
    options = [] if "--upgrade" in sys.argv else ["--constraint", str(FILE)]
    FILE.write_text(HEADER + "".join(f"{name}=={version}\n" for name, version in resolve(*options).items()))
