import keras
from keras import layers

from keras_tokenlearner._checks import check_bool, check_channels_last, check_choice, check_int
from keras_tokenlearner.models.bottleneck import add_part, convolution


def x2plus1d(
    config,
    input_shape=None,
    input_tensor=None,
    include_top=True,
    include_preprocessing=True,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    name=None,
):
    """Build an X(2+1)D video network, with or without TokenLearner, as a functional `keras.Model`.

    It is X3D-M with the changes that section 6.1 of the paper names: every 3-D convolution is a
    2-D and a 1-D one, squeeze-and-excitation is gone, ReLU stands for swish. A unit is an expanding
    1x1x1 convolution, a module, a projecting 1x1x1 convolution and a shortcut; batch normalisation
    and ReLU follow every convolution and every part of a module, but after the projection ReLU
    follows the sum. The module is `conv2d+conv1d`, and in some units of the last stage what
    `config.unit` says. The authors released no code. That the convolutions are dense, where X3D's
    are by channel, is inferred from the paper's costs: so 527 GFLOPs are counted for the printed
    532 of the backbone.

    Every stage halves height and width in its first unit, by the 3x3 convolution, or by the
    expanding one where the unit's module does not begin with `conv2d`. All frames are kept. The
    last normalisation of a unit starts at zero, so that the unit starts as its shortcut. With a
    `tokenlearner`, `fuser`, `mlpmixer` or `prior_broadcast` the weights depend on the number of
    frames.

    Args:
        config: An `X2Plus1DConfig`.
        input_shape: `(frames, height, width, channels)`. Not needed with an `input_tensor`.
        input_tensor: Keras tensor to build on, in place of an input of its own.
        include_top: Boolean, whether the classifier is part of the model, and the layer of
            `head_channels` before it.
        include_preprocessing: Boolean, whether the model takes pixels in [0, 255] and scales them
            to [-1, 1] itself.
        pooling: Without top: `None` for the features of every place,
            (B, T, H, W, inner channels of the last stage), `"avg"` or `"max"`.
        classes: Integer, classes of the top.
        classifier_activation: Activation of the top; `None` gives logits.
        name: Name of the model.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: If input and config do not fit each other.

    Example:

    >>> from keras_tokenlearner.models import X2Plus1DConfig
    >>> config = X2Plus1DConfig(
    ...     "conv2d+tokenlearner",
    ...     stage_channels=(8, 16),
    ...     inner_channels=(16, 32),
    ...     stage_units=(1, 2),
    ... )
    >>> model = x2plus1d(config, input_shape=(4, 32, 48, 3), classes=10)
    >>> model.output_shape
    (None, 10)

    Source: Ryoo et al., "TokenLearner: What Can 8 Learned Tokens Do for Images and Videos?",
    2021, section 6, after Feichtenhofer, "X3D: Expanding Architectures for Efficient Video
    Recognition", 2020.
    """
    include_top = check_bool("x2plus1d", "include_top", include_top)
    include_preprocessing = check_bool("x2plus1d", "include_preprocessing", include_preprocessing)
    inputs = _inputs(input_shape, input_tensor)
    check_choice("x2plus1d", "pooling", pooling, (None, "avg", "max"))
    if include_top:
        classes = check_int("x2plus1d", "classes", classes)
    x = inputs
    if include_preprocessing:
        x = layers.Rescaling(1 / 127.5, offset=-1.0, name="preprocessing")(x)
    x = convolution(x, config.stem_channels, (1, 3, 3), "stem_conv2d", strides=(1, 2, 2))
    x = convolution(x, config.stem_channels, (5, 1, 1), "stem_conv1d")
    x = _normalise(config, x, "stem")
    last = len(config.stage_units) - 1
    for stage, units in enumerate(config.stage_units):
        for unit in range(units):
            replaced = stage == last and unit in config.replaced_units
            parts = config.parts if replaced else ("conv2d", "conv1d")
            x = _unit(config, x, parts, stage, unit)
    x = convolution(x, config.inner_channels[-1], 1, "features")
    x = _normalise(config, x, "features")
    if include_top:
        x = _top(config, x, classes, classifier_activation)
    elif pooling:
        x = _pool(pooling)(x)
    if input_tensor is not None:
        inputs = keras.utils.get_source_inputs(input_tensor)
    return keras.Model(inputs, x, name=name)


def _inputs(input_shape, input_tensor):
    """Return the tensor to build on, once it is known to be a video of known sizes."""
    check_channels_last("x2plus1d")
    if input_tensor is None and input_shape is None:
        raise ValueError("x2plus1d: pass `input_shape` or `input_tensor`. Received neither")
    shape = tuple(input_shape if input_tensor is None else input_tensor.shape[1:])
    if len(shape) != 4 or None in shape:
        raise ValueError(
            "x2plus1d: inputs must be (frames, height, width, channels), all known. "
            f"Received: input_shape={shape}"
        )
    return keras.Input(shape, name="inputs") if input_tensor is None else input_tensor


def _unit(config, x, parts, stage, unit):
    """Add one bottleneck unit (Figure 9)."""
    name = f"stage_{stage}_unit_{unit}"
    channels, inner = config.stage_channels[stage], config.inner_channels[stage]
    strides = (1, 1, 1) if unit else (1, 2, 2)
    by_module = parts[0] == "conv2d"
    shortcut = x
    x = convolution(x, inner, 1, f"{name}_expand", strides=1 if by_module else strides)
    x = _normalise(config, x, f"{name}_expand")
    for index, part in enumerate(parts):
        part_name = f"{name}_{index}_{part}"
        x = add_part(config, part, x, part_name, strides=1 if index else strides)
        x = _normalise(config, x, part_name)
    x = convolution(x, channels, 1, f"{name}_project")
    x = _norm(config, f"{name}_project", gamma_initializer="zeros")(x)
    if unit == 0:
        shortcut = convolution(shortcut, channels, 1, f"{name}_shortcut", strides=strides)
        shortcut = _norm(config, f"{name}_shortcut")(shortcut)
    x = layers.Add(name=f"{name}_sum")([shortcut, x])
    return layers.ReLU(name=f"{name}_relu")(x)


def _norm(config, name, **arguments):
    return layers.BatchNormalization(
        axis=-1,
        momentum=config.batch_norm_momentum,
        epsilon=config.batch_norm_epsilon,
        name=f"{name}_norm",
        **arguments,
    )


def _normalise(config, x, name):
    return layers.ReLU(name=f"{name}_relu")(_norm(config, name)(x))


def _pool(pooling, keepdims=False):
    kind = layers.GlobalAveragePooling3D if pooling == "avg" else layers.GlobalMaxPooling3D
    return kind(data_format="channels_last", keepdims=keepdims, name="pooling")


def _top(config, x, classes, activation):
    x = _pool("avg", keepdims=True)(x)
    x = convolution(x, config.head_channels, 1, "pre_head")
    x = layers.ReLU(name="pre_head_relu")(x)
    x = layers.Flatten(data_format="channels_last", name="pre_head_flat")(x)
    x = layers.Dropout(config.dropout_rate, name="dropout")(x)
    normal = keras.initializers.RandomNormal(stddev=0.01)
    x = layers.Dense(classes, kernel_initializer=normal, name="head")(x)
    return layers.Activation(activation, dtype="float32", name="predictions")(x)
