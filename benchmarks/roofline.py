"""Computes the roofline of the train steps of both networks on GPUs, and what 6 machines of 8 of them must exchange.

    python benchmarks/roofline.py            prints the tables and draws docs/roofline.svg (takes seconds)

A convolution is three operations in a step: forward, the gradient of its input and that of its kernel. Each reads its
operands once and writes its result once, in bfloat16, and takes the longer of two times: that of its products and sums
at the peak of the GPU, and that of its bytes at the bandwidth of the memory. ReLUs and additions are taken to be fused
into them. The optimizer reads and writes weights, velocities and gradients in float32. So the bound is optimistic. The
exchange is the ring all-reduce of `scaling.py`, first within a machine, then between machines. docs/scaling.md has the
conclusions.
"""

from pathlib import Path

import numpy as np
from contenders import networks
from scaling import GIGABIT, all_reduce_seconds

PEAK = 989e12  # dense bfloat16 operations per second of an H100 or H200 with SXM, NVIDIA's data sheets
BANDWIDTH = {"H100": 3.35e12, "H200": 4.8e12}  # bytes per second of their memory, NVIDIA's data sheets
NVLINK = 450e9  # bytes per second and direction of a GPU within a machine
LINKS = {"8 x 400 Gbit/s": 3200 * GIGABIT, "400 Gbit/s": 400 * GIGABIT, "100 Gbit/s": 100 * GIGABIT}
MACHINES, GPUS = 6, 8
BATCH = 128
MEASURED = {"cifar": ("H200", 22_200)}  # images per second, results/cifar10/seed0: the fastest 100 steps
NAMES = {"cifar": "table 1, CIFAR-10", "imagenet": "ImageNet"}


def convolutions(task):
    """Returns int64 `[n, 5]`: side of the input and of the output, of the kernel, channels of the input and output."""
    filters, kernel, stride, pool = networks.STEMS[task]
    size = networks.SIZES[task] // stride
    rows, size = [(networks.SIZES[task], size, kernel, 3, filters)], size // pool
    for blocks, width, stride in networks.STAGES[task]:
        for block in range(blocks):
            before, size = size, size // (stride if block == 0 else 1)
            rows += [(before, size, 3, filters, width), (size, size, 3, width, width)]
            filters = width
    return np.array(rows, np.int64)


def parameters(task):
    """Returns the number of trained weights: those of the kernels, since the last layer is not trained."""
    _, _, kernel, inputs, outputs = convolutions(task).T
    return int((kernel**2 * inputs * outputs).sum())


def step(task, batch, bandwidth):
    """Returns operations, bytes and the least seconds of a step, `[n]` for each convolution, and of the optimizer."""
    before, after, kernel, inputs, outputs = convolutions(task).T
    weights = kernel**2 * inputs * outputs
    operations = 2.0 * batch * after**2 * weights
    moved = 2.0 * (batch * (before**2 * inputs + after**2 * outputs) + weights)  # of each of the three operations
    seconds = 3 * np.maximum(operations / PEAK, moved / bandwidth)
    optimizer = (5 * 4 + 2) * parameters(task) / bandwidth  # and a copy of the weights in bfloat16
    return 3 * operations, 3 * moved, seconds, optimizer


def exchange_seconds(task, link):
    """Returns the seconds of the all-reduce of the float32 gradients over 6 machines of 8 GPUs."""
    size = 4 * parameters(task)
    return all_reduce_seconds(GPUS, size, NVLINK) + all_reduce_seconds(MACHINES, size, link)


def main():
    for task in NAMES:
        for gpu, bandwidth in BANDWIDTH.items():
            operations, moved, seconds, optimizer = step(task, BATCH, bandwidth)
            least = seconds.sum() + optimizer
            print(
                f"{NAMES[task]}, {gpu}, {BATCH} images: {operations.sum() / 1e12:.2f} TFLOP, "
                f"{moved.sum() / 1e9:.2f} GB, {operations.sum() / moved.sum():.0f} FLOP/byte "
                f"(ridge {PEAK / bandwidth:.0f}); at least {1e3 * least:.2f} ms, optimizer {1e3 * optimizer:.2f}: {BATCH / least:,.0f} images/s, "
                f"{operations.sum() / least / 1e12:.0f} TFLOP/s"
            )
            if MEASURED.get(task, ("",))[0] == gpu:
                rate = MEASURED[task][1]
                part = rate / BATCH * least
                print(
                    f"    measured {rate:,} images/s, {1e3 * BATCH / rate:.2f} ms a step, "
                    f"{rate / BATCH * operations.sum() / 1e12:.0f} TFLOP/s: {part:.0%} of the bound"
                )
        least = step(task, BATCH, BANDWIDTH["H100"])
        least = least[2].sum() + least[3]
        for part in (1.0, 0.28):
            for name, link in LINKS.items():
                exchange = exchange_seconds(task, link)
                compute = least / part
                print(
                    f"    48 H100, {part:.0%} of the bound, {name}: {1e3 * compute:.2f} ms + {1e3 * exchange:.2f} ms, "
                    f"efficiency {compute / (compute + exchange):.0%}, "
                    f"{MACHINES * GPUS * BATCH / (compute + exchange):,.0f} images/s"
                )
    draw(Path(__file__).resolve().parent.parent / "docs" / "roofline.svg")


def draw(path):
    """Draws operations per second against operations per byte: the roofs, the convolutions, and what was measured."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    x = np.geomspace(10, 3000, 200)
    for (gpu, bandwidth), style in zip(BANDWIDTH.items(), ("-", "--"), strict=True):
        axes.loglog(x, np.minimum(PEAK, x * bandwidth) / 1e12, style, color="0.3", label=f"roof of an {gpu}")
    for (task, name), mark in zip(NAMES.items(), "os", strict=True):
        operations, moved, *_ = step(task, BATCH, BANDWIDTH["H100"])
        intensity = operations / moved
        roof = np.minimum(PEAK, intensity * BANDWIDTH["H100"])
        axes.loglog(intensity, roof / 1e12, mark, alpha=0.5, label=f"convolutions: {name}")
    for task, (gpu, rate) in MEASURED.items():
        operations, moved, *_ = step(task, BATCH, BANDWIDTH[gpu])
        y = rate / BATCH * operations.sum() / 1e12
        axes.plot(
            operations.sum() / moved.sum(),
            y,
            "*",
            color="black",
            markersize=12,
            label=f"measured on an {gpu}: {NAMES[task]}",
        )
    axes.set(xlabel="operations per byte", ylabel="TFLOP/s in bfloat16")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
