import dataclasses
from typing import overload

import keras
import numpy as np

from keras_tokenlearner._checks import check_int, check_model
from keras_tokenlearner._errors import listed, own_errors
from keras_tokenlearner._precision import dtype_policy
from keras_tokenlearner.layers import TokenFuser, TokenLearner
from keras_tokenlearner.models.features import clone_layer, copy_attributes, uncompiled
from keras_tokenlearner.models.retrofit import call_copy, copy_weights, weights_problem
from keras_tokenlearner.models.vision_model import VisionModel, settings_of, values_of
from keras_tokenlearner.models.vision_transformer import VisionTransformer


@overload
def with_tokens(
    model: VisionModel, num_tokens: int, name: str | None = None
) -> VisionTransformer: ...


@overload
def with_tokens(model: keras.Model, num_tokens: int, name: str | None = None) -> keras.Model: ...


@own_errors
def with_tokens(model: keras.Model, num_tokens: int, name: str | None = None) -> keras.Model:
    """Return a copy of a model with fewer learned tokens.

    `Distiller(budgets=...)` trains a model for several numbers of tokens, the budgets. After this
    training, call `with_tokens` once for each number. The first `num_tokens` of the learned tokens
    cover the whole image. The new model has its own weights. Save and export the new model like
    any other model.

    Args:
        model: A model whose TokenLearners start from a grid (`position_bias=True`), for example
            from `retrofit(..., token_start="grid")`. The model must have no `TokenFuser`.
        num_tokens: Integer, tokens of each image or frame, at most the `num_tokens` of `model`.
        name: Name of the new model. Defaults to the name of `model` and a suffix, such as
            `_8tokens`.

    Returns:
        A `VisionTransformer`, or a functional `keras.Model` for any other `model`. All layers are
        trainable, also layers that are frozen in `model`. Inputs and outputs have the shapes of
        `model`. As an exception, a model without top, pooling and fuser returns fewer tokens.

    Raises:
        ValueError: If `model` has no TokenLearner, or a TokenLearner that does not start from a
            grid. Also if `model` has a TokenFuser, LoRA weights or quantized weights. Also if
            `num_tokens` is larger than the `num_tokens` of `model`, or your own head needs a fixed
            number of tokens.

    Example:

    >>> student = retrofit(create_model("vit_pico8", classes=10), at=1, num_tokens=8)
    >>> small = with_tokens(student, 4)
    >>> small.name, costs(small).macs < costs(student).macs
    ('vit_pico8_8at1_4tokens', True)
    """
    check_model("with_tokens", "model", model, functional=True)
    problem = reduction_problem(model)
    if problem:
        raise ValueError(f"with_tokens: {problem}")
    most = min(each.num_tokens for each in _learners(model))
    check_int("with_tokens", "num_tokens", num_tokens, maximum=most)
    name = name or f"{model.name}_{num_tokens}tokens"
    if isinstance(model, VisionModel):
        config = values_of(dataclasses.replace(model.config, num_tokens=num_tokens))
        settings = {**settings_of(model), "config": config, "name": name, "parents": []}
        small = type(model).from_config({**settings, "trainable": True, "frozen": {}})
    else:
        small = _cloned(model, num_tokens, name)
    for layer in model.layers:
        if not layer.weights:  # a copy of an input may have another name
            continue
        copy = small.get_layer(layer.name)
        copy_weights(copy, _first(layer, num_tokens))
        if isinstance(layer, TokenLearner):  # fewer cells of the grid have another tree
            copy.parents = layer.parents[:num_tokens]
    return small


def reduction_problem(model: keras.Model) -> str:
    """Return why `with_tokens` refuses a model, or an empty text."""
    learners = _learners(model)
    others = [each.name for each in learners if not each.position_bias]
    if not learners or others:
        found = listed(others) if others else "no TokenLearner"
        return (
            "each TokenLearner of `model` must start from a grid; build the model with "
            f"retrofit(..., token_start='grid'). Received: model {model.name!r} with {found}"
        )
    fusers = [layer.name for layer in model.layers if isinstance(layer, TokenFuser)]
    if fusers:  # the weights of a TokenFuser mix a fixed number of tokens
        return (
            "`model` must have no TokenFuser; in retrofit, pass fuser='unpool' or "
            "fuser='reproject', or a smaller `num_tokens`. "
            f"Received: model {model.name!r} with {listed(fusers)}"
        )
    return weights_problem(model)


def _learners(model: keras.Model) -> list[TokenLearner]:
    return [layer for layer in model.layers if isinstance(layer, TokenLearner)]


def _cloned(model: keras.Model, num_tokens: int, name: str) -> keras.Model:
    """Return an untrained copy of a model, with `num_tokens` tokens in each TokenLearner."""

    def clone(layer: keras.Layer) -> keras.Layer:
        if isinstance(layer, TokenLearner):
            return clone_layer(layer, num_tokens=num_tokens, parents=None)
        return clone_layer(layer)

    copy = keras.models.clone_model(
        uncompiled(model), clone_function=clone, call_function=call_copy
    )
    with dtype_policy(_learners(model)[0].dtype_policy):  # decides whether `compile` scales losses
        small = keras.Model(copy.input, copy.output, name=name)
    copy_attributes(model, small)
    for layer in small.layers:
        layer.trainable = True
    return small


def _first(layer: keras.Layer, num_tokens: int) -> list[np.ndarray]:
    """Return a layer's weights, sliced to the first `num_tokens` tokens for a TokenLearner."""
    if not isinstance(layer, TokenLearner):
        return layer.get_weights()
    values = {weight.path: weight for weight in layer.weights}
    first = {layer.bias.path: layer.bias_of_first(num_tokens)}
    for weight in layer.mlp.output_dense.weights:
        first[weight.path] = values[weight.path][..., :num_tokens]
    return [keras.ops.convert_to_numpy(first.get(path, value)) for path, value in values.items()]
