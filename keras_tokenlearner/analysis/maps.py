from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_tokenlearner._checks import Shape, check_model
from keras_tokenlearner.layers import TokenLearner
from keras_tokenlearner.layers.grids import resolve_grid
from keras_tokenlearner.models.features import clone_layer, uncompiled, with_calls
from keras_tokenlearner.models.retrofit import weights_problem
from keras_tokenlearner.models.state import set_weights


def token_maps(
    model: keras.Model, images: np.ndarray, layer: str | None = None, batch_size: int = 32
) -> np.ndarray:
    """Return the attention maps of a model's TokenLearner for some images.

    Args:
        model: A functional `keras.Model` with a `TokenLearner`.
        images: Array of inputs of the model, (B, ...).
        layer: Name of the `TokenLearner`. Defaults to the first. In a model with fusers, the inputs
            of later TokenLearners already contain fused tokens.
        batch_size: Integer, images per batch.

    Returns:
        Array of type float32 and shape (B, H, W, S), or (B, T, H, W, S) for videos. Map s of image
        b is `maps[b, ..., s]`.

    Raises:
        ValueError: If the model has no `TokenLearner`, or no `TokenLearner` with that name. Also if
            the images do not have the input shape of the model.

    Example:

    >>> model = create_model("tokenlearner_pico8_4at1", classes=10)
    >>> token_maps(model, np.zeros((2, 32, 32, 3))).shape
    (2, 4, 4, 4)

    Source: Figure 10 of the paper.
    """
    _, maps = _learned("token_maps", model, images, layer, batch_size)
    return maps


def token_similarity(
    model: keras.Model, images: np.ndarray, layer: str | None = None, batch_size: int = 32
) -> np.ndarray:
    """Return the cosine similarity of the tokens that a model learns from images.

    Args:
        model: A functional `keras.Model` with a `TokenLearner`.
        images: Array of inputs of the model, (B, ...).
        layer: Name of the `TokenLearner`. Defaults to the first.
        batch_size: Integer, images per batch.

    Returns:
        Array of type float32 and shape (B, S, S), the cosine between every two tokens of an image.
        For videos with S tokens in each of T frames, the shape is (B, T * S, T * S).

    Raises:
        ValueError: If the model has no `TokenLearner`, or no `TokenLearner` with that name. Also if
            the images do not have the input shape of the model.

    Example:

    >>> model = create_model("tokenlearner_pico8_4at1", classes=10)
    >>> token_similarity(model, np.ones((2, 32, 32, 3))).shape
    (2, 4, 4)
    """
    tokens, _ = _learned("token_similarity", model, images, layer, batch_size)
    tokens = tokens / np.maximum(np.linalg.norm(tokens, axis=-1, keepdims=True), 1e-9)
    return tokens @ tokens.transpose(0, 2, 1)


def position_entropy(maps: np.ndarray) -> np.ndarray:
    """Return the entropy of the tokens' shares of each position of an image, from 0 to 1.

    Every map is divided by its sum, so all tokens have the same weight. At each position, the
    shares of the S tokens have an entropy. The result is this entropy divided by log S, the largest
    possible entropy.

    Args:
        maps: Array of shape (..., H, W, S) from `token_maps`.

    Returns:
        Array of shape (..., H, W). At 0, one token has all the weight. At 1, all tokens have equal
        weights.

    Example:

    >>> maps = np.array([[[1.0, 1.0], [3.0, 0.0]]])
    >>> np.round(position_entropy(maps), 2).tolist()
    [[0.72, 0.0]]
    """
    maps = np.maximum(maps, 0)
    maps = maps / np.maximum(maps.sum((-3, -2), keepdims=True), 1e-9)
    shares = maps / np.maximum(maps.sum(-1, keepdims=True), 1e-9)
    entropy = (shares * np.log(1 / np.maximum(shares, 1e-12))).sum(-1)
    return entropy / np.log(max(maps.shape[-1], 2))


def with_token_maps(model: keras.Model, layer: str | None = None) -> keras.Model:
    """Copy a model, and add the attention maps of a TokenLearner to the outputs of the copy.

    Args:
        model: A functional `keras.Model` with a `TokenLearner`.
        layer: Name of the `TokenLearner`. Defaults to the first.

    Returns:
        A `keras.Model` with copies of the weights, which returns a dictionary of `outputs` and
        `token_maps`. Maps have shape (B, H, W, S), or (B, T, H, W, S) for videos.

    Raises:
        ValueError: If the model has no `TokenLearner`, or no `TokenLearner` with that name. Also if
            the model has LoRA weights or quantized weights.

    Example:

    >>> model = create_model("tokenlearner_pico8_4at1", classes=10)
    >>> tuple(with_token_maps(model)(np.zeros((2, 32, 32, 3)))["token_maps"].shape)
    (2, 4, 4, 4)
    """
    learner = learner_of("with_token_maps", model, layer)
    copy = _with_maps("with_token_maps", model, [learner])
    return keras.Model(
        copy.input, {"outputs": copy.output[0], "token_maps": copy.output[1]}, name=model.name
    )


