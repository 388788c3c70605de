import contextlib
import itertools
import warnings
from collections.abc import Callable, Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Generic, Required, TypedDict, TypeVar, Unpack, cast

import keras
import numpy as np

from keras_tokenlearner._checks import (
    check_bool,
    check_choice,
    check_int,
    check_is,
)

Example = TypeVar("Example")  # pixels, or pixels and the class


class Batches(keras.utils.PyDataset):
    """Batches of arrays. A batch depends only on the seed, the epoch and the batch's index.

    A run can therefore continue in the middle of an epoch, and several processes can divide every
    batch. The seed decides the order of the rows. The argument `shuffle` of `fit` has no effect.

    Args:
        arrays: Tuple of arrays of n rows each, such as images and labels. Lists and the data of
            pandas become numpy arrays. Rows of other arrays are read when a batch needs them.
        batch_size: Integer, rows of a batch, summed over all processes.
        shuffle: Boolean, whether each epoch has a new order.
        seed: Integer, decides the order of each epoch.
        partial: Boolean, whether to return a last batch that is not full.

    Attributes:
        epoch: Integer, number of the current epoch.
        start: Integer, number of batches to skip at the start of the current epoch.
        shard: `(index, count)`: every batch is divided into `count` parts. Only the rows of the
            part `index` are returned.
        ordered: Boolean, whether Keras asks for the batches in their order.
        alone: Function that returns a context manager. Inside the context, this process creates
            models and arrays without the other processes.

    Raises:
        ValueError: If the arrays differ in their number of rows, or an epoch would have no batch.
            Also if an argument is of another type or out of range.

    Example:

    >>> batches = Batches((np.arange(10),), batch_size=4, shuffle=False)
    >>> batches.shard = (1, 2)
    >>> [batches[index][0].tolist() for index in range(len(batches))]
    [[2, 3], [6, 7]]
    """

    def __init__(
        self,
        arrays: tuple[Sized, ...],
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        partial: bool = False,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        check_is(owner, "arrays", arrays, (tuple, list), "a tuple of arrays")
        self.arrays = tuple(map(_indexable, arrays))
        self.batch_size = check_int(owner, "batch_size", batch_size)
        self.shuffle = check_bool(owner, "shuffle", shuffle)
        self.seed = check_int(owner, "seed", seed, minimum=0)
        self.partial = check_bool(owner, "partial", partial)
        rows = [len(array) for array in self.arrays]
        if len(set(rows)) != 1:
            raise ValueError(
                f"{owner}: `arrays` must be one or more arrays with equal numbers of rows. "
                f"Received: arrays of {rows} rows"
            )
        if rows[0] < (1 if partial else batch_size):
            raise ValueError(
                f"{owner}: `batch_size` must be at most the number of rows, except for "
                "partial=True, which needs at least one row. "
                f"Received: {rows[0]} rows, batch_size={batch_size}, partial={partial}"
            )
        self.epoch, self.start, self.shard = 0, 0, (0, 1)
        self.ordered = False
        self.alone: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
        self._order: tuple[int | None, np.ndarray] = (None, np.empty(0, int))
        self._in_epoch, self._count, self._last_count = False, 0, 0
        self._places: dict[int, int] = {}

    def __len__(self) -> int:
        count, rest = divmod(len(self.arrays[0]), self.batch_size)
        return count + (self.partial and rest > 0) - self.start

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        rows = self.rows(self.place(index))
        return tuple(cast("np.ndarray", array)[rows] for array in self.arrays)

    @property
    def num_batches(self) -> int:
        # Keras reads `num_batches` before it reads batches, and after it read one for its shapes.
        self._places = {}
        if self._count:
            self._last_count, self._count = self._count, 0
        return len(self)

    def place(self, index: int) -> int:
        """Return the number of the batch for an index that Keras passes to `__getitem__`.

        `fit` shuffles indices by default, with a random generator that ignores `seed`. Therefore
        the first request gets the first batch, the second request the second batch, and so on.
        """
        self._count += 1
        if self._in_epoch and not self.ordered:
            index = self._places.setdefault(index, len(self._places))
        return index + self.start

    def rows(self, index: int) -> np.ndarray:
        """Return the numbers of this process's rows in batch `index` of the epoch, as an array."""
        batch = self.order()[index * self.batch_size : (index + 1) * self.batch_size]
        part, parts = self.shard
        return np.array_split(batch, parts)[part]

    def order(self) -> np.ndarray:
        """Return the order of all rows in this epoch."""
        epoch, order = self._order
        if epoch != self.epoch:
            epoch, order = self.epoch, np.arange(len(self.arrays[0]))
            if self.shuffle:
                np.random.default_rng((self.seed, epoch)).shuffle(order)
            self._order = epoch, order
        return order

    def on_epoch_begin(self) -> None:
        self._in_epoch = True

    def on_epoch_end(self) -> None:
        self.epoch += 1
        self._in_epoch = False


def _indexable(array: Sized) -> Sized:
    """Return lists and the data of pandas as numpy arrays, and other arrays unchanged.

    A Series of pandas looks up its labels: after a shuffle, its rows would not match other arrays.
    """
    is_copied = isinstance(array, (tuple, list)) or hasattr(array, "to_numpy")
    return np.asarray(array) if is_copied else array


class _BatchesArguments(TypedDict, total=False):
    """Keyword arguments of `Batches`."""

    batch_size: Required[int]
    shuffle: bool
    seed: int
    partial: bool


class ReadBatches(Batches, Generic[Example]):
    """Base class of batches that read examples in threads, by the method `read` of a subclass.

    The threads read the rows of a batch in parallel, and the next batch ahead of time. The threads
    replace `workers` of `keras.utils.PyDataset`. With `workers`, Keras 3.15 on JAX and torch starts
    the second epoch with a batch of the first epoch.

    Args:
        examples: The examples, an object with a length.
        threads: Integer, number of threads.
        labels: For `on_error="skip"`: array of shape (n,) or (n, classes), to find other rows of a
            class.
        on_error: `"raise"` or `"skip"`. With `"skip"`, another row of the same class replaces a
            row for which `read` raises `ValueError`. For labels of shape (n, classes), a row of
            other classes is the last choice. A warning after the epoch names the row.
        **kwargs: Arguments of `Batches`.

    Attributes:
        failure: The error of `read`, or `None`. TensorFlow hides this error behind another error.
        skipped: Dictionary from the names of unreadable rows, in any epoch, to the reasons.
    """

    def __init__(
        self,
        examples: Sized,
        threads: int,
        labels: np.ndarray | None = None,
        on_error: str = "raise",
        **kwargs: Unpack[_BatchesArguments],
    ) -> None:
        super().__init__((examples,), **kwargs)
        check_choice(type(self).__name__, "on_error", on_error, ("raise", "skip"))
        self.on_error = on_error
        self.labels = None if labels is None else np.asarray(labels)
        self.failure: Exception | None = None
        self.skipped: dict[str, str] = {}
        self._skipped_now: set[str] = set()
        self._unreadable: set[tuple[int, int]] = set()  # rows and epochs
        self._pool = ThreadPoolExecutor(check_int(type(self).__name__, "threads", threads))
        self._ahead: dict[tuple[int, ...], list[Future[Example]]] = {}

    def read(self, row: int, epoch: int) -> Example:
        """Return the example in a row, for an epoch."""
        raise NotImplementedError

    def called(self, row: int) -> str:
        """Return the name of a row for warnings and errors."""
        return f"row {row}"

    def found(self, index: int) -> list[Example]:
        """Return the examples of batch `index` of the epoch, as a list."""
        asked = self._ahead.pop(self._key(index), None) or self._ask(index)
        more = index + 1 < len(self) + self.start
        self._ahead = {self._key(index + 1): self._ask(index + 1)} if more else {}
        try:
            return [one.result() for one in asked]
        except Exception as error:
            self.failure = error
            # Otherwise the threads read the other rows before the process can end.
            for one in itertools.chain(asked, *self._ahead.values()):
                one.cancel()
            self._ahead = {}
            raise

    def on_epoch_end(self) -> None:
        # Keras also reads one batch for its shapes, then `num_batches`. This is not an epoch, so
        # no warning follows. With `steps_per_epoch=1`, an epoch has one batch too.
        is_epoch = self._count or self._last_count >= len(self) or not self._in_epoch
        if self._skipped_now and is_epoch:
            some = [f"{name} ({self.skipped[name]})" for name in sorted(self._skipped_now)]
            others = f"; and {len(some) - 10} more, listed in `skipped`" * (len(some) > 10)
            warnings.warn(
                f"{type(self).__name__}: {len(some)} of {len(self.arrays[0])} files could not be "
                f"read in epoch {self.epoch}; other files replace them: "
                f"{'; '.join(some[:10])}{others}",
                stacklevel=2,
            )
        self._skipped_now, self._unreadable = set(), set()
        super().on_epoch_end()

    def _key(self, index: int) -> tuple[int, ...]:
        return self.epoch, index, *self.shard

    def _ask(self, index: int) -> list[Future[Example]]:
        rows = self.rows(index)
        return [self._pool.submit(self._read, int(row), self.epoch) for row in rows]

    def _read(self, row: int, epoch: int) -> Example:
        """Return the example of a row. Replace an unreadable example by another one."""
        try:
            return self.read(row, epoch)
        except ValueError as error:
            if self.on_error == "raise" or self.labels is None:
                raise
            self._skip(row, epoch, error)
            others = self._others(self.labels, row, epoch)
            for other in map(int, others):
                if (other, epoch) in self._unreadable:
                    continue
                try:
                    return self.read(other, epoch)
                except ValueError as another:
                    self._skip(other, epoch, another)
            raise ValueError(
                f"{type(self).__name__}: {self.called(row)} and all {len(others)} files that may "
                f"replace it are unreadable; check the files: {error}"
            ) from error

    def _others(self, labels: np.ndarray, row: int, epoch: int) -> np.ndarray:
        """Return the rows that may replace a row, in random order, rows of the same class first."""
        same = (labels == labels[row]).reshape(len(labels), -1).all(axis=1)
        random = np.random.default_rng((self.seed, epoch, row))
        groups = [np.flatnonzero(same)]
        if labels.ndim == 2:  # few rows have the same set of classes
            groups.append(np.flatnonzero(~same))
        for group in groups:
            random.shuffle(group)
        rows = np.concatenate(groups)
        return rows[rows != row]

    def _skip(self, row: int, epoch: int, error: ValueError) -> None:
        self.skipped[self.called(row)] = str(error)
        self._skipped_now.add(self.called(row))
        self._unreadable.add((row, epoch))


@contextlib.contextmanager
def reading_errors(*data: object) -> Iterator[None]:
    """Raise the error of a reading thread, which TensorFlow hides behind another error.

    Args:
        *data: Data of the Keras method that the context calls. Only `ReadBatches` have threads.
    """
    batches = [one for one in data if isinstance(one, ReadBatches)]
    for one in batches:
        one.failure = None  # an earlier call may have left an error
    try:
        yield
    except Exception as error:
        failures = [one.failure for one in batches if one.failure is not None]
        if not failures or error in failures:
            raise
        raise failures[0] from error
