import keras
from keras import layers

from keras_tokenlearner.models import names
from keras_tokenlearner.models.bottleneck import add_part, convolution
from keras_tokenlearner.models.vision_model import Activation, VisionModel
from keras_tokenlearner.models.x2plus1d_config import X2Plus1DConfig


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class X2Plus1D(VisionModel):
    """An X(2+1)D video network, with or without TokenLearner, as a functional `keras.Model`.

    The network is X3D-M with the changes of section 6.1 of the paper. A 2-D and a 1-D convolution
    replace every 3-D convolution, squeeze-and-excitation is removed, and ReLU replaces swish.

    A unit is an expanding 1x1x1 convolution, a module, a projecting 1x1x1 convolution and a
    shortcut. Batch normalisation and ReLU follow the expanding convolution and every part of the
    module. Batch normalisation follows the projection, and ReLU follows the sum with the shortcut.
    The module is `conv2d+conv1d`. In some units of the last stage, the module is `config.unit`.

    The authors released no code. Our convolutions are dense, while X3D's are depthwise. We infer
    dense convolutions from the costs: we count 527 GFLOPs, and the paper prints 532 for the
    backbone.

    Every stage halves height and width in the 3x3 convolution of its first unit. If the module of
    this unit does not begin with `conv2d`, the expanding convolution halves them. The number of
    frames stays the same. The last normalisation of a unit starts at zero, so the unit starts as
    its shortcut. With `tokenlearner`, `fuser`, `mlpmixer` or `prior_broadcast`, the shapes of
    some weights depend on the number of frames.

    Args:
        config: An `X2Plus1DConfig`.
        input_shape: `(frames, height, width, channels)`. Not needed with an `input_tensor`.
        input_tensor: A `keras.Input` to build on, instead of a new input.
        include_top: Boolean, whether the model has the classifier and the layer of `head_channels`
            before it.
        include_preprocessing: Boolean, whether the model takes pixels in [0, 255] and normalises
            them itself.
        pooling: Output without top. `None` is the features of every position,
            (B, T, H, W, inner channels of the last stage). `"avg"` and `"max"` pool the positions.
        classes: Integer, classes of the top.
        classifier_activation: Activation of the top; `None` gives logits.
        preprocessing: A `Preprocessing`. Defaults to a scaling of pixels to [-1, 1].
        class_names: Names of the classes in their order, or `None`.
        dtype: Dtype policy of the layers. Defaults to the global policy.
        name: Name of the model.

    Raises:
        ValueError: If input shape and config contradict each other.

    Example:

    >>> from keras_tokenlearner.models import X2Plus1DConfig
    >>> config = X2Plus1DConfig(
    ...     "conv2d+tokenlearner",
    ...     stage_channels=(8, 16),
    ...     inner_channels=(16, 32),
    ...     stage_units=(1, 2),
    ... )
    >>> model = X2Plus1D(config, input_shape=(4, 32, 48, 3), classes=10)
    >>> model.output_shape
    (None, 10)
    >>> [block.output.shape[1:] for block in model.blocks]
    [(4, 8, 12, 8), (4, 4, 6, 16), (4, 4, 6, 16)]

    Source: Ryoo et al., "TokenLearner: What Can 8 Learned Tokens Do for Images and Videos?",
    2021, section 6. After: Feichtenhofer, "X3D: Expanding Architectures for Efficient Video
    Recognition", 2020.
    """

    config: X2Plus1DConfig
    config_class = X2Plus1DConfig

    poolings = ("avg", "max")

    @staticmethod
    def _axes(config: X2Plus1DConfig) -> tuple[str, ...]:
        return ("frames", "height", "width")

    @staticmethod
    def _graph(
        config: X2Plus1DConfig,
        x: keras.KerasTensor,
        pooling: str | None,
        classes: int | None,
        activation: Activation,
    ) -> keras.KerasTensor:
        x = _trunk(config, x)
        if classes is not None:
            return _top(config, x, classes, activation)
        return _pool(pooling)(x) if pooling else x

    @property
    def blocks(self) -> list[layers.ReLU]:
        """The last layer of each bottleneck unit, whose output is the output of the unit."""
        units = enumerate(self.config.stage_units)
        found = [names.unit_name(stage, unit) for stage, count in units for unit in range(count)]
        return [self.get_layer(f"{name}_relu") for name in found]


def _trunk(config: X2Plus1DConfig, x: keras.KerasTensor) -> keras.KerasTensor:
    x = convolution(x, config.stem_channels, (1, 3, 3), names.STEM_CONV2D, strides=(1, 2, 2))
    x = convolution(x, config.stem_channels, (5, 1, 1), names.STEM_CONV1D)
    x = _normalise(config, x, names.STEM)
    last = len(config.stage_units) - 1
    for stage, units in enumerate(config.stage_units):
        for unit in range(units):
            replaced = stage == last and unit in config.replaced_units
            parts = config.parts if replaced else ("conv2d", "conv1d")
            x = _unit(config, x, parts, stage, unit)
    x = convolution(x, config.inner_channels[-1], 1, names.FEATURES)
    return _normalise(config, x, names.FEATURES)


def _unit(
    config: X2Plus1DConfig,
    x: keras.KerasTensor,
    parts: tuple[str, ...],
    stage: int,
    unit: int,
) -> keras.KerasTensor:
    """Add one bottleneck unit (Figure 9)."""
    name = names.unit_name(stage, unit)
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


def _norm(
    config: X2Plus1DConfig, name: str, gamma_initializer: str = "ones"
) -> layers.BatchNormalization:
    return layers.BatchNormalization(
        axis=-1,
        momentum=config.batch_norm_momentum,
        epsilon=config.batch_norm_epsilon,
        name=f"{name}_norm",
        gamma_initializer=gamma_initializer,
    )


def _normalise(config: X2Plus1DConfig, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.ReLU(name=f"{name}_relu")(_norm(config, name)(x))


def _pool(pooling: str, keepdims: bool = False) -> layers.Layer:
    kind = layers.GlobalAveragePooling3D if pooling == "avg" else layers.GlobalMaxPooling3D
    return kind(data_format="channels_last", keepdims=keepdims, name=names.POOLING)


def _top(
    config: X2Plus1DConfig, x: keras.KerasTensor, classes: int, activation: Activation
) -> keras.KerasTensor:
    x = _pool("avg", keepdims=True)(x)
    x = convolution(x, config.head_channels, 1, names.PRE_HEAD)
    x = layers.ReLU(name=f"{names.PRE_HEAD}_relu")(x)
    x = layers.Flatten(data_format="channels_last", name=f"{names.PRE_HEAD}_flat")(x)
    x = layers.Dropout(config.dropout_rate, name=names.DROPOUT)(x)
    normal = keras.initializers.RandomNormal(stddev=0.01)
    x = layers.Dense(classes, kernel_initializer=normal, name=names.HEAD)(x)
    return layers.Activation(activation, dtype="float32", name=names.PREDICTIONS)(x)
