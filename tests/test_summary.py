"""The table at the end of `.ci/run`."""

import json

import pytest

from tests.summary import table

pytestmark = pytest.mark.once("torch")

RUN = {
    "backend": "torch",
    "passed": 6,
    "failed": 0,
    "skipped": {"peer library timm": [2, "`make test-peers` installs it"]},
    "deselected": {"slow": [4, "`make test-slow` runs them"]},
    "unknown": [],
    "seconds": 90,
}


def lines_of(*records):
    return [line.split() for line in table(map(json.dumps, records)).splitlines()]


def test_ci_summary_table_lists_jobs_with_counts_reasons_and_minutes():
    jobs = [{"job": name, "status": 0, "seconds": 120} for name in ("lint", "test")]
    header, *rows = lines_of(jobs[0], RUN, RUN | {"backend": "jax", "passed": 5}, jobs[1])
    assert header == ["job", "result", "passed", "failed", "skipped", "deselected", "minutes"]
    assert rows[:4] == [
        ["lint", "passed", "2.0"],
        ["test", "passed", "11", "0", "4", "8", "2.0"],
        ["on", "torch", "passed", "6", "0", "2", "4", "1.5"],
        ["on", "jax", "passed", "5", "0", "2", "4", "1.5"],
    ]
    reasons = [" ".join(row) for row in rows[4:]]
    assert reasons == [
        "skipped: peer library timm (`make test-peers` installs it): 2 on torch, 2 on jax",
        "deselected: slow (`make test-slow` runs them): 4 on torch, 4 on jax",
    ]


def test_ci_summary_table_lists_jobs_that_were_left_out():
    _, *rows = lines_of(
        {"job": "lint", "status": 2, "seconds": 60}, {"job": "xla", "status": None, "seconds": 0}
    )
    assert rows == [["lint", "failed", "1.0"], ["xla", "left", "out", "0.0"]]


def test_ci_summary_table_of_an_interrupted_job_lists_runs_and_unknown_skips():
    _, job, run, *_, last = lines_of(RUN | {"unknown": ["test_a.py: too hard"]})
    assert job[:2] == ["interrupted", "failed"] and run[2] == "failed"
    assert last == ["test_a.py:", "too", "hard"]
