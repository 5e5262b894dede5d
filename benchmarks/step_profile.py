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

GROUPS = {
    "convolutions": r"conv(?!ert)|xmma|cutlass|cudnn|implicit|wgrad|dgrad|fprop|nvjet|gemm|dot",
    "copies and changes of the layout": r"nchw|nhwc|transpose|convertTensor|memcpy|memset|copy",
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
    groups = defaultdict(float)
    for kernel, (_, milliseconds) in kernels.items():
        groups[group(kernel)] += milliseconds
    print(f"a step of {options.batch} images in {options.precision}: {seconds * 1e3:.2f} ms without the profiler")
    for name, milliseconds in sorted(groups.items(), key=lambda item: -item[1]):
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


def group(kernel):
    return next((name for name, pattern in GROUPS.items() if re.search(pattern, kernel, re.I)), ELEMENT_WISE)


if __name__ == "__main__":
    main()
