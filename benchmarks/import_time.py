"""Measures the time that `import allconv_resnet` adds to `import keras`, alternating between new processes.

python benchmarks/import_time.py [--pairs 9]
"""

import argparse
import subprocess
import sys

from harness import elapsed_seconds, spread, write_figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=9)
    options = parser.parse_args()

    def imports(module):
        command = [sys.executable, "-c", f"import {module}"]
        return elapsed_seconds(lambda: subprocess.run(command, check=True, stderr=subprocess.DEVNULL))

    imports("keras"), imports("allconv_resnet")  # compiles the bytecode
    pairs = [(imports("keras"), imports("allconv_resnet")) for _ in range(options.pairs)]
    keras, extra = spread([a for a, _ in pairs]), spread([b - a for a, b in pairs])
    for name, values in (("import keras", keras), ("added by import allconv_resnet", extra)):
        print(
            "{name:40} min {min:.3f} s   median {median:.3f} s   max {max:.3f} s   (n = {n})".format(
                name=name, **values
            )
        )
    write_figures("import_time", {"keras_seconds": keras, "extra_seconds": extra})


if __name__ == "__main__":
    main()
