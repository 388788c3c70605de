import dataclasses
import math
from collections.abc import Sequence
from typing import overload

import keras
import numpy as np

from keras_tokenlearner._checks import check_choice, check_int
from keras_tokenlearner._errors import first_line, own_errors
from keras_tokenlearner._precision import dtype_policy
from keras_tokenlearner.models import names
from keras_tokenlearner.models.config import VisionTransformerConfig
from keras_tokenlearner.models.config_fields import REDUCERS, VisionTransformerFields
from keras_tokenlearner.models.features import clone_layer, copy_attributes, uncompiled
from keras_tokenlearner.models.reduction import (
    reduce_and_fuse,
    reduce_tokens,
    tokens_per_frame,
)
from keras_tokenlearner.models.rotations import call_block
from keras_tokenlearner.models.state import has_lora, quantization_of, set_weights
from keras_tokenlearner.models.structure import Structure
from keras_tokenlearner.models.vision_model import VisionModel, settings_of, values_of
from keras_tokenlearner.models.vision_transformer import VisionTransformer


@overload
def retrofit(
    model: VisionModel,
    at: int,
    num_tokens: int | None = None,
    fuser: str | None = None,
    token_attention: str | None = None,
    token_start: str | None = None,
    proportional_attention: bool | None = None,
    reducer: str = "token_learner",
    name: str | None = None,
) -> VisionTransformer: ...


@overload
def retrofit(
    model: keras.Model,
    at: int,
    num_tokens: int | None = None,
    fuser: str | None = None,
    token_attention: str | None = None,
    token_start: str | None = None,
    proportional_attention: bool | None = None,
    reducer: str = "token_learner",
    name: str | None = None,
) -> keras.Model: ...


