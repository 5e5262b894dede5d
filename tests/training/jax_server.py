"""A process that has imported Keras on JAX, and forks each run: then a run on JAX starts in a fraction of a second.

It reads requests from standard input, one a line, and answers each on a line: `["run", ...]` with the number of the
process, `["poll", number]` with its exit status or None. JAX starts its threads when it is first used, in the children.
"""

import json
import os
import signal
import sys

import matplotlib.figure  # noqa: F401 - imported once, for all runs
import sklearn.datasets  # noqa: F401
from training.runs import run_command

import allconv_resnet.training.engines.jax
import allconv_resnet.training.loop  # noqa: F401

ended = {}


def run(call):
    number = os.fork()
    if number:
        return number
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background ignores it
    status = 1
    try:
        run_command(*call)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def poll(number):
    if number not in ended:
        done, status = os.waitpid(number, os.WNOHANG)
        if not done:
            return None
        ended[number] = os.waitstatus_to_exitcode(status)
    return ended[number]


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the children print is no answer
    for line in sys.stdin:
        what, argument = json.loads(line)
        print(json.dumps({"run": run, "poll": poll}[what](argument)), file=answers)
