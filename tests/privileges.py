"""Another user than root, for tests of directories that may not be entered or written to."""

import contextlib
import os


@contextlib.contextmanager
def without_privileges():
    """Root may enter every directory, so it becomes another user for a while."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # nobody
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
