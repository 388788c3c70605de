"""Checks of arguments. Each error message states the argument, its value and the fix.

Each message starts with `owner`, the name of the function that the user called: see `_errors.py`.
"""

import difflib
import math
import operator
import os
import re
from collections.abc import Collection, Iterable, Sequence
from numbers import Integral, Number, Real
from pathlib import Path
from typing import Any, TypeVar, cast

import keras
import numpy as np

MANY = 12  # the largest number of choices that errors list, if other code can list them
Choice = TypeVar("Choice")
Value = TypeVar("Value")
Shape = Sequence[int | None]

LARGEST_INT = 2**31 - 1  # backends use 32 bits to index axes and to count steps
# Range of normal float32 numbers. Backends may round smaller positive numbers to zero.
LARGEST_FLOAT = 3.4028234663852886e38
SMALLEST_FLOAT = 1.1754943508222875e-38


def check_bool(owner: str, name: str, value: bool) -> bool:
    """Return `value` as a `bool` if it is a boolean scalar, or raise `ValueError`."""
    if _kind(value) != "bool":
        raise ValueError(f"{owner}: `{name}` must be True or False. Received: {name}={value!r}")
    return bool(value)


def check_int(
    owner: str, name: str, value: int, minimum: int = 1, maximum: int = LARGEST_INT
) -> int:
    """Return `value` as an `int` from `minimum` to `maximum`, or raise `ValueError`.

    Integer scalars of numpy and of the backends are accepted, for example `labels.max() + 1`.
    """
    number = _integer(value, minimum, maximum)
    if number is None:
        raise ValueError(
            f"{owner}: `{name}` must be an integer {_range([value], minimum, maximum)}. "
            f"Received: {name}={value!r}"
        )
    return number


def check_ints(
    owner: str,
    name: str,
    value: Sequence[int],
    lengths: Collection[int] | None = None,
    minimum: int = 1,
    maximum: int = LARGEST_INT,
) -> tuple[int, ...]:
    """Return `value` as a tuple of integers from `minimum` to `maximum`, or raise `ValueError`.

    `lengths` has the allowed lengths. `None` allows all lengths.
    """
    numbers = _integers(value, lengths, minimum, maximum)
    if numbers is None:
        count = "" if lengths is None else " or ".join(map(str, lengths)) + " "
        items = value if isinstance(value, (tuple, list, range)) else ()
        raise ValueError(
            f"{owner}: `{name}` must be a tuple of {count}integers, each "
            f"{_range(items, minimum, maximum)}. Received: {name}={value!r}"
        )
    return numbers


def check_pairs(
    owner: str, name: str, value: Sequence[Sequence[int]]
) -> tuple[tuple[int, int], ...]:
    """Return `value` as a tuple of one or more pairs of integers, or raise `ValueError`."""
    items = value if isinstance(value, (tuple, list)) else ()
    pairs = [pair for one in items if (pair := _integers(one, (2,), 1, LARGEST_INT))]
    if not items or len(pairs) < len(items):
        numbers = [number for one in items if isinstance(one, (tuple, list)) for number in one]
        raise ValueError(
            f"{owner}: `{name}` must be a tuple of pairs of integers, each "
            f"{_range(numbers, 1, LARGEST_INT)}. Received: {name}={value!r}"
        )
    return tuple((first, second) for first, second in pairs)


def check_number(
    owner: str,
    name: str,
    value: float,
    minimum: float = -LARGEST_FLOAT,
    maximum: float = LARGEST_FLOAT,
    expected: str = "a finite number",
) -> float:
    """Return `value` as a finite `float` from `minimum` to `maximum`, or raise `ValueError`.

    `expected` describes the bounds in the message.
    """
    number = _number(value)
    if number is None or not minimum <= number <= maximum:
        raise ValueError(f"{owner}: `{name}` must be {expected}. Received: {name}={value!r}")
    return number


def check_numbers(
    owner: str, name: str, value: float | Sequence[float], expected: str
) -> tuple[float, ...]:
    """Return finite numbers as a tuple, or raise `ValueError`.

    `value` is one number, a tuple or list of numbers, or an array with one axis. `expected`
    describes the argument in the message.
    """
    items = _items(value)
    found = [_number(item) for item in ([cast("float", value)] if items is None else items)]
    numbers = tuple(number for number in found if number is not None)
    if not numbers or len(numbers) < len(found):
        raise ValueError(f"{owner}: `{name}` must be {expected}. Received: {name}={value!r}")
    return numbers


def check_rate(owner: str, name: str, value: float) -> float:
    """Return `value` as a `float` in [0, 1), or raise `ValueError`."""
    below_one = math.nextafter(1.0, 0.0)
    return check_number(owner, name, value, 0.0, below_one, "a number in [0, 1)")


def check_fraction(owner: str, name: str, value: float) -> float:
    """Return `value` as a `float` in [0, 1], or raise `ValueError`."""
    return check_number(owner, name, value, 0.0, 1.0, "a number in [0, 1]")


def check_positive_fraction(owner: str, name: str, value: float) -> float:
    """Return `value` as a `float` in (0, 1], or raise `ValueError`."""
    return check_number(owner, name, value, SMALLEST_FLOAT, 1.0, "a number in (0, 1]")


