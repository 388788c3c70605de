"""Describes the command and the machine of a measurement."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path


def command():
    """Return the command line of this process, as typed in a shell."""
    backend = os.environ.get("KERAS_BACKEND")
    start = [f"KERAS_BACKEND={backend}"] if backend else []
    return " ".join([*start, f"python -m benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]])


def machine(*libraries):
    """Return CPU, cores, NVIDIA GPUs, Python and versions of libraries, in one line."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    found = [f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"]
    if shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        found += subprocess.run(asked, capture_output=True, text=True).stdout.splitlines()
    found.append(f"Python {platform.python_version()}")
    for library in libraries:
        names = (library, f"{library}-nightly")
        versions = [_version(name) for name in names if _version(name)]
        found.append(f"{library} {versions[0] if versions else 'not installed'}")
    return ", ".join(found)


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
