"""Print the jobs of `.ci/run` as a table: tests, skips with their reasons, minutes.

    python3 tests/summary.py FILE

Each line of the file is JSON: runs of pytest (`tests/skips.py`), and each job after its runs. The
status of a job that was left out, for lack of time, is null.
"""

import json
import sys

COUNTS = ("passed", "failed", "skipped", "deselected")
INTERRUPTED = {"job": "interrupted", "status": 1, "seconds": 0}


def table(lines):
    """Return the table, and under it lists of the tests that did not run, with their reasons."""
    rows, runs, unknown, reasons = [("job", "result", *COUNTS, "minutes")], [], [], {}
    lines = [json.loads(line) for line in lines]
    for line in [*lines, *([INTERRUPTED] if lines and "job" not in lines[-1] else [])]:
        if "job" not in line:
            runs.append(line)
            continue
        rows.append(_row(line["job"], line["status"], runs, line["seconds"]))
        for run in runs:
            status = int(bool(run["failed"] or run["unknown"]))
            rows.append(_row(f"  on {run['backend']}", status, [run], run["seconds"]))
            unknown += run["unknown"]
            for kind in COUNTS[2:]:
                for reason, (count, why) in run[kind].items():
                    counts = reasons.setdefault((kind, reason, why), [])
                    counts.append(f"{count} on {run['backend']}")
        runs = []
    text = [
        f"{job:26}{result:9}" + "".join(f"{x:>12}" for x in rest) for job, result, *rest in rows
    ]
    text += [
        f"{kind}: {reason} ({why}): {', '.join(counts)}"
        for (kind, reason, why), counts in sorted(reasons.items(), reverse=True)
    ]
    return "\n".join(text + unknown)


def _row(job, status, runs, seconds):
    result = {None: "left out", 0: "passed"}.get(status, "failed")
    counts = [run["passed"] for run in runs], [run["failed"] for run in runs]
    counts += tuple([n for run in runs for n, _ in run[kind].values()] for kind in COUNTS[2:])
    return job, result, *(sum(c) if runs else "" for c in counts), f"{seconds / 60:.1f}"


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        print(table(file))
