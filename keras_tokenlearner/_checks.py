"""Checks of arguments, shared by layers and models; each failure says what to pass instead."""

import difflib
import numbers
from collections.abc import Collection
from typing import TypeVar

import keras

MANY = 12  # choices that are too many to stand before the nearest
_Choice = TypeVar("_Choice")


def check_int(owner, name, value, minimum=1):
    """Return `value` as an `int` of at least `minimum`, or raise `ValueError`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < minimum:
        raise ValueError(
            f"{owner}: `{name}` must be an integer of at least {minimum}. "
            f"Received: {name}={value!r}"
        )
    return int(value)


def check_ints(owner, name, value, lengths, minimum=1):
    """Return `value` as a tuple of integers whose length is in `lengths`."""
    if not isinstance(value, (tuple, list)) or len(value) not in lengths:
        expected = " or ".join(str(length) for length in lengths)
        raise ValueError(
            f"{owner}: `{name}` must be a tuple of {expected} integers. Received: {name}={value!r}"
        )
    return tuple(check_int(owner, name, item, minimum) for item in value)


def check_pairs(owner, name, value):
    """Return `value` as a tuple of one or more pairs of integers."""
    if not isinstance(value, (tuple, list)) or not value:
        raise ValueError(
            f"{owner}: `{name}` must be a tuple of pairs of integers. Received: {name}={value!r}"
        )
    return tuple(check_ints(owner, name, pair, lengths=(2,)) for pair in value)


def check_rate(owner, name, value):
    """Return `value` as a `float` in [0, 1), or raise `ValueError`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= value < 1:
        raise ValueError(
            f"{owner}: `{name}` must be a number in [0, 1). Received: {name}={value!r}"
        )
    return float(value)


def check_choice(
    owner: str, name: str, value: _Choice, choices: Collection[_Choice], listed_by: str = ""
) -> _Choice:
    """Return `value` if it is one of `choices`, or raise `ValueError` with the nearest ones.

    Of many choices the nearest come first, and the others only where there is no near one and
    `listed_by`, the code that lists them, is not given.
    """
    if value in choices:
        return value
    near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=3)
    hint = f" Did you mean {' or '.join(repr(match) for match in near)}?" if near else ""
    received = f" Received: {name}={value!r}."
    if len(choices) <= MANY:
        text = f"`{name}` must be one of {list(choices)}.{received}{hint}"
    elif listed_by:
        text = f"`{name}` is unknown.{hint}{received} {listed_by} gives all {len(choices)}."
    else:
        text = f"`{name}` is unknown.{hint}{received} It must be one of {list(choices)}."
    raise ValueError(f"{owner}: {text}")


def check_positive(owner, name, value):
    """Return `value` as a `float` above zero, or raise `ValueError`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not value > 0:
        raise ValueError(
            f"{owner}: `{name}` must be a number above zero. Received: {name}={value!r}"
        )
    return float(value)


def check_channels(owner, shape, rank=None):
    """Return the last size of a shape, the channels, which must be known; `rank` is optional."""
    if (rank is not None and len(shape) != rank) or shape[-1] is None:
        layout = {3: "(B, N, C)"}.get(rank, "(..., C)")
        raise ValueError(
            f"{owner}: inputs must have shape {layout} with known C, the channels. "
            f"Received: shape={tuple(shape)}"
        )
    return shape[-1]


def check_heads(owner, num_heads, channels):
    """Return the channels of a head, or raise `ValueError` where heads do not divide channels."""
    if channels % num_heads:
        raise ValueError(
            f"{owner}: `num_heads` must divide the channels. "
            f"Received: num_heads={num_heads} with {channels} channels"
        )
    return channels // num_heads


def check_channels_last(owner):
    """Raise `ValueError` if Keras is set to images with the channels first."""
    if keras.config.image_data_format() == "channels_first":
        raise ValueError(
            f"{owner}: only channels_last is supported; call "
            "keras.config.set_image_data_format('channels_last'). Received: 'channels_first'"
        )