def check_not_negative(owner: str, name: str, value: float) -> float:
    """Return `value` as a finite `float` of zero or more, or raise `ValueError`."""
    return check_number(owner, name, value, 0.0, LARGEST_FLOAT, "a finite number of at least 0")


def check_positive(owner: str, name: str, value: float) -> float:
    """Return `value` as a positive `float` in the range of float32, or raise `ValueError`."""
    expected = "a positive number in the range of float32"
    return check_number(owner, name, value, SMALLEST_FLOAT, LARGEST_FLOAT, expected)


def check_choice(
    owner: str,
    name: str,
    value: Choice,
    choices: Iterable[Choice],
    listed_by: str = "",
    whole: object = None,
) -> Choice:
    """Return `value` if it is in `choices`, or raise `ValueError` with the nearest choices.

    Types must match too: 0 does not equal `False`. The message lists all choices. For more than
    `MANY` choices, the message names `listed_by` instead, the code that lists them. With an empty
    `listed_by`, the message always lists all choices. If `value` is part of an argument, `whole` is
    the argument.
    """
    choices = list(choices)
    for choice in choices:
        if value is choice or (_kind(value) == _kind(choice) and _equal(value, choice)):
            return choice
    near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=3)
    hint = f" Did you mean {' or '.join(repr(match) for match in near)}?" if near else ""
    received = f" Received: {name}={value!r}."
    each = ""
    if whole is not None:
        received, each = f" Received: {name}={whole!r} with {value!r}.", "each part of "
    if len(choices) <= MANY:
        text = f"{each}`{name}` must be one of {choices}.{received}{hint}"
    elif listed_by:
        text = f"`{name}` is unknown.{hint}{received} {listed_by} lists all {len(choices)} names."
    else:
        text = f"`{name}` is unknown.{hint}{received} It must be one of {choices}."
    raise ValueError(f"{owner}: {text}")


def check_is(
    owner: str, name: str, value: Value, kind: type | tuple[type, ...], wanted: str
) -> Value:
    """Return `value` if it is an instance of `kind`, or raise `ValueError`.

    The message describes `kind` by the text `wanted`.
    """
    if not isinstance(value, kind):
        raise ValueError(
            f"{owner}: `{name}` must be {wanted}. Received: {name}={repr(value)[:200]}"
        )
    return value


def check_path(owner: str, name: str, value: str | os.PathLike[str]) -> Path:
    """Return a `Path` with the home folder instead of `~`. Raise `ValueError` for other types."""
    check_is(owner, name, value, (str, os.PathLike), "a string or a pathlib.Path")
    return Path(os.path.expanduser(value))


def check_model(
    owner: str, name: str, value: keras.Model, single: bool = False, functional: bool = False
) -> keras.Model:
    """Return `value` if it is a model with known inputs, or raise `ValueError`.

    `single` requires one input and one output. `functional` refuses a `keras.Sequential`.
    """
    wanted = "a functional keras.Model" if functional else "a keras.Model"
    check_is(owner, name, value, keras.Model, wanted)
    if functional and isinstance(value, keras.Sequential):
        raise ValueError(
            f"{owner}: `{name}` must be {wanted}, not a keras.Sequential; pass "
            "keras.Model(model.inputs[0], model.outputs[0]). "
            f"Received: {name}={value!r}"
        )
    if not getattr(value, "inputs", None):
        raise ValueError(
            f"{owner}: `{name}` must have known inputs: pass a functional model, or a "
            f"keras.Sequential that starts with keras.Input. Received: {name}={value!r}"
        )
    shapes = value.input_shape, value.output_shape
    if single and not all(isinstance(shape, tuple) for shape in shapes):
        raise ValueError(
            f"{owner}: `{name}` must have one input and one output. Received: {name}={value!r} "
            f"with inputs {shapes[0]} and outputs {shapes[1]}"
        )
    return value


def check_vectors(owner: str, name: str, model: keras.Model) -> None:
    """Raise `ValueError` unless the outputs of a model have shape (B, C)."""
    if len(model.output_shape) != 2:
        raise ValueError(
            f"{owner}: `{name}` must return outputs of shape (B, C). For features, build it with "
            "include_top=False and pooling='avg' or 'token'. "
            f"Received: {name}={model.name!r} with outputs of shape {model.output_shape}"
        )


def check_channels(owner: str, shape: Shape, rank: int | None = None) -> int:
    """Return the number of channels, the last axis of a shape, or raise `ValueError`.

    The number must be known. With a `rank`, the shape must have this rank.
    """
    channels = shape[-1]
    if (rank is not None and len(shape) != rank) or channels is None:
        layout = "(B, N, C)" if rank == 3 else "(..., C)"
        raise ValueError(
            f"{owner}: inputs must have shape {layout} with known C, the channels. "
            f"Received: shape={tuple(shape)}"
        )
    return channels


