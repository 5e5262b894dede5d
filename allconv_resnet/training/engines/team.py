"""Agreement of synchronous workers on the recipe, the run directory, and the steps at which they begin and stop."""

import json
import secrets
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tensorflow as tf

from allconv_resnet.errors import BadInput, RunFailed
from allconv_resnet.training.engines.reasons import tensorflow_reason

AGREE_EVERY = 5  # steps between two checks whether a worker was told to stop
GONE = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
)


class Team:
    """The processes of a synchronous job. For a single process all methods return at once.

    Args:
        strategy: `tf.distribute.Strategy`.
        cluster: `Cluster` of a multi-worker job, or None.
    """

    def __init__(self, strategy, cluster=None):
        self.strategy = strategy
        self.tasks = cluster.workers() if cluster else []
        self.alone = len(self.tasks) < 2
        self.this = cluster.this if cluster else None
        self.chief = self.alone or self.this == self.tasks[0]

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)])
    def _sum(self, table):
        def replica_sum(table):
            return tf.distribute.get_replica_context().all_reduce("SUM", tf.identity(table))

        return self.strategy.experimental_local_results(self.strategy.run(replica_sum, args=(table,)))[0]

    def gather(self, text):
        """Returns the texts of all workers.

        Args:
            text: String, the text of this worker.

        Returns:
            List of strings in the order of the workers.
        """
        if self.alone:
            return [text]
        content = text.encode()
        longest = max(self._rows([len(content)])[:, 0])
        rows = self._rows([len(content), *content.ljust(longest)])
        return [bytes(row[1 : 1 + row[0]].astype("uint8")).decode() for row in rows]

    def _rows(self, values):
        # Each worker contributes its own row and zeros for the others, and the sum has all rows. `gather` of
        # tf.distribute would compile a function for each call, and it fails on empty tensors.
        row, devices = self.tasks.index(self.this), self.strategy.num_replicas_in_sync // len(self.tasks)
        table = np.zeros((len(self.tasks), len(values)), np.int32)
        table[row] = values
        return self._sum(table).numpy() // devices

    def require_same(self, **what):
        """Makes sure that all workers have the same values.

        Args:
            **what: Values by name, of types that JSON has.

        Raises:
            BadInput: on every worker, if values differ. The message names the values and the workers.
        """
        first, *others = map(json.loads, self.gather(json.dumps(what)))
        for task, other in zip(self.tasks[1:], others, strict=True):
            if first != other:
                differences = [
                    f"{key} is {first[key]!r} and {other.get(key)!r}" for key in first if first[key] != other.get(key)
                ]
                where = f"on {self.tasks[0]} and {task}"
                raise BadInput(f"All workers must have the same values, but {where} {'; '.join(differences)}")

    def require_shared(self, run_dir):
        """Makes sure that all workers share the run directory of the first one.

        Args:
            run_dir: Path of the run directory.

        Raises:
            BadInput: on every worker, if some see another directory. The message names them.
        """
        if self.alone:
            return
        mark = Path(run_dir) / ".team"
        secret = secrets.token_hex(8) if self.chief else ""
        if self.chief:
            mark.write_text(secret)
        secret = self.gather(secret)[0]
        verdicts = self.gather("" if self.chief or _comes_to_read(mark, secret) else "elsewhere")
        if self.chief:
            mark.unlink()
        if any(verdicts):
            apart = [str(task) for task, verdict in zip(self.tasks, verdicts, strict=True) if verdict]
            raise BadInput(
                f"The run directory {run_dir} must be shared by all workers, for instance over NFS, "
                f"but {', '.join(apart)} does not see what {self.tasks[0]} writes there"
            )

    def stop(self, signal, step):
        """Returns the number of the signal that stops the run before the next step, the same on all workers, or None.

        Args:
            signal: Number of the signal that this worker has received, or None.
            step: Integer, number of steps made.
        """
        if self.alone:
            return signal
        if step % AGREE_EVERY:
            return None
        return int(self._rows([signal or 0]).max()) or None

    @contextmanager
    def together(self, run_dir):
        """Returns a context manager that replaces TensorFlow's errors about other workers by one sentence.

        Args:
            run_dir: Path of the run directory.

        Raises:
            RunFailed: if another worker has ended or cannot be reached.
        """
        try:
            yield
        except GONE as error:
            if self.alone:
                raise
            raise RunFailed(
                f"A worker of {', '.join(map(str, self.tasks))} has ended or cannot be reached"
                f"{tensorflow_reason(error)}: "
                f"the last checkpoint in {run_dir} is kept, and the same command on all workers continues from it"
            ) from error


def _comes_to_read(path, text):
    for _ in range(20):  # a network file system may show a new file late
        try:
            if path.read_text() == text:
                return True
        except OSError:
            pass
        time.sleep(0.25)
    return False
