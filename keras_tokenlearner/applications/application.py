"""Functions with the signature of `keras.applications` for models of the catalogue."""

from math import prod

from keras_tokenlearner.applications.catalog import CATALOG
from keras_tokenlearner.applications.create import create_model
from keras_tokenlearner.models import X2Plus1DConfig

_DOCSTRING = """Build `{model}` of the catalogue, {input_shape} by default.

    Args:
        include_top: Boolean, whether the classifier is part of the model.
        include_preprocessing: Boolean, whether the model takes pixels in [0, 255] and scales them
            itself. Without, it takes pixels in [-1, 1].
        weights: `None` for random weights, the name of included weights, the path of a
            `.weights.h5` file{sources}.
            No ImageNet or Kinetics weights were ever published for TokenLearner.
        input_tensor: A `keras.Input` to build on, or a tensor computed from one.
        input_shape: `{axes}`, of any resolution and aspect.
        pooling: Without top: `None` for {features}.
        classes: Integer, classes of the top; by default as in the weights, or 1000.
        classifier_activation: Activation of the top; `None` gives logits.
        preprocessing: A `Preprocessing`; by default pixels are scaled to [-1, 1].
        class_names: Names of the classes in their order, or `None`.
        dtype: Dtype policy of the layers; by default the global one.
        name: Name of the model.
        **changes: Fields of `keras_tokenlearner.models.{config}` to change, such
            as {fields}.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: If the arguments or the weights do not fit the model.

    Example:

    >>> shape = {example_shape}
    >>> model = {function}(include_top=False, input_shape=shape, {example})
    >>> model.output_shape
    {output_shape}

    Source: {source}
    """

_SOURCES = """, or `"source:path"` for a file of another library, as
            `keras_tokenlearner.weights.load` takes it"""
_RYOO = """Ryoo et al., "TokenLearner: What Can 8 Learned Tokens Do for Images and
    Videos?", 2021, section {}."""


def application(module, function, model):
    """Return the function called `module.function` that builds `model` of the catalogue."""

    def build(
        include_top=True,
        include_preprocessing=True,
        weights=None,
        input_tensor=None,
        input_shape=None,
        pooling=None,
        classes=None,
        classifier_activation="softmax",
        preprocessing=None,
        class_names=None,
        dtype=None,
        name=model,
        **changes,
    ):
        return create_model(
            model,
            include_top=include_top,
            include_preprocessing=include_preprocessing,
            weights=weights,
            input_tensor=input_tensor,
            input_shape=input_shape,
            pooling=pooling,
            classes=classes,
            classifier_activation=classifier_activation,
            preprocessing=preprocessing,
            class_names=class_names,
            dtype=dtype,
            name=name,
            **changes,
        )

    entry = CATALOG[model]
    describe = _x2plus1d if isinstance(entry.config, X2Plus1DConfig) else _vision_transformer
    build.__module__ = module
    build.__name__ = build.__qualname__ = function
    build.__doc__ = _DOCSTRING.format(
        function=function,
        model=model,
        input_shape=entry.input_shape,
        axes="(height, width, channels)"
        if len(entry.input_shape) == 3
        else "(frames, height, width, channels)",
        config=type(entry.config).__name__,
        **describe(entry.config),
    )
    return build


def _vision_transformer(config):
    reduces, is_video = config.reducer is not None, len(config.patch_size) == 3
    size = ((4,) if is_video else ()) + (64, 96)
    grid = [length // patch for length, patch in zip(size, config.patch_size, strict=True)]
    tokens = prod(grid[:-2]) * config.num_tokens if reduces else prod(grid)
    source = 'Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021.'
    if is_video:
        source = 'Arnab et al., "ViViT: A Video Vision Transformer", 2021.'
    return {
        "sources": _SOURCES,
        "features": """the tokens, `"avg"`, `"max"`, or `"token"`, the class
            token of a model with `class_token=True`""",
        "fields": """`num_layers`, `dropout_rate`, `num_tokens`, `at` or `fuser`""",
        "example_shape": (*size, 3),
        "example": "num_layers=2, at=1" if reduces else "num_layers=2",
        "output_shape": (None, tokens + config.num_prefix_tokens, config.hidden_dim),
        "source": _RYOO.format(4 if is_video else 3) if reduces else source,
    }


def _x2plus1d(config):
    return {
        "sources": "",
        "features": 'the features of every place, `"avg"` or `"max"`',
        "fields": "`unit`, `attention`, `num_tokens`, `replaced` or `stage_units`",
        "example_shape": (4, 64, 96, 3),
        "example": "stage_units=(1, 1, 1, 3)",
        "output_shape": (None, 4, 2, 3, config.inner_channels[-1]),
        "source": _RYOO.format(6),
    }
