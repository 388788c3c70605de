"""A run that skips a test for an unknown reason fails, and lists the tests that it leaves out."""

import json

import pytest

from tests import skips

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.once("torch")

FILE = """
import pytest

def test_passes():
    pass

@pytest.mark.skipif(True, reason="only on jax: its devices")
def test_of_jax():
    pass

@pytest.mark.slow
def test_slow():
    pass
"""
PEER = "def test_{0}():\n    pytest.skip('peer library timm')\n"


@pytest.fixture
def run(pytester, monkeypatch):
    """Return a function that runs a file of tests and returns the result and the line of JSON."""
    path = pytester.path / "runs.jsonl"
    monkeypatch.setenv("TEST_RUNS", str(path))
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    pytester.makeini("[pytest]\nmarkers =\n    slow\n    peers\n")
    pytester.makeconftest(
        "from tests import skips\n"
        "def pytest_configure(config):\n    config.pluginmanager.register(skips)\n"
    )

    def run(text, *arguments, **files):
        pytester.makepyfile(test_first=text, **files)
        result = pytester.runpytest_inprocess(*arguments)
        return result, json.loads(path.read_text().splitlines()[-1])

    return run


@pytest.mark.parametrize("processes", [(), ("-n", "2", "-p", "xdist")])
def test_run_with_allowed_reasons_passes_and_lists_them(run, processes):
    text = "import pytest\npytest.skip('of the extra `formats`', allow_module_level=True)"
    result, record = run(FILE, "-m", "not slow", *processes, test_second=text)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["skipped 1: only on jax (*)", "deselected 1: slow (*)"])
    assert (record["backend"], record["passed"], record["failed"]) == ("torch", 1, 0)
    assert {reason: count for reason, (count, _) in record["skipped"].items()} == {
        "only on jax": 1,
        "of the extra `formats`": 1,
    }
    assert record["deselected"]["slow"][0] == 1 and record["unknown"] == []


@pytest.mark.parametrize("place", ["test", "file"])
def test_run_with_an_unknown_skip_reason_fails(place, run):
    skip = "import pytest\npytest.skip('too hard', allow_module_level=True)"
    if place == "test":
        result, record = run(f"{FILE}\ndef test_hard():\n    pytest.skip('too hard')\n")
    else:
        result, record = run(FILE, test_second=skip)
    assert result.ret == 1 and len(record["unknown"]) == 1
    result.stdout.fnmatch_lines([f"ERROR {skips.REMEDY} *.py:*: too hard"])


def test_run_that_skips_a_peer_library_without_its_mark_fails(run):
    text = FILE + PEER.format("first") + "@pytest.mark.peers\n" + PEER.format("second")
    result, record = run(text)
    assert result.ret == 1 and record["skipped"]["peer library timm"][0] == 1
    result.stdout.fnmatch_lines([f"ERROR {skips.UNMARKED} test_first.py::test_first"])


def test_run_with_a_missing_library_in_the_peer_environment_fails(run):
    result, _ = run(f"{FILE}\n@pytest.mark.peers\n{PEER.format('first')}", "-m", "peers")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["deselected 3: -m, -k (*)", "ERROR *: peer library timm"])


def test_run_with_a_failed_test_keeps_the_exit_status(run):
    result, record = run("def test_fails():\n    assert False\n")
    assert (result.ret, record["failed"]) == (1, 1)
