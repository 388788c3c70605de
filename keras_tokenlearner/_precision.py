"""A context manager for the dtype policy of new layers."""

import contextlib
from collections.abc import Iterator

import keras


@contextlib.contextmanager
def dtype_policy(policy: str | keras.DTypePolicy | None) -> Iterator[None]:
    """Set the dtype policy of new layers, and restore the previous policy afterwards.

    Args:
        policy: Name, such as `"mixed_bfloat16"`, or a `keras.DTypePolicy`.

    Example:

    >>> with dtype_policy("mixed_bfloat16"):
    ...     layer = keras.layers.Dense(3)
    >>> layer.compute_dtype, keras.config.dtype_policy().name
    ('bfloat16', 'float32')
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
