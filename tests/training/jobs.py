"""Jobs of several processes on this machine's loopback, each with its TF_CONFIG."""

import json
import socket
from contextlib import ExitStack


def free_ports(count):
    """Returns ports that nobody listens at."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def configurations(**jobs):
    """Returns the TF_CONFIG of every task, by (job, index), for so many tasks of each job.

    Args:
        **jobs: How many tasks of `chief`, `worker` and `ps`.
    """
    ports = iter(free_ports(sum(jobs.values())))
    cluster = {job: [f"127.0.0.1:{next(ports)}" for _ in range(count)] for job, count in jobs.items()}
    return {
        (job, index): json.dumps({"cluster": cluster, "task": {"type": job, "index": index}})
        for job, count in jobs.items()
        for index in range(count)
    }
