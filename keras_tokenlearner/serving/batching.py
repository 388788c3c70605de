import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeAlias, TypeVar

Key = TypeVar("Key", bound=Hashable)
Row = TypeVar("Row")
Answer = TypeVar("Answer")
# A waiting row: its key, its value, its weight, the future of its answer, the time of its arrival.
Item: TypeAlias = tuple[Key, Row, float, asyncio.Future[Answer], float]


class Batcher(Generic[Key, Row, Answer]):
    """Collects the rows (examples) of requests into batches, and answers one batch at a time.

    A row arrives with a key. Waiting rows with the same key form the next batch. On an idle server,
    a row therefore starts at once. On a busy server, batches are larger. A failed batch is tried
    again row by row, so only the rows with errors fail.

    Args:
        function: Function that returns a list of one answer for each row. A separate thread calls
            `function(key, rows)`.
        max_rows: Integer, largest number of rows in a batch.
        max_weight: Number, the largest sum of the weights of the rows in a batch. A heavier row is
            a batch of its own.
        observe: Function that is called for each batch, with a list of the seconds that each row
            waited.

    Example:

    >>> batcher = Batcher(lambda key, rows: [key * row for row in rows])
    >>> asyncio.run(batcher.answer(2, 21))
    42
    """

    def __init__(
        self,
        function: Callable[[Key, list[Row]], Sequence[Answer]],
        max_rows: int = 32,
        max_weight: float = float("inf"),
        observe: Callable[[Sequence[float]], None] | None = None,
    ) -> None:
        self.function = function
        self.max_rows = max_rows
        self.max_weight = max_weight
        self.observe = observe
        self.waiting: deque[Item[Key, Row, Answer]] = deque()
        self.worker: asyncio.Task[None] | None = None
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def answer(self, key: Key, row: Row, weight: float = 1) -> Answer:
        """Queue a row for a batch, and return the answer for this row.

        Args:
            key: Rows with equal keys may share a batch.
            row: The row. `function` takes a list of rows.
            weight: Number, counted against `max_weight`.

        Raises:
            Exception: The error that `function` raised for this row.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.waiting.append((key, row, weight, future, time.monotonic()))
        if self.worker is None or self.worker.done():
            self.worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while batch := self._next():
            key, rows, futures = batch
            if await self._try(key, rows, futures):
                continue
            for row, future in zip(rows, futures, strict=True):
                if not future.done():
                    await self._try(key, [row], [future])

    async def _try(self, key: Key, rows: list[Row], futures: list[asyncio.Future[Answer]]) -> bool:
        """Answer rows as one batch. Return `False` if each row should be tried again alone."""
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(self.thread, self.function, key, rows)
            answered = list(zip(futures, answers, strict=True))
        except Exception as error:  # noqa: BLE001, the caller of `answer` gets the error
            if len(rows) > 1:
                return False
            if not futures[0].done():
                futures[0].set_exception(error)
            return True
        for future, answer in answered:
            if not future.done():  # done: cancelled, because the client disconnected
                future.set_result(answer)
        return True

    def _next(self) -> tuple[Key, list[Row], list[asyncio.Future[Answer]]] | None:
        """Take the rows of the next batch from `waiting`. Return `None` if no rows wait.

        Rows of disconnected clients are dropped.
        """
        self.waiting = deque(item for item in self.waiting if not item[3].done())
        if not self.waiting:
            return None
        key, total = self.waiting[0][0], 0.0
        taken: list[Item[Key, Row, Answer]] = []
        left: deque[Item[Key, Row, Answer]] = deque()
        for item in self.waiting:
            full = len(taken) == self.max_rows or (taken and total + item[2] > self.max_weight)
            if item[0] != key or full:
                left.append(item)
            else:
                taken.append(item)
                total += item[2]
        self.waiting = left
        if self.observe is not None:
            now = time.monotonic()
            self.observe([now - item[4] for item in taken])
        return key, [item[1] for item in taken], [item[3] for item in taken]
