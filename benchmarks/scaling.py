"""Computes how many machines can share the training of the ImageNet network before their connections are too slow.

    python benchmarks/scaling.py                 tables for 2, 6, 16 and 64 machines (takes seconds)
    python benchmarks/scaling.py --check         the same, and a check against real jobs of two workers (takes minutes)

In synchronous training every machine sends and receives 2 (N - 1) / N times the bytes of the gradients (a ring
all-reduce) after its own computation. No communication overlaps with the backward pass, so the figures are
conservative. In asynchronous training every worker reads the weights, computes, and sends its gradients. All workers
share the links of the parameter servers, which transfer in order of arrival. This is simulated event by event.
docs/scaling.md has the conclusions.
"""

import argparse
import heapq
import statistics

import numpy as np
from harness import write_figures
from loopback import check

MACHINES = (2, 6, 16, 64)
BYTES = 4 * 35_673_120  # the gradients of acr.imagenet_resnet() in float32
GIGABIT = 1e9 / 8
STEP_SECONDS = {
    # Six machines made 700,000 steps in a week, so that one machine made a step in 5.2 s.
    "the paper's machines of 8 GPUs": 6 * 7 * 24 * 3600 / 700_000,
    "ten times as fast": 0.52,
    "a hundred times as fast": 0.052,
}


def all_reduce_seconds(machines, size, bandwidth, latency=0.0):
    """Returns the time of a ring all-reduce in seconds.

    Args:
        machines: Integer, number of machines.
        size: Number of bytes.
        bandwidth: Bytes per second that a machine can send and, at the same time, receive.
        latency: Seconds of each of the 2 (N - 1) consecutive messages.
    """
    return 2 * (machines - 1) * (size / machines / bandwidth + latency)


def bandwidth_for(machines, size, compute, efficiency):
    """Returns the bandwidth (bytes per second) at which computation takes the part `efficiency` of a step's time."""
    return 2 * (machines - 1) / machines * size / (compute * (1 / efficiency - 1))


def simulate(workers, servers, compute, size, bandwidth, steps=20_000, jitter=0.1, pause=0.0, seed=0):
    """Simulates asynchronous training.

    Args:
        workers: Integer, number of workers.
        servers: Integer, number of parameter servers, each with an equal part of the weights and its own link.
        compute: Median time in seconds of the computation of a step.
        size: Number of bytes of the weights, and of the gradients.
        bandwidth: Bytes per second of a link in each direction.
        steps: Integer, number of updates to simulate.
        jitter: Standard deviation of the logarithm of the computing time.
        pause: Seconds between a worker's update and its next read.
        seed: Integer.

    Returns:
        Dictionary with `updates_per_second` and the `mean`, 95th percentile (`p95`) and `max` of the staleness, the
        number of updates between reading the weights and changing them. The first tenth of the updates is left out.
    """
    rng = np.random.default_rng(seed)
    free = {"read": 0.0, "send": 0.0}  # time at which the servers' links are next free in each direction

    def transfer(way, now):
        begin = max(now, free[way])
        free[way] = begin + size / servers / bandwidth
        return begin + max(size / bandwidth, size / servers / bandwidth)

    events = [(compute * rng.random(), worker, "read") for worker in range(workers)]
    heapq.heapify(events)
    read_at, version, staleness, times = {}, 0, [], []
    while version < steps:
        now, worker, event = heapq.heappop(events)
        if event == "read":
            read_at[worker] = version
            ready = transfer("read", now) + compute * np.exp(jitter * rng.standard_normal())
            heapq.heappush(events, (ready, worker, "send"))
        elif event == "send":
            heapq.heappush(events, (transfer("send", now), worker, "applied"))
        else:
            staleness.append(version - read_at[worker])
            version += 1
            times.append(now)
            heapq.heappush(events, (now + pause, worker, "read"))
    kept = slice(steps // 10, None)
    return {
        "updates_per_second": (len(times[kept]) - 1) / (times[-1] - times[kept][0]),
        "mean": statistics.fmean(staleness[kept]),
        "p95": float(np.percentile(staleness[kept], 95)),
        "max": max(staleness[kept]),
    }


def synchronous_table():
    """Returns a row for each speed and number of machines with the Gbit/s for an efficiency of 50 % and of 90 %."""
    return [
        {
            "speed": speed,
            "step_seconds": compute,
            "machines": machines,
            **{
                f"gigabits_{percent}": bandwidth_for(machines, BYTES, compute, percent / 100) / GIGABIT
                for percent in (50, 90)
            },
        }
        for speed, compute in STEP_SECONDS.items()
        for machines in MACHINES
    ]


def asynchronous_table(bandwidth=10 * GIGABIT):
    """Returns a row for each speed, number of workers and number of servers (one, and one for every three workers)."""
    rows = []
    for speed, compute in STEP_SECONDS.items():
        for workers in MACHINES:
            for servers in sorted({1, -(-workers // 3)}):
                result = simulate(workers, servers, compute, BYTES, bandwidth)
                alone = 1 / (compute + 2 * BYTES / bandwidth)
                scaling = result["updates_per_second"] / alone
                rows.append({"speed": speed, "workers": workers, "servers": servers, "scaling": scaling, **result})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="run real jobs of two workers as well")
    options = parser.parse_args()
    print(f"gradients: {BYTES / 1e6:.0f} MB per step")
    synchronous = synchronous_table()
    for row in synchronous:
        print(
            "synchronous, {speed} ({step_seconds:.3g} s): {machines:2} machines need "
            "{gigabits_50:8.3f} Gbit/s for 50 %, {gigabits_90:8.3f} for 90 %".format(**row)
        )
    asynchronous = asynchronous_table()
    for row in asynchronous:
        print(
            "asynchronous at 10 Gbit/s, {speed}: {workers:2} workers, {servers:2} ps: {scaling:5.1f} times one worker, "
            "staleness {mean:5.1f} (95 %: {p95:.0f}, max: {max})".format(**row)
        )
    figures = {"gradient_bytes": BYTES, "synchronous": synchronous, "asynchronous": asynchronous}
    if options.check:
        figures["check"] = check(simulate)
    write_figures("scaling", figures)


if __name__ == "__main__":
    main()
