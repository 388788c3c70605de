"""Calls the layers inside a layer, without the steps that the outer call has already done."""

import keras


def call_sublayer(
    owner: keras.Layer,
    layer: keras.Layer,
    *inputs: keras.KerasTensor,
    training: bool | None,
    **options: keras.KerasTensor | None,
) -> keras.KerasTensor:
    """Return `layer(*inputs, **options)`, several times faster than a plain call on PyTorch.

    `keras.Layer.__call__` binds and converts arguments, finds masks, and opens scopes of names and
    dtypes. Then it calls `__call__` of the base class of `keras.Layer`. A PyTorch model of small
    tensors spends most of its time on these steps. For a sublayer with the owner's dtype policy,
    the call of the owner has already done these steps. In this case, this function calls the base
    class directly. The base class still runs hooks of PyTorch, quantization and `keras.RematScope`.

    On other backends, this function makes a plain call. Compiled models do not repeat the steps,
    and the scopes name the operations for profilers.

    Args:
        owner: The layer that calls `layer` in its own `call`.
        layer: A built layer.
        *inputs: Tensors for the layer.
        training: Boolean or `None`, passed to layers with this argument.
        **options: Further arguments of the call. Tensors must have the dtype of the owner.
    """
    if "training" in layer.call_signature_parameters:
        options["training"] = training
    if _is_prepared(owner, layer, inputs):
        return super(keras.Layer, layer).__call__(*inputs, **options)
    return layer(*inputs, **options)


def _is_prepared(
    owner: keras.Layer, layer: keras.Layer, inputs: tuple[keras.KerasTensor, ...]
) -> bool:
    """Return whether `keras.Layer.__call__` has nothing left to do for a layer and its inputs."""
    policy = layer.dtype_policy
    return bool(
        keras.backend.backend() == "torch"
        and layer.built
        and policy is owner.dtype_policy
        and not isinstance(policy, keras.dtype_policies.DTypePolicyMap)
        and owner.autocast
        and (layer.autocast or _reads_no_scope(layer, policy))
        and layer.activity_regularizer is None
        and type(layer).__call__ is keras.Layer.__call__
        and keras.distribution.distribution() is None
        and all(_is_plain(x, policy.compute_dtype) for x in inputs)
    )


def _reads_no_scope(layer: keras.Layer, policy: keras.DTypePolicy) -> bool:
    """Return whether a layer without autocast needs no scope of its own for its weights."""
    norm = isinstance(layer, keras.layers.LayerNormalization)  # its weights are never cast
    return norm or policy.compute_dtype == policy.variable_dtype


def _is_plain(x: keras.KerasTensor, dtype: str) -> bool:
    """Return whether `x` is a PyTorch tensor with the given dtype and without a Keras mask."""
    return (
        keras.ops.is_tensor(x)
        and keras.backend.standardize_dtype(x.dtype) == dtype
        and getattr(x, "_keras_mask", None) is None
    )
