"""TensorBoard events of a run. They are not written if the package tensorboard is not installed."""

import contextlib
from pathlib import Path

from allconv_resnet import files
from allconv_resnet.errors import reason


class Events:
    """Writes numbers as TensorBoard events, each split to a directory of its own.

    Args:
        directory: Path.
        step: Integer, step from which the run continues. Events of later steps are removed, since they will be written
            again.
        say: Function that shows a message to the user.
    """

    def __init__(self, directory, step, say):
        self.directory, self._writers, self._new_writer = Path(directory), {}, None
        try:
            from tensorboard.summary import Writer
        except ImportError:
            say("TensorBoard events are not written, since the package tensorboard is not installed")
        else:
            self._new_writer = Writer
            for path in sorted(self.directory.glob("*/events.out.tfevents.*")):
                remove_later_events(path, step)

    def add(self, step, split, values):
        """Writes numbers.

        Args:
            step: Integer, number of steps made.
            split: String.
            values: Dictionary of numbers by name.
        """
        if self._new_writer is None:
            return
        with _as_os_error():
            if split not in self._writers:
                self._writers[split] = self._new_writer(str(self.directory / split))
            for name, value in values.items():
                self._writers[split].add_scalar(name, value, step)

    def flush(self):
        """Writes what is still in memory to the disk."""
        with _as_os_error():
            for writer in self._writers.values():
                writer.flush()

    def close(self):
        """Closes the files, and ends the threads that write them."""
        with _as_os_error():
            for writer in self._writers.values():
                writer.close()


@contextlib.contextmanager
def _as_os_error():
    """Returns a context manager that raises `OSError` for errors of TensorFlow's files, as Python's files do."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # the thread of the writer raises TensorFlow's errors, such as ResourceExhaustedError
        raise OSError(f"TensorBoard events cannot be written: {reason(error)}") from error


def remove_later_events(path, step):
    """Removes the events of later steps from a file of TensorBoard events.

    A file that TensorBoard cannot read is left as it is.

    Args:
        path: Path of the file.
        step: Integer, the last step to keep.
    """
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    try:
        events = list(RawEventFileLoader(str(path)).Load())
        kept = [event for event in events if Event.FromString(event).step <= step]
    except Exception:  # the loaders of TensorBoard and TensorFlow raise different types
        return
    if len(kept) == len(events):
        return
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        writer = RecordWriter(file)
        for event in kept:
            writer.write(event)
