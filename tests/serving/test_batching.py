"""Simultaneous rows share a batch, and a bad row fails alone."""

import asyncio
import threading

import pytest

from keras_tokenlearner.serving.batching import Batcher

pytestmark = pytest.mark.once("tensorflow")


class Doubler:
    """Doubles numbers, and refuses negative numbers. The first batch waits for `go`."""

    def __init__(self):
        self.go = threading.Event()
        self.batches = []

    def __call__(self, key, rows):
        self.go.wait(10)
        self.batches.append((key, rows))
        if any(row < 0 for row in rows):
            raise ValueError("negative")
        return [2 * row for row in rows]


def run(rows, **arguments):
    """Answer simultaneous tuples of (key, row, weight). Return the answers and the batches."""
    double = Doubler()

    async def ask():
        batcher = Batcher(double, **arguments)
        first = asyncio.create_task(batcher.answer("first", 0))
        await asyncio.sleep(0)
        others = [asyncio.create_task(batcher.answer(*row)) for row in rows]
        await asyncio.sleep(0)
        double.go.set()
        await first
        return await asyncio.gather(*others, return_exceptions=True)

    return asyncio.run(ask()), double.batches[1:]


def test_batcher_puts_waiting_rows_into_one_batch():
    answers, batches = run([("a", n) for n in range(5)], max_rows=3)
    assert answers == [0, 2, 4, 6, 8]
    assert batches == [("a", [0, 1, 2]), ("a", [3, 4])]


def test_batcher_puts_rows_of_different_keys_into_different_batches():
    answers, batches = run([("a", 1), ("b", 2), ("a", 3)])
    assert answers == [2, 4, 6]
    assert batches == [("a", [1, 3]), ("b", [2])]


def test_batcher_batch_of_several_rows_does_not_exceed_max_weight():
    answers, batches = run([("a", 1, 9), ("a", 2, 4), ("a", 3, 4), ("a", 4, 4)], max_weight=8)
    assert answers == [2, 4, 6, 8]
    assert [rows for _, rows in batches] == [[1], [2, 3], [4]]


def test_batcher_bad_row_fails_and_other_rows_of_its_batch_succeed():
    answers, _ = run([("a", 1), ("a", -1), ("a", 2)])
    assert (answers[0], answers[2]) == (2, 4)
    with pytest.raises(ValueError, match="negative"):
        raise answers[1]


def test_batcher_with_a_cancelled_request_answers_the_other_requests():
    double = Doubler()

    async def ask():
        batcher = Batcher(double)
        tasks = [asyncio.create_task(batcher.answer("a", n)) for n in (1, 2)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        double.go.set()
        return await tasks[1]

    assert asyncio.run(ask()) == 4


def test_batcher_skips_waiting_rows_of_cancelled_requests():
    double = Doubler()

    async def ask():
        batcher = Batcher(double)
        first = asyncio.create_task(batcher.answer("a", 0))
        await asyncio.sleep(0)
        tasks = [asyncio.create_task(batcher.answer("a", n)) for n in (1, 2, 3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        tasks[1].cancel()
        double.go.set()
        return await first, await tasks[2]

    assert asyncio.run(ask()) == (0, 6)
    assert [rows for _, rows in double.batches] == [[0], [3]]


def test_batcher_with_a_wrong_number_of_results_fails_every_row():
    async def ask():
        batcher = Batcher(lambda key, rows: [])
        tasks = [batcher.answer("a", n) for n in range(3)]
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)

    assert [type(error) for error in asyncio.run(ask())] == [ValueError] * 3
