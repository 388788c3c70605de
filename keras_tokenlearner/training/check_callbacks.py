"""Checks the callbacks that a user passes to `distill` or `devices.fit`."""

from collections.abc import Sequence

import keras


def check_callbacks(
    owner: str, value: Sequence[keras.callbacks.Callback] | keras.callbacks.Callback | None
) -> list[keras.callbacks.Callback]:
    """Return callbacks of Keras as a list, or raise `ValueError`. `value` may be one callback."""
    found = [value] if _is_callback(value) else [] if value is None else value
    if not isinstance(found, (tuple, list)) or not all(map(_is_callback, found)):
        raise ValueError(
            f"{owner}: `callbacks` must be a list of keras.callbacks.Callback, one callback or "
            f"None. Received: callbacks={repr(value)[:200]}"
        )
    return list(found)


def _is_callback(value: object) -> bool:
    return isinstance(value, keras.callbacks.Callback)