@own_errors
def retrofit(
    model: keras.Model,
    at: int,
    num_tokens: int | None = None,
    fuser: str | None = None,
    token_attention: str | None = None,
    token_start: str | None = None,
    proportional_attention: bool | None = None,
    reducer: str = "token_learner",
    name: str | None = None,
) -> keras.Model:
    """Return a copy of a trained ViT with a TokenLearner: the student for `distill`.

    The student has the weights, head and preprocessing of `model`, which stays unchanged. A
    TokenLearner precedes block `at`. From there on, the blocks run on `num_tokens` tokens, the
    class token and the registers. These blocks have never seen learned tokens, so the student
    needs training by `distill` or `Distiller`.

    With `token_start="grid"`, the patches are divided into one rectangular cell for each token.
    Each token starts as the average of its cell. Other positions have relative weights of only
    exp(-8). The untrained student then returns nearly the outputs of a student with average
    pooling. With `token_start="random"`, all tokens start nearly equal, and training is slow.

    Args:
        model: A plain `VisionTransformer`, or a functional model of a ViT with your own head.
        at: Integer, number of blocks before the TokenLearner. Blocks are counted from 0, so the
            TokenLearner precedes block `at`.
        num_tokens: Integer, tokens to learn from each image or frame (S). Defaults to 8. Leave it
            out for `reducer="spatial_pooling"`, whose 2 x 2 windows decide the number.
        fuser: `None`, or `"token_fuser"`, `"unpool"` or `"reproject"`, as in
            `keras_tokenlearner.models.VisionTransformerConfig`. A fuser follows every block from
            `at` on, as in model (b) of the paper. The student then returns all tokens.
        token_attention: `"mlp"`, the maps of the authors' later code, or `"conv"`, the maps of the
            paper. Defaults to `"mlp"`. Only for `reducer="token_learner"`.
        token_start: `"grid"` or `"random"`, the start of the maps. Defaults to `"grid"` for
            `token_attention="mlp"`. `token_attention="conv"` needs `"random"`, because sigmoid maps
            cannot start as cells.
        proportional_attention: Boolean, whether later blocks weigh a learned token by the number
            of patches that the token replaces. Class token and registers then keep their share of
            the attention. Defaults to `True` for dot-product attention.
        reducer: `"token_learner"`, or an alternative of the paper, as in
            `keras_tokenlearner.models.VisionTransformerConfig`.
        name: Name of the new model. Defaults to the name of `model` and a suffix. For example,
            `_8at6` means 8 tokens from each image or frame, before block 6.

    Returns:
        A `VisionTransformer`, or a functional `keras.Model` for any other `model`. All layers are
        trainable, also layers that are frozen in `model`. Inputs and outputs have the shapes of
        `model`. As an exception, a student without top, pooling and fuser returns fewer tokens.

    Raises:
        ValueError: If `model` has learned tokens, LoRA weights or quantized weights. Also if
            `model` is not from this package. Also if an argument is out of range or has no effect.
            Also if your own head needs a fixed number of tokens, and `fuser` is `None`.

    Example:

    >>> teacher = create_model("vit_pico8", classes=10)
    >>> student = retrofit(teacher, at=1, num_tokens=4)
    >>> student.name, costs(student).macs < costs(teacher).macs
    ('vit_pico8_4at1', True)

    Source: models (a) and (b) of Figure 3 of the paper. The grid start is our addition.
    Proportional attention: Bolya et al., "Token Merging: Your ViT But Faster", 2023.
    """
    structure = Structure("retrofit", model)
    _check_plain(structure)
    check_int("retrofit", "at", at, minimum=0)
    check_choice("retrofit", "reducer", reducer, REDUCERS)
    pools, learns = reducer == "spatial_pooling", reducer == "token_learner"
    _check_unused("num_tokens", num_tokens, pools, reducer)
    _check_unused("token_attention", token_attention, not learns, reducer)
    token_attention = token_attention or "mlp"
    if token_start is None:
        token_start = "grid" if learns and token_attention == "mlp" else "random"
    if proportional_attention is None:
        proportional_attention = structure.config.block_attention == "dot_product"
    changes: VisionTransformerFields = {
        "reducer": reducer,
        "at": at,
        "fuser": fuser,
        "token_start": token_start,
        "proportional_attention": proportional_attention,
    }
    if learns:
        changes["token_attention"] = token_attention
    if not pools:
        changes["num_tokens"] = 8 if num_tokens is None else num_tokens
    config = dataclasses.replace(structure.config, **changes)
    name = name or f"{model.name}_{tokens_per_frame(config, structure.grid)}at{at}"
    if isinstance(model, VisionTransformer):
        student = _rebuilt(model, config, name)
    else:
        student = _cloned(structure, config, name)
    kept = {layer.name for layer in student.layers}
    for layer in model.layers:
        # Learned frequencies do not rotate learned tokens, so the student lacks some rotary layers.
        # A copy of an input, which has no weights, may have another name.
        if layer.weights and (layer.name in kept or not layer.name.startswith(names.ROTARY)):
            copy, known = student.get_layer(layer.name), layer.get_weights()
            # With proportional attention, the first weight of a block is new: `model` lacks it.
            own = copy.get_weights()[: len(copy.weights) - len(known)]
            copy_weights(copy, [*own, *known])
    return student


def copy_weights(copy: keras.Layer, weights: Sequence[np.ndarray]) -> None:
    """Set the weights of a layer in a copied model with another number of tokens.

    Raises:
        ValueError: If the layer needs the number of tokens of the original model.
    """
    for weight, value in zip(copy.weights, weights, strict=True):
        if tuple(weight.shape) != value.shape:
            raise _fixed_tokens(
                copy, f"weights of shape {value.shape}, and {tuple(weight.shape)} in the copy"
            )
    set_weights(copy, weights)


def call_copy(
    layer: keras.Layer, *args: keras.KerasTensor, **kwargs: keras.KerasTensor
) -> keras.KerasTensor:
    """Call a layer in a copied model with another number of tokens.

    Raises:
        ValueError: If the layer needs the number of tokens of the original model.
    """
    try:
        return layer(*args, **kwargs)
    except Exception as error:  # the user's layers can raise any error
        raise _fixed_tokens(layer, f"the error: {first_line(error)}") from error


