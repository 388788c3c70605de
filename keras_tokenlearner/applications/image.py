"""Functions with the signature of `keras.applications`, one for every family of image models."""

from keras_tokenlearner.applications.catalog import CATALOG
from keras_tokenlearner.applications.create import create_model

_DOCSTRING = """Build `{model}` of the catalogue, {input_shape} by default.

    Args:
        include_top: Boolean, whether the classifier is part of the model.
        include_preprocessing: Boolean, whether the model takes pixels in [0, 255] and scales them
            itself. Without, it takes pixels in [-1, 1].
        weights: `None` for random weights, the name of weights that ship, the path of a
            `.weights.h5` file, or `"source:path"` for a file of another library, as
            `keras_tokenlearner.weights.load` takes it. No ImageNet weights were ever published for
            TokenLearner.
        input_tensor: Keras tensor to build on.
        input_shape: `(height, width, channels)`, of any resolution and aspect.
        pooling: Without top: `None` for the tokens, `"avg"`, `"max"`, or `"token"`, the class
            token of a model with `class_token=True`.
        classes: Integer, classes of the top.
        classifier_activation: Activation of the top; `None` gives logits.
        name: Name of the model.
        **changes: Fields of `keras_tokenlearner.models.VisionTransformerConfig` to change, such
            as `num_layers`, `dropout`, `num_tokens`, `at` (the place of the TokenLearner) or
            `fuser`.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: If the arguments or the weights do not fit the model.

    Example:

    >>> model = {function}(include_top=False, input_shape=(64, 96, 3), {example})
    >>> model.output_shape
    (None, {tokens}, {hidden_size})

    Source: {source}
    """

_VIT = 'Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021.'
_TOKENLEARNER = (
    'Ryoo et al., "TokenLearner: What Can 8 Learned Tokens Do for Images and\n'
    '    Videos?", 2021, section 3.'
)


def _application(function, model):
    """Return the function called `function` that builds `model` of the catalogue."""

    def application(
        include_top=True,
        include_preprocessing=True,
        weights=None,
        input_tensor=None,
        input_shape=None,
        pooling=None,
        classes=1000,
        classifier_activation="softmax",
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
            name=name,
            **changes,
        )

    entry = CATALOG[model]
    config, (patch_height, patch_width) = entry.config, entry.config.patch_size
    reduces = config.reducer is not None
    application.__name__ = application.__qualname__ = function
    application.__doc__ = _DOCSTRING.format(
        model=model,
        input_shape=entry.input_shape,
        function=function,
        example="num_layers=2, at=1" if reduces else "num_layers=2",
        tokens=config.num_tokens if reduces else (64 // patch_height) * (96 // patch_width),
        hidden_size=config.hidden_size,
        source=_TOKENLEARNER if reduces else _VIT,
    )
    return application


ViTS32 = _application("ViTS32", "vit_s32")
ViTB32 = _application("ViTB32", "vit_b32")
ViTB16 = _application("ViTB16", "vit_b16")
ViTL16 = _application("ViTL16", "vit_l16")
TokenLearnerS32 = _application("TokenLearnerS32", "tokenlearner_s32_8at6")
TokenLearnerB32 = _application("TokenLearnerB32", "tokenlearner_b32_8at6")
TokenLearnerB16 = _application("TokenLearnerB16", "tokenlearner_b16_8at6")
TokenLearnerL16 = _application("TokenLearnerL16", "tokenlearner_l16_16at12")
TokenLearnerL14 = _application("TokenLearnerL14", "tokenlearner_l14_35_16at18")
TokenLearnerL10 = _application("TokenLearnerL10", "tokenlearner_l10_35_16at18")
TokenLearnerL8 = _application("TokenLearnerL8", "tokenlearner_l8_35_16at18")
