"""How long a user waits: `python docs/benchmarks/startup.py`.

Interleaved runs of whole processes: `import miniclip` beside `import numpy`, and `miniclip
zero-shot` with mini-vit beside `import torch; import transformers`. Medians and their
ratios; absolute times are this machine's.
"""

import statistics
import subprocess
import sys
import tempfile
import time

RUNS = 7


def seconds(command):
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main():
    python = [sys.executable, "-c"]
    miniclip = [sys.executable, "-m", "miniclip"]
    with tempfile.TemporaryDirectory() as folder:
        draw = [*miniclip, "draw", "red circle", "--folder", folder]
        subprocess.run(draw, check=True, capture_output=True)
        labels = ["a red circle", "a blue square", "a green triangle"]
        ask = [*miniclip, "zero-shot", f"{folder}/red-circle.png", "--labels", *labels]
        commands = {
            "import numpy": [*python, "import numpy"],
            "import miniclip": [*python, "import numpy, miniclip"],
            "miniclip zero-shot": ask,
            "import torch; import transformers": [*python, "import torch, transformers"],
        }
        for command in commands.values():
            seconds(command)  # compiled code is cached, files are in memory
        times = {name: [] for name in commands}
        for _ in range(RUNS):
            for name, command in commands.items():
                times[name].append(seconds(command))
    median = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        print(f"{name:35} {median[name]:.2f} s  ({min(values):.2f} to {max(values):.2f})")
    print(
        f"import miniclip beyond numpy: {median['import miniclip'] - median['import numpy']:.2f} s"
    )
    ratio = median["miniclip zero-shot"] / median["import torch; import transformers"]
    print(f"zero-shot / import torch and transformers: {ratio:.2f}")


if __name__ == "__main__":
    main()
