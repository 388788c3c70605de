import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias, TypedDict, Unpack, cast

import keras
from keras import layers

from keras_tokenlearner._checks import (
    check_bool,
    check_channels_last,
    check_choice,
    check_int,
    check_ints,
    check_is,
    check_names,
)
from keras_tokenlearner._errors import errors_of
from keras_tokenlearner._json import JSON
from keras_tokenlearner._precision import dtype_policy, policy_of
from keras_tokenlearner.layers import TokenLearner, activations
from keras_tokenlearner.layers.activations import Activation
from keras_tokenlearner.layers.composite import quantize_parts, quantized_parts
from keras_tokenlearner.models.config import VisionTransformerConfig
from keras_tokenlearner.models.config_fields import PresetArguments, SharedArguments
from keras_tokenlearner.models.names import HEAD, INPUTS
from keras_tokenlearner.models.preprocessing import Preprocessing
from keras_tokenlearner.models.state import freeze_parts, frozen_parts
from keras_tokenlearner.models.x2plus1d_config import X2Plus1DConfig

Config: TypeAlias = VisionTransformerConfig | X2Plus1DConfig
CustomObjects: TypeAlias = Mapping[str, type | Callable[..., keras.KerasTensor]]
Policy: TypeAlias = str | keras.DTypePolicy | None


class BuildArguments(SharedArguments, total=False):
    """The arguments of `VisionTransformer` and `X2Plus1D`, except for `config` and `classes`."""

    input_tensor: keras.KerasTensor | None
    include_top: bool
    preprocessing: Preprocessing | None
    dtype: Policy


