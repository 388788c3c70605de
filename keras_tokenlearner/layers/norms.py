"""The normalisations that a transformer may have, by name."""

import keras

from keras_tokenlearner._checks import check_choice
from keras_tokenlearner.layers.layer_normalization import LayerNormalization

NORMS = ("layer_norm", "rms_norm")


def norm_layer(
    owner: str,
    norm: str,
    epsilon: float,
    name: str | None = None,
    dtype: keras.DTypePolicy | str | None = None,
) -> keras.Layer:
    """Return a normalisation over the last axis.

    Args:
        owner: Name of the caller, for the error message.
        norm: `"layer_norm"`, with a mean, a scale and a shift, or `"rms_norm"`, with a scale
            alone: `x / sqrt(mean(x^2) + epsilon) * scale`.
        epsilon: Added to the variance, or to the mean square.
        name: Name of the layer.
        dtype: Its policy.

    Raises:
        ValueError: If `norm` is unknown.

    Example:

    >>> norm_layer("doctest", "rms_norm", 1e-6)(keras.random.normal((2, 8))).shape[-1]
    8

    Source: Zhang & Sennrich, "Root Mean Square Layer Normalization", 2019.
    """
    check_choice(owner, "norm", norm, NORMS)
    kind = LayerNormalization if norm == "layer_norm" else keras.layers.RMSNormalization
    return kind(epsilon=epsilon, name=name, dtype=dtype)