def with_all_token_maps(model: keras.Model) -> keras.Model:
    """Copy a model, and add the attention maps of all TokenLearners to the outputs of the copy.

    Args:
        model: A functional `keras.Model`, with any number of TokenLearners.

    Returns:
        A `keras.Model` with copies of the weights, which returns a dictionary of `outputs` and
        `token_maps`. `token_maps` is a dictionary from names of TokenLearners to attention maps.
    """
    learners = _learners(model)
    copy = _with_maps("with_all_token_maps", model, list(learners.values()))
    maps = dict(zip(learners, copy.output[1:], strict=True))
    return keras.Model(copy.input, {"outputs": copy.output[0], "token_maps": maps}, name=model.name)


def _with_maps(owner: str, model: keras.Model, learners: Sequence[TokenLearner]) -> keras.Model:
    """Return a copy of a model that returns a list: its output, then the maps of the learners."""
    problem = weights_problem(model)
    if problem:
        raise ValueError(f"{owner}: {problem}")
    found: dict[str, keras.KerasTensor] = {}

    def call(
        layer: keras.layers.Layer, *inputs: keras.KerasTensor, **arguments: Any
    ) -> keras.KerasTensor:
        if layer.name not in {learner.name for learner in learners}:
            return layer(*inputs, **arguments)
        both = layer(*inputs, **{**arguments, "return_maps": True})
        found[layer.name] = both[1]
        return both if arguments.get("return_maps") else both[0]

    copy = keras.models.clone_model(
        uncompiled(model), clone_function=clone_layer, call_function=call
    )
    set_weights(copy, model.get_weights())
    maps = []
    for learner in learners:
        sizes = _sizes(learner, found[learner.name].shape)
        name = "token_maps" if len(learners) == 1 else f"{learner.name}_maps"
        reshape = keras.layers.Reshape(sizes, dtype="float32", name=name)
        maps.append(reshape(found[learner.name]))
    return keras.Model(copy.input, [copy.output, *maps])


def _sizes(learner: TokenLearner, shape: Shape) -> tuple[int, ...]:
    """Return the sizes of one example's maps: (H, W, S), or (T, H, W, S) for videos.

    `shape` is the shape of the maps, (B, ..., S). An unknown size becomes -1.
    """
    if learner.grid is not None and len(shape) == 3:
        frames, *sizes = resolve_grid("token_maps", shape, learner.grid)
        is_image = frames == 1 and len(learner.grid) == 2
        shape = (None, *(sizes if is_image else [frames, *sizes]), shape[-1])
    return tuple(-1 if size is None else size for size in shape[1:])


def _learned(
    owner: str, model: keras.Model, images: np.ndarray, layer: str | None, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the tokens and the maps of a model's TokenLearner, of type float32."""
    learner = learner_of(owner, model, layer)
    images, wanted = np.asarray(images), (None, *model.inputs[0].shape[1:])
    sizes = zip(images.shape, wanted, strict=False)
    if images.ndim != len(wanted) or any(size not in (found, None) for found, size in sizes):
        raise ValueError(
            f"{owner}: `images` must have the input shape of the model, {wanted}, with any batch "
            f"size. Received: images of shape {images.shape}"
        )
    copy, calls = with_calls(model)
    call = calls[learner.name]
    inputs = keras.Model(copy.inputs, call.inputs).predict(images, batch_size=batch_size, verbose=0)
    found = []
    for start in range(0, len(inputs), batch_size):
        batch = {"inputs": inputs[start : start + batch_size], "return_maps": True}
        both = learner(**{**call.arguments, **batch})
        found.append([keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")) for x in both])
    tokens, maps = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return tokens, maps.reshape(len(maps), *_sizes(learner, maps.shape))


def learner_of(owner: str, model: keras.Model, layer: str | None = None) -> TokenLearner:
    """Return the TokenLearner named `layer`, or the first, or raise `ValueError` without one."""
    check_model(owner, "model", model)
    learners = _learners(model)
    inside = model_with_learners(model)
    if not learners and inside is not None:
        raise ValueError(
            f"{owner}: `model` must have its TokenLearner among its own layers; pass the model "
            f"inside it. Received: model {model.name!r}, which contains the model {inside.name!r}"
        )
    if not learners:
        raise ValueError(
            f"{owner}: `model` has no TokenLearner; pass a `tokenlearner_*` model of the "
            f"catalogue, or the result of `retrofit`. Received: model {model.name!r}"
        )
    if layer is not None and layer not in learners:
        raise ValueError(
            f"{owner}: `layer` must name a TokenLearner of the model, one of {list(learners)}. "
            f"Received: layer={layer!r}, model {model.name!r}"
        )
    return learners[layer] if layer else next(iter(learners.values()))


def model_with_learners(model: keras.Model) -> keras.Model | None:
    """Return the first model with a TokenLearner: `model`, or a model inside it, or `None`."""
    if _learners(model):
        return model
    parts = (layer for layer in model.layers if isinstance(layer, keras.Model))
    return next((found for part in parts if (found := model_with_learners(part))), None)


def _learners(model: keras.Model) -> dict[str, TokenLearner]:
    """Return the TokenLearners of a model by name, in the order of the model's layers."""
    return {layer.name: layer for layer in model.layers if isinstance(layer, TokenLearner)}
