"""A pytest run fails if it skips a test for an unknown reason, and lists all skips with reasons."""

import json
from types import SimpleNamespace

import keras
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


@pytest.mark.parametrize("processes", [(), ("-n", "2", "-p", "xdist")], ids=["one", "two"])
def test_pytest_run_with_allowed_skip_reasons_passes_and_lists_the_reasons(run, processes):
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
def test_pytest_run_with_an_unknown_skip_reason_fails(place, run):
    skip = "import pytest\npytest.skip('too hard', allow_module_level=True)"
    if place == "test":
        result, record = run(f"{FILE}\ndef test_hard():\n    pytest.skip('too hard')\n")
    else:
        result, record = run(FILE, test_second=skip)
    assert result.ret == 1 and len(record["unknown"]) == 1
    result.stdout.fnmatch_lines([f"ERROR {skips.REMEDY} *.py:*: too hard"])


def test_pytest_run_that_skips_a_peer_test_without_the_mark_peers_fails(run):
    text = FILE + PEER.format("first") + "@pytest.mark.peers\n" + PEER.format("second")
    result, record = run(text)
    assert result.ret == 1 and record["skipped"]["peer library timm"][0] == 1
    result.stdout.fnmatch_lines([f"ERROR {skips.UNMARKED} test_first.py::test_first"])


def test_pytest_run_of_peer_tests_with_a_missing_library_fails(run):
    result, _ = run(f"{FILE}\n@pytest.mark.peers\n{PEER.format('first')}", "-m", "peers")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["deselected 3: -m, -k (*)", "ERROR *: peer library timm"])


ONCE = """
import pytest

pytestmark = pytest.mark.once("{0}")

def test_of_the_file():
    pass

@pytest.mark.{1}
def test_of_its_own_mark():
    {2}
"""


def test_pytest_run_of_several_backends_leaves_out_the_tests_of_other_backends(run, pytester):
    names = "pytest_addoption, pytest_configure, pytest_collection_modifyitems"
    names += ", pytest_ignore_collect"
    pytester.makeconftest(f"from tests.conftest import {names}")
    ours, other = keras.backend.backend(), "another"
    files = {
        "test_others": f"{ONCE.format(other, 'peers', 'pass')}\nraise ImportError",
        "test_mixed": ONCE.format(other, f'once("{ours}")', "pass"),
        "test_every": ONCE.format(other, "every_backend", "pass"),
        "test_ours": ONCE.format(ours, f'once("{other}")', "assert False"),
    }
    result, record = run(FILE, "--backends", f"{ours} {other}", "-m", "not slow", **files)
    assert result.ret == 0
    assert (record["passed"], record["deselected"]["once"][0]) == (4, 4)


def test_process_of_xdist_reports_the_files_that_it_leaves_out():
    config = SimpleNamespace(stash=pytest.Stash(), workeroutput={})
    skips.deselect_file(config)
    skips.deselect_file(config)
    assert config.workeroutput == {"deselected": {"once": 2}}


def test_pytest_run_with_a_failed_test_keeps_the_exit_status(run):
    result, record = run("def test_fails():\n    assert False\n")
    assert (result.ret, record["failed"]) == (1, 1)
