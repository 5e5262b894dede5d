"""How every command prints and ends: one sentence for what the user can mend, and the exit status."""

import contextlib
import errno
import os
import signal
import sys

from allconv_resnet.errors import BadInput, RunFailed
from allconv_resnet.interrupts import STATUS, interruptible
from allconv_resnet.progress import say

FILE_SYSTEM = {
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP), 2),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EIO), 1),
}
"""The exit status for errors of the file system that are no bugs of a program."""


@contextlib.contextmanager
def printing():
    """Returns a context manager for commands that print results.

    A reader that closes the output early, such as `head`, ends the process in silence with the status of SIGPIPE.
    Characters that the encoding of the terminal does not have are printed as escapes.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at its end
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:  # it is not that of the standard output
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise RunFailed(f"The output cannot be written: {error.strerror}") from error


def guarded(run):
    """Returns the exit status of `run()`. Bad input, failed runs and Ctrl-C print one sentence, and bugs a traceback.

    Paths that this user may not read or write are bad input, wherever they are found to be so.

    A command whose standard output is closed early, for instance by `| head`, ends without a message.
    """
    try:
        with interruptible():
            status = run()
    except BadInput as error:
        say(f"error: {error}")
        status = 2
    except RunFailed as error:
        say(f"failed: {error}")
        status = 1
    except BrokenPipeError:
        status = 128 + signal.SIGPIPE
    except OSError as error:
        if error.filename is None or error.errno not in FILE_SYSTEM:
            raise
        say(f"error: {os.fsdecode(error.filename)}: {error.strerror}")
        status = FILE_SYSTEM[error.errno]
    except KeyboardInterrupt:
        say("Stopped by Ctrl-C")
        status = STATUS
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # Python itself would fail to flush it at the end of the process
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except AttributeError:  # the shell has closed it, and it is None
            pass
    return status