class VisionModel(keras.Model):
    """A functional model that stores its config: the base class of all models of the package.

    You can cut, summarise, save and export the model like any functional Keras model. The saved
    config holds the fields of `config`, not the layers. The saved config also has the name, dtype
    and batch size of the input, and the frozen and quantized parts. A file has LoRA weights as part
    of their kernels, and the loaded model trains these kernels. `keras.models.clone_model` returns
    a plain `keras.Model`.

    A subclass defines `config_class`, `poolings`, `blocks`, and the methods `_axes` and `_graph`.

    Args:
        config: Instance of `config_class`. `VisionTransformer` describes the other arguments.

    Attributes:
        config: The dataclass whose fields decide the graph.
        include_top: Whether the classifier is part of the model.
        include_preprocessing: Whether the model takes pixels in [0, 255].
        pooling: Pooling of the features without top, or `None`.
        classes: Number of classes of the top; `None` without top.
        classifier_activation: Activation of the top; `None` for logits.
        preprocessing: The `Preprocessing` of the weights.
        class_names: Names of the classes in their order, or `None`.
    """

    config_class: ClassVar[type[VisionTransformerConfig] | type[X2Plus1DConfig]]
    poolings: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        config: Config,
        input_shape: Sequence[int] | None = None,
        input_tensor: keras.KerasTensor | None = None,
        include_top: bool = True,
        include_preprocessing: bool = True,
        pooling: str | None = None,
        classes: int = 1000,
        classifier_activation: Activation = "softmax",
        preprocessing: Preprocessing | None = None,
        class_names: Sequence[str] | None = None,
        dtype: Policy = None,
        name: str | None = None,
    ) -> None:
        owner, kind = type(self).__name__, self.config_class
        check_is(owner, "config", config, kind, f"of the class {kind.__name__}")
        check_build(
            owner,
            type(self),
            config,
            input_shape=input_shape,
            input_tensor=input_tensor,
            include_top=include_top,
            include_preprocessing=include_preprocessing,
            pooling=pooling,
            classifier_activation=classifier_activation,
            preprocessing=preprocessing,
        )
        number = check_int(owner, "classes", classes) if include_top else None
        inputs = input_of(owner, self._axes(config), input_shape, input_tensor)
        preprocessing = Preprocessing() if preprocessing is None else preprocessing
        policy = policy_of(owner, dtype)
        with errors_of(owner), dtype_policy(policy):
            x = preprocessing.layer(inputs.shape[-1])(inputs) if include_preprocessing else inputs
            x = self._graph(config, x, pooling, number, classifier_activation)
            # The policy of the model itself decides whether `compile` scales losses.
            super().__init__(inputs=inputs, outputs=x, name=name)
        self.config: Config = config
        self.include_top = include_top
        self.include_preprocessing = include_preprocessing
        self.pooling = pooling
        self.classes = number
        self.classifier_activation: Activation = classifier_activation
        self.preprocessing = preprocessing
        self._policy = policy
        self._class_names: tuple[str, ...] | None = None
        self.class_names = class_names

    @staticmethod
    def _axes(config: Any) -> tuple[str, ...]:
        """Return the names of the input's axes before the channels."""
        raise NotImplementedError

    @staticmethod
    def _graph(
        config: Any,
        x: keras.KerasTensor,
        pooling: str | None,
        classes: int | None,
        activation: Activation,
    ) -> keras.KerasTensor:
        """Return the output for normalised pixels; without top if `classes` is `None`."""
        raise NotImplementedError

    if TYPE_CHECKING:  # attached by `presets/save.py`, so that `models` imports no `presets`

        def save_to_preset(self, folder: str | os.PathLike[str]) -> Path: ...

        @classmethod
        def from_preset(
            cls, preset: str | os.PathLike[str], **arguments: Unpack[PresetArguments]
        ) -> Self: ...

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes in their order, or `None`; saved with the model."""
        return self._class_names

    @class_names.setter
    def class_names(self, value: Sequence[str] | None) -> None:
        if value is None:
            self._class_names = None
            return
        owner = type(self).__name__
        self._class_names = check_class_names(owner, value, self.include_top, self.classes)

    @property
    def blocks(self) -> Sequence[keras.Layer]:
        """The blocks from first to last, each as the layer that returns the output of the block."""
        raise NotImplementedError

    @property
    def token_learners(self) -> list[TokenLearner]:
        """The TokenLearners, from first to last."""
        return [layer for layer in self.layers if isinstance(layer, TokenLearner)]

    @property
    def head(self) -> layers.Dense | None:
        """The dense layer whose outputs are the logits, or `None` without top."""
        return self.get_layer(HEAD) if self.include_top else None

    def get_config(self) -> dict[str, JSON]:
        settings = self._settings()
        fields, activation = settings["config"], self.classifier_activation
        if "activation" in fields:
            fields["activation"] = activations.serialize(activations.get(fields["activation"]))
        if activation is not None:
            activation = keras.activations.serialize(keras.activations.get(activation))
        return settings | {"classifier_activation": activation}

    def _settings(self) -> dict[str, Any]:
        """Return the result of `get_config` with functions instead of their names."""
        return {
            "config": values_of(self.config),
            "input_shape": self.input_shape[1:],
            "input": input_options(self.inputs[0]),
            "include_top": self.include_top,
            "include_preprocessing": self.include_preprocessing,
            "pooling": self.pooling,
            "classes": self.classes,
            "classifier_activation": self.classifier_activation,
            "preprocessing": self.preprocessing.fields(),
            "class_names": self.class_names,
            "dtype": keras.dtype_policies.serialize(self._policy),
            "quantization": quantized_parts(f"{type(self).__name__}.get_config", self),
            "trainable": self.trainable,
            "frozen": frozen_parts(self),
            "parents": [learner.parents for learner in self.token_learners],
            "name": self.name,
        }

    @classmethod
    def from_config(
        cls, config: Mapping[str, JSON], custom_objects: CustomObjects | None = None
    ) -> Self:
        """Return an untrained model, with layers frozen and quantized as `config` states."""
        arguments: dict[str, Any] = dict(config)
        trees = arguments.pop("parents", [])
        frozen, trainable = arguments.pop("frozen", {}), arguments.pop("trainable", True)
        if not isinstance(frozen, dict):  # of an earlier version
            frozen = dict.fromkeys(frozen, False)
        quantization = arguments.pop("quantization", None)
        if "input" in arguments:  # absent in an earlier version
            shape = check_shape(cls.__name__, arguments.pop("input_shape"), None)
            arguments["input_tensor"] = keras.Input(shape, **arguments.pop("input"))
        if arguments["classes"] is None:
            del arguments["classes"]
        arguments["config"] = cls.config_class(**arguments["config"])
        arguments["preprocessing"] = Preprocessing(**arguments["preprocessing"])
        activation = arguments["classifier_activation"]
        if activation is not None and not callable(activation):
            activation = keras.activations.deserialize(activation, custom_objects)
        arguments["classifier_activation"] = activation
        arguments["dtype"] = keras.dtype_policies.deserialize(arguments["dtype"], custom_objects)
        model = cls(**arguments)
        if isinstance(quantization, str):  # of an earlier version
            model.quantize(quantization)
        else:
            quantize_parts(model, quantization or [])
        freeze_parts(model, trainable, frozen)
        for learner, parents in zip(model.token_learners, trees, strict=False):
            if parents:
                learner.parents = parents
        return model


def settings_of(model: VisionModel, kind: type[VisionModel] | None = None) -> dict[str, Any]:
    """Return the arguments of `kind.from_config` for a copy of a model.

    An own function stays the same object, because Keras cannot load it from its name.

    Args:
        model: The model.
        kind: Class of the copy. Defaults to the class of `model`, whose `get_config` may return
            additional arguments.
    """
    settings = model._settings()
    if (kind or type(model)).get_config is VisionModel.get_config:
        return settings  # `get_config` fails for functions that Keras cannot save
    functions = {name: settings[name] for name in ("config", "classifier_activation")}
    return {**model.get_config(), **functions}


def values_of(config: Config) -> dict[str, Any]:
    """Return the fields of a config. `dataclasses.asdict` would copy a `functools.partial`."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


