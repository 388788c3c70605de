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


def check_float(owner: str, policy: keras.DTypePolicy) -> None:
    """Raise `ValueError` if a policy, or one in a map of policies, is quantized or of integers."""
    is_map = isinstance(policy, keras.dtype_policies.DTypePolicyMap)
    for each in (policy, *(policy.values() if is_map else ())):
        dtypes = (each.variable_dtype, each.compute_dtype)
        if each.quantization_mode is None and all(map(keras.backend.is_float_dtype, dtypes)):
            continue
        fix = "For quantized weights, build the float model, then call `quantize`. "
        raise ValueError(
            f"{owner}: `dtype` must be a policy of floats, such as 'mixed_bfloat16'. "
            f"{'' if each.quantization_mode is None else fix}Received: dtype={each.name!r}"
        )


def policy_of(owner: str, dtype: str | keras.DTypePolicy | None) -> keras.DTypePolicy:
    """Return the dtype policy of a name or an object, or the global policy for `None`."""
    try:
        with dtype_policy(keras.config.dtype_policy() if dtype is None else dtype):
            policy = keras.config.dtype_policy()
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{owner}: `dtype` must be a keras.DTypePolicy or its name, such as 'mixed_bfloat16'. "
            f"Received: dtype={dtype!r}"
        ) from error
    check_float(owner, policy)
    return policy