def check_heads(
    owner: str, num_heads: int, channels: int, name: str | None = None, heads: str = "num_heads"
) -> int:
    """Return channels per head, or raise `ValueError` if `num_heads` does not divide `channels`.

    In the message, `heads` is the argument that holds `num_heads`, and `name` is the argument that
    holds `channels`. Without `name`, `channels` is the number of channels of the inputs.
    """
    if channels % num_heads:
        whole = "the channels" if name is None else f"`{name}`"
        received = f" with {channels} channels" if name is None else f", {name}={channels}"
        raise ValueError(
            f"{owner}: `{heads}` must divide {whole}. Received: {heads}={num_heads}{received}"
        )
    return channels // num_heads


def check_channels_last(owner: str) -> None:
    """Raise `ValueError` if the image data format of Keras is `channels_first`."""
    if keras.config.image_data_format() == "channels_first":
        raise ValueError(
            f"{owner}: only channels_last is supported; call "
            "keras.config.set_image_data_format('channels_last'). "
            "Received: image_data_format='channels_first'"
        )


def check_names(
    owner: str, name: str, value: Sequence[str], count: int | None, expected: str
) -> tuple[str, ...]:
    """Return `value` as a tuple of `count` strings, or raise `ValueError`.

    `value` may also be an array with one axis. The error message says that the argument must be
    `expected`.
    """
    items = _items(value)
    if items is None or len(items) != count or not all(isinstance(one, str) for one in items):
        number = "" if items is None else f"{len(items)} names, "
        raise ValueError(
            f"{owner}: `{name}` must be {expected}. Received: {number}{name}={str(value)[:60]}"
        )
    return tuple(map(str, items))  # strings of numpy become plain strings


def check_labels(
    owner: str,
    name: str,
    value: np.ndarray | Sequence[int],
    count: int,
    classes: int | None = None,
) -> np.ndarray:
    """Return integer labels as an array of shape (count,), or raise `ValueError`.

    Labels of shape (count, 1), as in `keras.datasets`, lose their second axis. `classes` is the
    number of classes, if known.
    """
    labels = np.asarray(value)
    if labels.shape == (count, 1):
        labels = labels[:, 0]
    if labels.dtype == bool:  # such as `y == 3`
        labels = labels.astype("int64")
    is_integer = labels.dtype.kind in "iu"
    found = (labels.min(), labels.max()) if is_integer and labels.size else (0, 0)
    most = LARGEST_INT if classes is None else classes - 1
    in_range = found[0] >= 0 and found[1] <= most
    if labels.shape != (count,) or not in_range or (labels.size and not is_integer):
        numbers = f", from {found[0]} to {found[1]}" if is_integer and labels.size else ""
        raise ValueError(
            f"{owner}: `{name}` must have an integer {_range([found[1]], 0, most)} for each "
            f"example. Received: {name} of shape {labels.shape} for {count} examples, {name} of "
            f"type {labels.dtype}{numbers}"
        )
    return labels


def _kind(value: Value) -> str | None:
    """Return the kind of a scalar, `"bool"`, `"int"` or `"float"`, or `None` for other values.

    Scalars of the backends are recognised by their shape and the name of their dtype. `int()` and
    `float()` would also accept strings and arrays of one element.
    """
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, Integral):
        return "int"
    if isinstance(value, Real):
        return "float"
    if tuple(getattr(value, "shape", (None,))) != ():
        return None
    found = re.search("bool|int|float", str(getattr(value, "dtype", None)))
    return found[0] if found else None


def _items(value: object) -> tuple[Any, ...] | None:
    """Return the items of a tuple, list or array with one axis, or `None` for other values."""
    if isinstance(value, (tuple, list)):
        return tuple(value)
    return tuple(cast("Iterable[Any]", value)) if getattr(value, "ndim", None) == 1 else None


def _integer(value: int, minimum: int, maximum: int) -> int | None:
    """Return a scalar as an `int`, or `None` if it is not an integer or is out of range."""
    number = operator.index(value) if _kind(value) == "int" else None
    return None if number is None or not minimum <= number <= maximum else number


def _integers(
    value: Sequence[int], lengths: Collection[int] | None, minimum: int, maximum: int
) -> tuple[int, ...] | None:
    """Return a tuple of integers, or `None` for another type, length or range."""
    is_sequence = isinstance(value, (tuple, list, range))
    if not is_sequence or (lengths is not None and len(value) not in lengths):
        return None
    found = [_integer(item, minimum, maximum) for item in value]
    numbers = tuple(number for number in found if number is not None)
    return numbers if len(numbers) == len(found) else None


def _range(values: Iterable[int], minimum: int, maximum: int) -> str:
    """Describe a range of integers. `LARGEST_INT` is stated only if a value exceeds it."""
    too_large = any(_kind(one) == "int" and operator.index(one) > maximum for one in values)
    most = f" and at most {maximum}" if too_large or maximum < LARGEST_INT else ""
    return f"of at least {minimum}{most}"


def _number(value: float) -> float | None:
    """Return a scalar as a finite `float`, or `None` for other values."""
    if _kind(value) not in ("int", "float"):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _equal(value: Choice, choice: Choice) -> bool:
    """Return whether two values are equal. The result for arrays is one boolean too."""
    return isinstance(value, (type(choice), Number)) and value == choice
