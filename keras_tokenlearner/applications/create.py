import dataclasses
import fnmatch

from keras_tokenlearner.applications.catalog import CATALOG
from keras_tokenlearner.layers.checks import check_choice
from keras_tokenlearner.models import vision_transformer
from keras_tokenlearner.weights import load_weights, store


def list_models(pattern="*", weights=False):
    """Return the names of the catalogue, in its order.

    Args:
        pattern: Names to keep, with `*` and `?` as in file names.
        weights: Boolean, whether to keep only models for which trained weights ship.

    Example:

    >>> list_models("vit_b*")
    ['vit_b32', 'vit_b16']
    """
    found = [name for name in CATALOG if fnmatch.fnmatchcase(name, pattern)]
    return [name for name in found if store.names(name)] if weights else found


def create_model(
    model,
    include_top=True,
    include_preprocessing=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=None,
    classifier_activation="softmax",
    name=None,
    **changes,
):
    """Build a model of the catalogue, with trained weights if wanted.

    Args:
        model: Name in the catalogue; `list_models()` gives all.
        include_top: Boolean, whether the classifier is part of the model.
        include_preprocessing: Boolean, whether the model takes pixels in [0, 255] and scales them
            itself. Without, it takes pixels in [-1, 1].
        weights: `None` for random weights, the name of weights that ship, or the path of a
            `.weights.h5` file. Positions are resized to the model's grid.
        input_tensor: Keras tensor to build on.
        input_shape: `(height, width, channels)`. Defaults to that of the catalogue; the weights
            of another resolution fit.
        pooling: Without top: `None` for the tokens, `"avg"`, `"max"`, or `"token"`.
        classes: Integer, classes of the top. Defaults to those of the named weights, or 1000.
        classifier_activation: Activation of the top; `None` gives logits.
        name: Name of the model. Defaults to the catalogue's.
        **changes: Fields of `keras_tokenlearner.models.VisionTransformerConfig` to change, such
            as `num_tokens`, `at`, `fuser` or `dropout`.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: If a name is unknown, or the arguments or the weights do not fit the model.

    Example:

    >>> model = create_model("tokenlearner_pico8_4at1", classes=10, input_shape=(32, 48, 3))
    >>> model.output_shape
    (None, 10)
    """
    check_choice("create_model", "model", model, list(CATALOG))
    entry = CATALOG[model]
    fields = [field.name for field in dataclasses.fields(entry.config)]
    for change in changes:
        check_choice(f"create_model({model!r})", "argument", change, fields)
    # What is neither a path nor a name is refused before a large model is built.
    is_file = weights is not None and str(weights).endswith(".weights.h5")
    stored = None if weights is None or is_file else store.find(model, weights)
    if classes is None:
        classes = stored.classes if stored else 1000
    if stored and include_top and classes != stored.classes:
        raise ValueError(
            f"create_model({model!r}): weights={weights!r} are for {stored.classes} classes; leave "
            f"`classes` out or pass include_top=False. Received: classes={classes}"
        )
    if input_shape is None and input_tensor is None:
        input_shape = entry.input_shape
    built = vision_transformer(
        dataclasses.replace(entry.config, **changes),
        input_shape=input_shape,
        input_tensor=input_tensor,
        include_top=include_top,
        include_preprocessing=include_preprocessing,
        pooling=pooling,
        classes=classes,
        classifier_activation=classifier_activation,
        name=name or model,
    )
    if stored:
        store.load_stored(built, stored)
    elif is_file:
        load_weights(built, weights)
    return built