def _fixed_tokens(layer: keras.Layer, received: str) -> ValueError:
    return ValueError(
        "retrofit: the head of `model` must take any number of tokens; pool the tokens, or "
        "pass a `fuser` to `retrofit`. "
        f"Received: layer {layer.name!r} with {received}"
    )


def _check_unused(name: str, value: int | str | None, is_unused: bool, reducer: str) -> None:
    """Raise `ValueError` for an argument that the reducer does not use."""
    if is_unused and value is not None:
        raise ValueError(
            f"retrofit: leave out `{name}`, which has no effect with reducer={reducer!r}. "
            f"Received: {name}={value!r}"
        )


def _check_plain(structure: Structure) -> None:
    """Raise `ValueError` for a model with reducers, LoRA weights or quantized weights."""
    problem = weights_problem(structure.model)
    reduced = structure.reducers + structure.fusers
    if reduced:
        added = ", ".join(layer.name for layer in reduced)
        problem = (
            "`model` must be a plain ViT; pass the model without learned tokens. "
            f"Received: model {structure.model.name!r} with the layers {added}"
        )
    if problem:
        raise ValueError(f"retrofit: {problem}")


def weights_problem(model: keras.Model) -> str:
    """Return why the weights of a model cannot be copied to a new model, or an empty text."""
    if has_lora(model):
        return (
            "`model` must have no LoRA weights; merge them with save_weights, and load the file "
            f"into a new model with load_weights. Received: model {model.name!r} with LoRA enabled"
        )
    if quantization_of(model):
        return (
            "`model` must have float weights; quantize the new model instead. Received: model "
            f"{model.name!r}, quantized to {quantization_of(model)}"
        )
    return ""


def _rebuilt(
    model: VisionTransformer, config: VisionTransformerConfig, name: str
) -> VisionTransformer:
    """Return a copy of a model with another config and new, trainable weights."""
    settings = settings_of(model, VisionTransformer)
    arguments = {**settings, "config": values_of(config), "name": name}
    return VisionTransformer.from_config({**arguments, "trainable": True, "frozen": {}})


def _cloned(structure: Structure, config: VisionTransformerConfig, name: str) -> keras.Model:
    """Return a copy of a custom model. The copy reduces its tokens and has new weights."""
    behind = [names.block_name(index) for index in range(config.place, config.num_layers)]
    first = behind[0] if behind else names.NORM
    if not behind and config.final_norm != "tokens":
        raise ValueError(
            f"retrofit: `at` must be below num_layers={config.num_layers} for a model with its own "
            f"head and final_norm={config.final_norm!r}. This model has no norm "
            f"between blocks and pooling. Received: at={config.at}"
        )

    table = None  # rotary table of the learned tokens

    def call(
        layer: keras.Layer, *args: keras.KerasTensor, **kwargs: keras.KerasTensor
    ) -> keras.KerasTensor:
        nonlocal table
        is_behind = layer.name in behind
        if config.fuser and is_behind:
            index = config.place + behind.index(layer.name)
            return reduce_and_fuse(config, structure.grid, index, layer, args[0])
        if not config.fuser and layer.name == first:
            tokens, table = reduce_tokens(config, structure.grid, args[0])
            args = (tokens, *args[1:])
        # The rotary table of the patches, in `kwargs`, does not fit learned tokens.
        if is_behind:
            return call_block(layer, args[0], table)
        return call_copy(layer, *args, **kwargs)

    def clone(layer: keras.Layer) -> keras.Layer:
        if not config.proportional_attention or layer.name not in behind:
            return clone_layer(layer)
        return clone_layer(
            layer,
            num_patches=math.prod(structure.grid),
            num_prefix_tokens=config.num_prefix_tokens,
        )

    with dtype_policy(structure.block.dtype_policy):
        copy = keras.models.clone_model(
            uncompiled(structure.model), clone_function=clone, call_function=call
        )
        student = keras.Model(copy.input, copy.output, name=name)
    copy_attributes(structure.model, student)
    for layer in student.layers:
        layer.trainable = True
    return student
