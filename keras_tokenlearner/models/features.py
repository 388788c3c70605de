"""Functions that return a part of a model, or a model without its optimizer."""

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import layers

from keras_tokenlearner._checks import check_bool, check_ints
from keras_tokenlearner._json import JSON
from keras_tokenlearner._precision import dtype_policy
from keras_tokenlearner.models import names
from keras_tokenlearner.models.vision_model import VisionModel, settings_of
from keras_tokenlearner.models.vision_transformer import VisionTransformer


def feature_extractor(
    model: VisionTransformer, blocks: Sequence[int], normalize: bool = False
) -> keras.Model:
    """Return a model whose outputs are the tokens after some blocks, on the grid of the patches.

    The new model shares layers and weights with `model`. The new outputs omit the class token and
    registers. After a TokenFuser, all positions have tokens again. Learned tokens have no grid.
    After a TokenLearner, outputs have shape (B, S, C), or (B, T * S, C) with S tokens per frame.

    Args:
        model: A `VisionTransformer`, with or without top.
        blocks: Numbers of the blocks, counted from 0.
        normalize: Boolean, whether to apply the model's last norm to the outputs of each block.

    Returns:
        A `keras.Model`. Its outputs are a dictionary from names such as `"block_5"` to features.
        The shape is (B, H, W, C), (B, T, H, W, C) for videos, or the shape of learned tokens.

    Raises:
        ValueError: If `model` is not a `VisionTransformer`, or a number in `blocks` is out of
            range. Also if `normalize=True` and the model's `final_norm` is not `"tokens"`.

    Example:

    >>> model = create_model("vit_pico8", classes=10)
    >>> extractor = feature_extractor(model, blocks=(0, 1))
    >>> {name: x.shape for name, x in extractor.output.items()}
    {'block_0': (None, 4, 4, 32), 'block_1': (None, 4, 4, 32)}
    """
    owner = "feature_extractor"
    if not isinstance(model, VisionTransformer):
        raise ValueError(
            f"{owner}: `model` must be a VisionTransformer, for example from create_model. "
            f"Received: an object of class {type(model).__name__}"
        )
    check_bool(owner, "normalize", normalize)
    if normalize and model.config.final_norm != "tokens":
        raise ValueError(
            f"{owner}: `normalize` needs a model with final_norm='tokens'; leave `normalize` out. "
            f"Received: normalize=True, final_norm={model.config.final_norm!r}"
        )
    numbers = tuple(blocks) if isinstance(blocks, (list, tuple, range)) else (blocks,)
    outputs = {}
    for index in check_ints(owner, "blocks", numbers, minimum=0):
        if index >= model.config.num_layers:
            raise ValueError(
                f"{owner}: `blocks` must be numbers from 0 to {model.config.num_layers - 1}. "
                f"Received: blocks={blocks}"
            )
        with dtype_policy(model.dtype_policy):
            outputs[names.block_name(index)] = _features(model, index, normalize)
    if not outputs:
        raise ValueError(
            f"{owner}: `blocks` must have at least one number. Received: blocks={blocks}"
        )
    with dtype_policy(model.dtype_policy):  # decides whether `compile` scales losses
        return keras.Model(model.input, outputs, name=f"{model.name}_features")


def has_head(model: keras.Model) -> bool:
    """Return whether a model has a layer named `head`."""
    return any(layer.name == names.HEAD for layer in model.layers)


def uncompiled(model: keras.Model) -> keras.Model:
    """Return a functional model with the layers of `model`, but without optimizer and loss.

    `keras.models.clone_model` also compiles the clone of a compiled model. Compiling fails for a
    loss that is not registered with Keras. For other losses, compiling allocates the state of an
    optimizer.
    """
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    return keras.Model(model.input, model.output, name=model.name)


def clone_layer(layer: keras.Layer, **changes: JSON) -> keras.Layer:
    """Return a new, untrained layer with the config of `layer`, and with changed arguments.

    An own activation function of the layer stays the same object, because Keras cannot load it
    from its name. A `VisionModel` inside a model also keeps its functions.
    """
    if isinstance(layer, VisionModel):
        return type(layer).from_config({**settings_of(layer), **changes})
    settings = {**layer.get_config(), **changes}
    activation = getattr(layer, "activation", None)
    is_function = callable(activation) and not isinstance(activation, keras.Layer)
    if is_function and isinstance(settings.get("activation"), dict):  # not a name of Keras
        settings["activation"] = activation
    return type(layer).from_config(settings)