class InputOptions(TypedDict):
    """The arguments of `keras.Input` that a saved model keeps, except for the shape."""

    name: str
    dtype: str
    batch_size: int | None


def input_options(tensor: keras.KerasTensor) -> InputOptions:
    """Return the arguments of `keras.Input` for an input like `tensor`, except for the shape."""
    return {"name": tensor.name, "dtype": tensor.dtype, "batch_size": tensor.shape[0]}


def check_build(
    owner: str, kind: type[VisionModel], config: Config, **arguments: Unpack[BuildArguments]
) -> None:
    """Raise `ValueError` for a wrong argument of a model class, before weights are known.

    Args:
        owner: Name of the function that the user called, for error messages.
        kind: `VisionTransformer` or `X2Plus1D`.
        config: A config, which decides the axes of the input.
        **arguments: Arguments of `kind`. Arguments that are left out are not checked.
    """
    for name in ("include_top", "include_preprocessing"):
        check_bool(owner, name, cast(bool, arguments.get(name, True)))
    check_choice(owner, "pooling", arguments.get("pooling"), (None, *kind.poolings))
    check_activation(owner, arguments.get("classifier_activation"))
    preprocessing = arguments.get("preprocessing")
    if preprocessing is not None:
        wanted = "a keras_tokenlearner.models.Preprocessing or None"
        check_is(owner, "preprocessing", preprocessing, Preprocessing, wanted)
    policy_of(owner, arguments.get("dtype"))
    shape, tensor = arguments.get("input_shape"), arguments.get("input_tensor")
    if shape is None and tensor is None:
        return
    *_, channels = check_shape(owner, shape, tensor, kind._axes(config))
    takes_pixels = arguments.get("include_preprocessing", True)
    if tensor is not None and not takes_pixels and not keras.backend.is_float_dtype(tensor.dtype):
        raise ValueError(
            f"{owner}: `input_tensor` must have a float dtype, because normalised pixels are not "
            "integers. For integer pixels, pass include_preprocessing=True. "
            f"Received: input_tensor of dtype {tensor.dtype}, include_preprocessing=False"
        )
    if preprocessing is not None and takes_pixels:
        with errors_of(owner):
            preprocessing.check_channels(channels)


