"""All benchmarks of the speed of the package, from one command.

Run on an idle machine; about 40 minutes on two cores, 5 with `--quick`:

    python -m benchmarks.speed --output benchmarks/results

Each part is a separate command that describes its measurement. Existing files of the parts are
overwritten.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.rows import replace_file

# name of the file: its command
PARTS = {
    "around": "around --repeats 3",
    "pipeline": "pipeline --batches 4 --threads 1 2 4",
    "block": "block --repeats 3",
    "realised": "realised --repeats 3",
    "realised_bfloat16": "realised --pairs b16_384 --trained --policy mixed_bfloat16 "
    "--backends torch --repeats 3",
    "peers": "peers --modes eager --policies float32 --batch-sizes 8 --repeats 2",
    "token_merging": "retrofit_speed token_learner:3:8 token_merging:3:8 --backends tensorflow "
    "--repeats 5",
    "vector_attention": "vector_attention --repeats 1",
    "growth": "growth --backends jax --repeats 1",
}
QUICK = {
    "around": "around --what imports --repeats 1",
    "block": "block --tokens 197 --repeats 3 --backends jax torch",
    "realised": "realised --pairs b16_224 --repeats 3",
    "peers": "peers --peers timm --steps inference --modes eager --policies float32 "
    "--batch-sizes 8 --repeats 3",
    "vector_attention": "vector_attention --repeats 1 --forms direct ours --backends jax",
    "growth": "growth --axes resolution --sizes 224 320 448 640 --repeats 1 --backends jax",
}


def main(arguments=None):
    """Run the parts one after another, and print the time of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="parts to run; default: all")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args(arguments)
    parts = QUICK if options.quick else PARTS
    if slow := [part for part in options.parts or () if part not in parts]:
        parser.error(
            f"--parts must have a quick form ({', '.join(QUICK)}); omit --quick for the others. "
            f"Received: --quick --parts {' '.join(slow)}"
        )
    for part, line in parts.items():
        if part not in (options.parts or PARTS):
            continue
        output = options.output / f"{part}.csv"
        replace_file(output)  # `peers` would continue its file
        module, *chosen = line.split()
        start = time.perf_counter()
        command = [sys.executable, "-m", f"benchmarks.{module}", *chosen, "--output", str(output)]
        subprocess.run(command, check=True)
        print(f"{part}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
