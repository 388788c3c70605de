import keras
import numpy as np

from keras_tokenlearner.layers import TokenLearner


def token_maps(model, images, layer=None, batch_size=32):
    """Return the maps that a model's TokenLearner weighs the positions of images with.

    Args:
        model: A functional `keras.Model` with a `TokenLearner`, of the catalogue or loaded.
        images: Array of what the model takes, (B, ...).
        layer: Name of the `TokenLearner`. Defaults to the first; in a model with fusers, where
            every block has its own, later ones see positions that are mixed already.
        batch_size: Integer, images at a time.

    Returns:
        Array of shape (B, H, W, S), or (B, T, H, W, S) for videos, of type float32: map s of
        image b is `maps[b, ..., s]`.

    Raises:
        ValueError: If the model has no `TokenLearner`, or none of that name.

    Example:

    >>> model = create_model("tokenlearner_pico8_4at1", classes=10)
    >>> token_maps(model, np.zeros((2, 32, 32, 3))).shape
    (2, 4, 4, 4)

    Source: Figure 10 of the paper.
    """
    learner = _learner("token_maps", model, layer)
    inputs = keras.Model(model.inputs, learner.input).predict(
        np.asarray(images), batch_size=batch_size, verbose=0
    )
    found = []
    for start in range(0, len(inputs), batch_size):
        _, maps = learner(inputs[start : start + batch_size], return_maps=True)
        found.append(keras.ops.convert_to_numpy(keras.ops.cast(maps, "float32")))
    maps = np.concatenate(found)
    return maps.reshape(len(maps), *(learner.grid or maps.shape[1:-1]), maps.shape[-1])


def with_token_maps(model, layer=None):
    """Return a copy of a model that gives its outputs and the maps of its TokenLearner.

    Args:
        model: A functional `keras.Model` with a `TokenLearner`.
        layer: Name of the `TokenLearner`. Defaults to the first.

    Returns:
        A `keras.Model` with copies of the weights. Its outputs are a dictionary: `outputs`, and
        `token_maps` of shape (B, H, W, S), or (B, T, H, W, S) for videos.

    Raises:
        ValueError: If the model has no `TokenLearner`, or none of that name.

    Example:

    >>> model = create_model("tokenlearner_pico8_4at1", classes=10)
    >>> tuple(with_token_maps(model)(np.zeros((2, 32, 32, 3)))["token_maps"].shape)
    (2, 4, 4, 4)
    """
    learner = _learner("with_token_maps", model, layer)
    found = []

    def call(layer, *inputs, **arguments):
        if layer.name != learner.name:
            return layer(*inputs, **arguments)
        tokens, maps = layer(*inputs, **arguments, return_maps=True)
        found.append(maps)
        return tokens

    copy = keras.models.clone_model(model, call_function=call)
    copy.set_weights(model.get_weights())
    shape = (*(learner.grid or learner.input.shape[1:-1]), learner.num_tokens)
    maps = keras.layers.Reshape(shape, dtype="float32", name="token_maps")(found[0])
    return keras.Model(copy.input, {"outputs": copy.output, "token_maps": maps}, name=model.name)


def _learner(owner, model, layer):
    learners = {x.name: x for x in model.layers if isinstance(x, TokenLearner)}
    if not learners or (layer is not None and layer not in learners):
        raise ValueError(
            f"{owner}: `layer` must be a TokenLearner of the model; it has {list(learners)}. "
            f"Received: layer={layer!r}, model {model.name!r}"
        )
    return learners[layer] if layer else next(iter(learners.values()))