def check_class_names(
    owner: str, names: Sequence[str], include_top: bool, classes: int | None
) -> tuple[str, ...]:
    """Return the names of classes as a tuple, or raise `ValueError`.

    `classes` is the number of classes, or `None` if the weights decide the number.
    """
    wanted, count = "None without top", None
    if include_top:
        wanted = f"a list of {'all' if classes is None else classes} names"
        count = len(names) if classes is None and hasattr(names, "__len__") else classes
    return check_names(owner, "class_names", names, count, wanted)


def check_activation(owner: str, activation: Activation) -> None:
    """Raise `ValueError` unless Keras knows the `classifier_activation` of a model."""
    try:
        keras.activations.get(activation)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{owner}: `classifier_activation` must be a name of keras.activations, a callable or "
            f"None. Received: classifier_activation={activation!r}"
        ) from error


def input_of(
    owner: str,
    axes: tuple[str, ...],
    input_shape: Sequence[int] | None,
    input_tensor: keras.KerasTensor | None,
) -> keras.KerasTensor:
    """Check `input_shape` or `input_tensor`, and return the input on which to build a graph."""
    check_channels_last(owner)
    if input_shape is None and input_tensor is None:
        raise ValueError(
            f"{owner}: pass `input_shape` or `input_tensor`. "
            "Received: input_shape=None, input_tensor=None"
        )
    shape = check_shape(owner, input_shape, input_tensor, axes)
    if input_tensor is None:
        return keras.Input(shape, name=INPUTS)
    if not is_input(input_tensor):
        raise ValueError(
            f"{owner}: `input_tensor` must be a keras.Input. Build the model with "
            f"input_shape={shape} and call it on your tensor. Received: "
            f"input_tensor={input_tensor}"
        )
    return input_tensor


def check_shape(
    owner: str,
    input_shape: Sequence[int] | None,
    input_tensor: keras.KerasTensor | None,
    axes: tuple[str, ...] = (),
) -> tuple[int, ...]:
    """Check and return the shape of `input_tensor`, or `input_shape` if the tensor is `None`.

    Args:
        owner: Name of the function that the user called, for error messages.
        input_shape: Shape without the batch axis, or `None` with an `input_tensor`.
        input_tensor: Symbolic tensor, or `None`.
        axes: Names of the axes before the channels. Without names, any number of axes is valid.
    """
    received = f"input_shape={input_shape!r}"
    given, wanted = input_shape, "`input_shape` must be "
    if input_tensor is not None:
        check_is(owner, "input_tensor", input_tensor, keras.KerasTensor, "a keras.Input")
        given, wanted = (
            input_tensor.shape[1:],
            "the shape of `input_tensor` after the batch axis must be ",
        )
        received = f"input_tensor of shape {tuple(input_tensor.shape)}"
    image = "(height, width, channels)"
    wanted += f"({', '.join(axes)}, channels)" if axes else f"{image} or (frames, {image[1:]}"
    try:
        shape = check_ints(owner, "input_shape", tuple(cast("Sequence[int]", given)))
    except (TypeError, ValueError):
        shape = ()
    if not shape or (axes and len(shape) != len(axes) + 1):
        is_edge = type(given) is int and given > 0 and len(axes) in (0, 2)
        square = f"; for images, pass input_shape=({given}, {given}, 3)" if is_edge else ""
        raise ValueError(f"{owner}: {wanted}, all positive integers{square}. Received: {received}")
    return shape


def is_input(tensor: keras.KerasTensor) -> bool:
    """Return whether a symbolic tensor is a `keras.Input`, not the output of a layer."""
    sources = keras.utils.get_source_inputs(tensor)
    return isinstance(sources, list) and len(sources) == 1 and sources[0] is tensor
