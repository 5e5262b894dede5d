"""Reads TF_CONFIG, which lists the processes that train together, and waits for the others."""

import contextlib
import json
import os
import socket
import sys
import time
import traceback
from dataclasses import dataclass

from allconv_resnet.errors import BadInput

EVALUATOR = "evaluator"
JOBS = ("chief", "worker", "ps", EVALUATOR)
EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'


@dataclass(frozen=True)
class Task:
    """One process of a job."""

    job: str  # one of JOBS
    index: int
    address: str  # host:port

    def __str__(self):
        return f"{self.job} {self.index} ({self.address})"

    def host_and_port(self):
        """Returns the host, without the brackets of IPv6, and the port as an integer."""
        host, _, port = self.address.rpartition(":")
        return host.strip("[]"), int(port)


@dataclass(frozen=True)
class Cluster:
    """The processes of a job."""

    tasks: tuple[Task, ...]  # the tasks that train; the chief is the first, as in TensorFlow
    this: Task  # the task of this process, which may be an evaluator beside them

    def tasks_of(self, *jobs):
        """Returns the tasks with some kinds of job, such as `"worker"` or `"ps"`."""
        return [task for task in self.tasks if task.job in jobs]

    def workers(self):
        """Returns the tasks that train synchronously. The first of them leads the job."""
        return self.tasks_of("chief", "worker")

    def addresses(self):
        """Returns the addresses of the tasks that train as a dictionary of lists by job."""
        return {job: [task.address for task in self.tasks_of(job)] for job in JOBS if self.tasks_of(job)}

    def asynchronous(self):
        """Returns whether there are parameter servers."""
        return bool(self.tasks_of("ps"))


def read_cluster(environment=None):
    """Returns the cluster that TF_CONFIG describes, or None if it is not set or has no cluster.

    Args:
        environment: Mapping. Defaults to `os.environ`.

    Raises:
        BadInput: if TF_CONFIG is malformed, two tasks have the same address, or the task is not in the cluster.
    """
    text = (os.environ if environment is None else environment).get("TF_CONFIG")
    if not text:
        return None
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(f"TF_CONFIG must be JSON such as {EXAMPLE} ({error}). Received: {text}") from error
    if not isinstance(config, dict):
        raise BadInput(f"TF_CONFIG must be an object such as {EXAMPLE}. Received: {text}")
    if not config.get("cluster"):
        return None
    tasks = _tasks(config["cluster"])
    task = config.get("task")
    if not isinstance(task, dict) or not {"type", "index"} <= set(task):
        raise BadInput(f"TF_CONFIG must say which task this is, as {EXAMPLE} does. Received: {text}")
    for candidate in tasks:
        if (candidate.job, str(candidate.index)) == (task["type"], str(task["index"])):
            return Cluster(tuple(task for task in tasks if task.job != EVALUATOR), candidate)
    raise BadInput(
        f"The task of TF_CONFIG must be one of its cluster: {', '.join(map(str, tasks))}. "
        f"Received: {task['type']} {task['index']}"
    )


def _tasks(cluster):
    if not isinstance(cluster, dict) or not all(isinstance(addresses, list) for addresses in cluster.values()):
        raise BadInput(f"The cluster of TF_CONFIG must be lists of addresses by job, as {EXAMPLE}. Received: {cluster}")
    if unknown := sorted(set(cluster) - set(JOBS)):
        raise BadInput(f"The jobs of TF_CONFIG must be among {', '.join(JOBS)}. Received: {', '.join(unknown)}")
    tasks = tuple(Task(job, index, address) for job in JOBS for index, address in enumerate(cluster.get(job, ())))
    owners = {}
    for task in tasks:
        host, _, port = task.address.rpartition(":") if isinstance(task.address, str) else ("", "", "")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise BadInput(
                f"An address in TF_CONFIG must be host:port. Received: {task.address!r} for {task.job} {task.index}"
            )
        if task.address in owners:
            raise BadInput(
                f"Every task of TF_CONFIG must have its own address. "
                f"Received: {task.address} for {owners[task.address]} and {task.job} {task.index}"
            )
        owners[task.address] = f"{task.job} {task.index}"
    return tasks


def wait_for(peers, this, seconds):
    """Waits until other processes accept connections.

    TensorFlow itself would wait without a limit and without naming them. While it waits, this process listens at its
    own address, since the others wait for it as well.

    Args:
        peers: Sequence of `Task`.
        this: The `Task` of this process.
        seconds: Number, time limit in seconds.

    Raises:
        BadInput: if the port of this process is taken, or others have not answered in time. The message names them.
    """
    missing = {peer: "not tried" for peer in peers if peer != this}
    with _listen(this):
        deadline = time.monotonic() + seconds
        while missing:
            for peer in list(missing):
                if reason := unreachable(peer):
                    missing[peer] = reason
                else:
                    del missing[peer]
            if missing and time.monotonic() > deadline:
                names = ", ".join(f"{peer}: {reason}" for peer, reason in missing.items())
                raise BadInput(f"{this} waited {seconds:g} s for machines of TF_CONFIG that do not answer: {names}")
            if missing:
                time.sleep(0.1)


def unreachable(peer):
    """Returns the reason why a task cannot be reached, or None if it can be reached."""
    try:
        socket.create_connection(peer.host_and_port(), timeout=1).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _listen(task):
    try:  # like TensorFlow, on every interface and at a port that an earlier run may just have closed
        return socket.create_server(("", task.host_and_port()[1]), backlog=128)
    except OSError as error:
        raise BadInput(f"The port of {task} cannot be used on this machine: {error.strerror}") from error


def run_and_exit(run):
    """Runs a function and ends this process of a cluster with the exit status that it returns.

    TensorFlow's server cannot be stopped. At the end of the interpreter it would wait for peers that may have ended.

    Args:
        run: Function without arguments that returns an integer.
    """
    try:
        status = run()
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # the stream is closed, or None
            stream.flush()
    os._exit(status)
