"""Tests that a run leaves out: every reason for a skip must be in `ALLOWED`, or the run fails.

`tests/conftest.py` registers this file as a plugin. A file that is skipped or left out counts as
one test. If the variable TEST_RUNS names a file, a run adds a line of JSON to it, for
`tests/summary.py`.
"""

import json
import os
import re
import time
from collections import Counter

import keras
import pytest

from benchmarks.torchvision_import import import_torchvision

# Libraries to compare with. `make test` does not install them.
PEERS = (
    "flax",
    "grain",
    "kagglehub",
    "kagglesdk",
    "keras_cv",
    "keras_hub",
    "sphinx",
    "tensorflow_serving",
    "timm",
    "torchvision",
    "transformers",
    "tritonclient",
)
PEER = rf"peer library (?:{'|'.join(PEERS)})\b"

# How a reason starts (a regular expression), and why a run may skip the test.
ALLOWED = (
    (PEER, "`make test-peers` installs it"),
    (r"only on (?:tensorflow|jax|torch)(?: and (?:jax|torch))?(?=:)", "other backends run it"),
    (r"only on Linux(?: and macOS)?(?=:)", "other systems lack it"),
    (r"TensorFlow is installed", "`make test-without-tensorflow` runs it"),
    (r"of the extra `formats`", "needs `pip install .[formats]`"),
    (r"set KERAS_TOKENLEARNER_DINOV2", "reads 88 MB of published weights"),
    (r"Triton's server comes with nvidia-pytriton", "docs/serving.md has its environment"),
    (r"Chromium is not installed", "`apt-get install chromium`; it tests the demo page"),
    (r"pip install 'libtpu", "compiles for TPUs in an environment with libtpu"),
    (r"the machine has no other address than the loopback", "needs a network"),
    (r"this Pillow does not write (?:TIFF|AVIF|JPEG2000)", "builds of Pillow differ"),
)

# Why tests are deselected.
DESELECTED = {
    "slow": "`make test-slow` runs them",
    "nightly": "`make test-keras-faults` runs them",
    "once": "`make test` runs them on one backend",
    "-m, -k": "not selected on the command line",
}

REMEDY = "Let the test run, or add the reason to ALLOWED in tests/skips.py:"
UNMARKED = "Mark the test `pytest.mark.peers`, or `make test-peers` does not run it:"

_deselected = pytest.StashKey[Counter]()
_start = pytest.StashKey[float]()
_record = pytest.StashKey[dict]()


def peer(module):
    """Import and return a module of a peer library, or skip the test."""
    name = module.split(".")[0]
    if name in ("timm", "torchvision", "transformers"):
        import_torchvision()
    return pytest.importorskip(module, reason=f"peer library {name}")


def judge(reports, peers_installed=False):
    """Return allowed reasons with counts and explanations, and a line for each other skip."""
    counts, why, errors = Counter(), dict(ALLOWED), []
    for report in reports:
        path, line, text = report.longrepr
        text = text.removeprefix("Skipped: ")
        found = next(filter(None, (re.match(pattern, text) for pattern in why)), None)
        is_peer = bool(found) and found.re.pattern == PEER
        is_test = isinstance(report, pytest.TestReport)
        if not found or (is_peer and peers_installed):
            errors.append(f"{REMEDY} {path}:{line}: {text}")
        elif is_peer and is_test and "peers" not in report.keywords:
            errors.append(f"{UNMARKED} {report.nodeid}")
        else:
            counts[found.group(), why[found.re.pattern]] += 1
    skipped = {reason: [count, why] for (reason, why), count in sorted(counts.items())}
    return skipped, sorted(set(errors))


def pytest_sessionstart(session):
    session.config.stash[_start] = time.monotonic()


def is_for_this(item, backends):
    """Return whether this backend runs a test, in a run of several backends."""
    once = item.get_closest_marker("once")
    if not once or item.get_closest_marker("every_backend"):
        return True
    return chosen(once.args[0], backends) == keras.backend.backend()


def chosen(backend, backends):
    """Return the backend that runs tests marked `once(backend)`."""
    return backend if backend in backends else backends[0]


def pytest_deselected(items):
    if not items:
        return
    config = items[0].config
    counts = config.stash.setdefault(_deselected, Counter())
    backends = config.getoption("backends", "").split()
    for item in items:
        marks = [
            name
            for name in ("slow", "nightly")
            if f"not {name}" in config.option.markexpr and item.get_closest_marker(name)
        ]
        if marks:
            counts[marks[0]] += 1
        elif backends and not is_for_this(item, backends):
            counts["once"] += 1
        else:
            counts["-m, -k"] += 1
    _send(config)


def deselect_file(config):
    """Count a file of tests that another backend runs."""
    config.stash.setdefault(_deselected, Counter())["once"] += 1
    _send(config)


def _send(config):
    if hasattr(config, "workeroutput"):  # each process of xdist collects every test
        config.workeroutput["deselected"] = dict(config.stash[_deselected])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    output = getattr(node, "workeroutput", None) or {}
    node.config.stash[_deselected] = Counter(output.get("deselected", {}))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    config = session.config
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(config, "workerinput") or config.option.collectonly:
        return
    stats = reporter.stats
    skipped, errors = judge(stats.get("skipped", []), config.option.markexpr == "peers")
    counts = config.stash.get(_deselected, Counter())
    record = {
        "backend": os.environ.get("KERAS_BACKEND", ""),
        "passed": len(stats.get("passed", [])),
        "failed": len(stats.get("failed", [])) + len(stats.get("error", [])),
        "skipped": skipped,
        "deselected": {name: [counts[name], DESELECTED[name]] for name in sorted(counts)},
        "unknown": errors,
        "seconds": round(time.monotonic() - config.stash[_start], 1),
    }
    config.stash[_record] = record
    if errors and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if os.environ.get("TEST_RUNS"):
        with open(os.environ["TEST_RUNS"], "a") as file:
            file.write(json.dumps(record) + "\n")


def pytest_terminal_summary(terminalreporter, config):
    record = config.stash.get(_record, {})
    for kind in ("skipped", "deselected"):
        for reason, (count, why) in record.get(kind, {}).items():
            terminalreporter.write_line(f"{kind} {count}: {reason} ({why})")
    for error in record.get("unknown", []):
        terminalreporter.write_line(f"ERROR {error}", red=True)