def copy_attributes(model: keras.Model, copy: keras.Model) -> None:
    """Set the attributes of a copied model that the user may have set on a plain `keras.Model`."""
    for attribute in ("class_names", "preprocessing"):
        if hasattr(model, attribute):
            setattr(copy, attribute, getattr(model, attribute))


class Call(NamedTuple):
    """A call of an operation or layer in the graph of a model.

    Attributes:
        operation: The operation or layer.
        args: The positional arguments.
        kwargs: The keyword arguments.
        outputs: The outputs.
    """

    operation: keras.Operation
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: Any

    @property
    def inputs(self) -> keras.KerasTensor:
        """The first symbolic tensor of the arguments."""
        found = keras.tree.flatten((self.args, self.kwargs))
        return next(x for x in found if isinstance(x, keras.KerasTensor))

    @property
    def arguments(self) -> dict[str, Any]:
        """All arguments, by the names in the signature of `call`."""
        return inspect.signature(self.operation.call).bind(*self.args, **self.kwargs).arguments


def with_calls(model: keras.Model) -> tuple[keras.Model, dict[str, Call]]:
    """Return a model with the same layers, and the last call of each of its layers, by name.

    The properties `input` and `output` of a layer are tensors of its first call. For a layer that
    was called several times, these tensors may belong to another output or to another model.

    Args:
        model: A functional model, or a `keras.Sequential` with known inputs.

    Example:

    >>> inputs, other, dense = keras.Input((4,)), keras.Input((4,)), keras.layers.Dense(2)
    >>> first, second = keras.Model(other, dense(other)), keras.Model(inputs, dense(inputs))
    >>> copy, calls = with_calls(second)
    >>> dense.input is first.input, calls[dense.name].inputs is copy.input
    (True, True)
    """
    calls: dict[str, Call] = {}
    whole = uncompiled(model)
    is_known = _has_first_calls(whole)

    def call(operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        # Keras keeps a node for each call of a layer, so known calls are not repeated.
        outputs = operation.output if is_known else operation(*args, **kwargs)
        calls[operation.name] = Call(operation, args, kwargs, outputs)
        return outputs

    # No other public function of Keras passes each call of a graph to a function.
    copy = keras.models.clone_model(
        whole,
        input_tensors=whole.input if is_known else None,
        clone_function=lambda layer: layer,
        call_function=call,
    )
    return copy, calls


def _has_first_calls(model: keras.Model) -> bool:
    """Return whether the graph of a functional model has only first calls of its operations.

    The properties `input` and `output` of all operations are then tensors of this graph. A
    functional model inside `model` has other properties: the tensors of its own graph.
    """
    sources = {id(x): one for one in model.operations for x in keras.tree.flatten(one.output)}
    seen, waiting = {id(x) for x in model.inputs}, list(model.outputs)
    while waiting:
        tensor = id(waiting.pop())
        if tensor in seen:
            continue
        if tensor not in sources:
            return False
        seen.add(tensor)
        waiting += keras.tree.flatten(sources[tensor].input)
    return True


def with_plain_output(model: keras.Model) -> keras.Model:
    """Return a model whose only output is not in a list or dictionary.

    `keras.Model(inputs, [output])` and `keras.Model(inputs, {"name": output})` have one output, but
    may predict a list or a dictionary. The new model shares the layers of `model`.

    Args:
        model: A model with known inputs. With several inputs or outputs, it is returned unchanged.

    Example:

    >>> model = create_model("vit_pico8", classes=3)
    >>> with_plain_output(keras.Model(model.inputs, {"scores": model.output})).output.shape
    (None, 3)
    """
    is_plain = isinstance(model, keras.Sequential) or isinstance(model.output, keras.KerasTensor)
    if is_plain or len(model.outputs) != 1 or len(model.inputs) != 1:
        return model
    plain = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    copy_attributes(model, plain)
    return plain


def _features(model: VisionTransformer, index: int, normalize: bool) -> keras.KerasTensor:
    config, prefix = model.config, model.config.num_prefix_tokens
    layer = names.block_name(index)
    fuser = config.fuser if index >= config.place else None
    if fuser is not None:
        layer = names.numbered(names.REJOIN if prefix else fuser, index)
    x = model.get_layer(layer).output
    if normalize:
        x = model.get_layer(names.NORM)(x)
    x = x[:, prefix:] if prefix else x
    if index >= config.place and fuser is None:
        return x
    return layers.Reshape((*model.grid, config.hidden_dim), name=f"{layer}_grid")(x)
