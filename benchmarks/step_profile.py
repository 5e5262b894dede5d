"""Shows which kernels of a GPU the train step of table 1 takes its time for, on JAX.

    KERAS_BACKEND=jax python benchmarks/step_profile.py --batch 128

JAX's profiler records some steps, whose kernels are added up by name. The script prints the groups below and the
longest kernels, and writes all to results/benchmarks/step_profile-HARDWARE.json. On a CPU, XLA's operations stand in
for the kernels, so that the script can be tried.
"""

import argparse
import os
import re
import tempfile
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import harness
import jax
from contenders import networks, ours_jax

# The names of the kernels are those of cuDNN and XLA. The first group that matches is taken.
GROUPS = {
    "copies and changes of the layout": r"nchwToNhwc|nhwcToNchw|convertTensor|transpose|memcpy|memset|copy",
    "filter gradients": r"wgrad",
    "input gradients": r"dgrad",
    "forward passes": r"fprop",
    "other convolutions and products": r"conv(?!ert)|xmma|cutlass|cudnn|nvjet|gemm|dot",
}
ELEMENT_WISE = "element-wise operations, reductions and the optimizer"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--steps", type=int, default=20, help="steps that are recorded")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        networks.save("cifar", f"{folder}/weights.npz")
        contender = ours_jax.Contender("cifar", options.batch, options.precision, f"{folder}/weights.npz")
        contender.train(2)  # compiles
        seconds = harness.elapsed_seconds(lambda: contender.train(options.steps)) / options.steps
        with jax.profiler.trace(folder):
            contender.train(options.steps)
        kernels = read(next(Path(folder).rglob("*.xplane.pb")), options.steps)
    groups = grouped({name: milliseconds for name, (_, milliseconds) in kernels.items()})
    print(f"a step of {options.batch} images in {options.precision}: {seconds * 1e3:.2f} ms without the profiler")
    for name, milliseconds in groups.items():
        print(f"{milliseconds:8.3f} ms  {name}")
    longest = sorted(kernels.items(), key=lambda item: -item[1][1])
    for name, (count, milliseconds) in longest[:30]:
        print(f"{milliseconds:8.3f} ms  {count:5.1f} calls  {name[:100]}")
    figures = {"batch": options.batch, "precision": options.precision, "seconds": seconds, "groups": groups}
    figures["kernels"] = {name: {"calls": calls, "milliseconds": ms} for name, (calls, ms) in longest[:100]}
    harness.write_figures(f"step_profile-{harness.hardware()}", figures)


def read(path, steps):
    """Returns the calls and the milliseconds of a step that each kernel takes, by its name, from a profile of JAX."""
    kernels = defaultdict(lambda: [0.0, 0.0])
    planes = list(jax.profiler.ProfileData.from_file(str(path)).planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:GPU")]
    for plane in devices or planes:
        for line in plane.lines:
            if not (line.name.startswith("Stream") if devices else "XLA" in line.name):
                continue
            for event in line.events:
                name = event.name if devices else re.sub(r"[.\d]+$", "", event.name)
                kernels[name][0] += 1 / steps
                kernels[name][1] += event.duration_ns / 1e6 / steps
    return kernels


def grouped(kernels):
    """Returns the milliseconds of each group, the longest first, from those of each kernel."""
    groups = defaultdict(float)
    for kernel, milliseconds in kernels.items():
        matching = (name for name, pattern in GROUPS.items() if re.search(pattern, kernel, re.IGNORECASE))
        groups[next(matching, ELEMENT_WISE)] += milliseconds
    return dict(sorted(groups.items(), key=lambda item: -item[1]))


if __name__ == "__main__":
    main()
