import dataclasses
import fnmatch
import warnings

import keras

from keras_tokenlearner._checks import check_bool, check_choice, check_int
from keras_tokenlearner.applications.catalog import CATALOG
from keras_tokenlearner.applications.hints import check_arguments
from keras_tokenlearner.models import (
    VisionTransformer,
    VisionTransformerConfig,
    X2Plus1D,
    X2Plus1DConfig,
)
from keras_tokenlearner.models.vision_model import is_input
from keras_tokenlearner.weights import load_weights, saved_classes, store, transfer
from keras_tokenlearner.weights.formats import read_checkpoint

MODELS = {VisionTransformerConfig: VisionTransformer, X2Plus1DConfig: X2Plus1D}


def list_models(pattern="*", weights=False):
    """Return the names of the catalogue, in its order.

    Args:
        pattern: Names to keep, with `*` and `?` as in file names.
        weights: Boolean, whether to keep only models for which trained weights ship.

    Example:

    >>> list_models("vit_b*")
    ['vit_b32', 'vit_b16']
    """
    check_bool("list_models", "weights", weights)
    found = [name for name in CATALOG if fnmatch.fnmatchcase(name, pattern)]
    return [name for name in found if store.names(name)] if weights else found


def create_model(
    model,
    *,
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
    name=None,
    **changes,
):
    """Build a model of the catalogue, with trained weights if wanted.

    Args:
        model: Name in the catalogue; `list_models()` gives all.
        include_top: Boolean, whether the classifier is part of the model.
        include_preprocessing: Boolean, whether the model takes pixels in [0, 255] and scales them
            itself. Without, it takes pixels in [-1, 1].
        weights: `None` for random weights, the name of included weights, the path of a
            `.weights.h5` file, or `"source:path"` for a file of another library, such as
            `"augreg:B_16.npz"`; `keras_tokenlearner.weights.load` lists the sources and says
            more. The source then sets the fields of `source_config`, unless `changes` do.
            Positions are resized to the model's grid.
        input_tensor: A `keras.Input` to build on. For a tensor computed from one, the result is a
            plain `keras.Model` that calls the model on it.
        input_shape: `(height, width, channels)`, with frames before them for videos. Defaults to
            the shape of the included weights, or of the catalogue. Weights of another resolution
            fit.
        pooling: Without top: `None` for the tokens, `"avg"`, `"max"`, or, for a transformer,
            `"token"`.
        classes: Integer, number of classes. Defaults to the number of the weights, or 1000.
        classifier_activation: Activation of the top; `None` gives logits.
        preprocessing: A `keras_tokenlearner.models.Preprocessing`; by default pixels are scaled to
            [-1, 1].
        class_names: Names of the classes in their order. Defaults to the names of the weights.
        dtype: Dtype policy of the layers; by default the global one.
        name: Name of the model. Defaults to the catalogue's.
        **changes: Fields of the model's config to change:
            `keras_tokenlearner.models.VisionTransformerConfig`, such as `num_tokens`, `at`,
            `fuser` or `dropout_rate`, or for X(2+1)D `keras_tokenlearner.models.X2Plus1DConfig`.

    Returns:
        A `VisionTransformer` or an `X2Plus1D`, functional models that know their config.

    Raises:
        ValueError: If a name is unknown, or the arguments or the weights do not fit the model.

    Example:

    >>> model = create_model("tokenlearner_pico8_4at1", classes=10, input_shape=(32, 48, 3))
    >>> model.output_shape
    (None, 10)
    """
    check_choice("create_model", "model", model, list(CATALOG), "`list_models()`")
    check_bool("create_model", "include_top", include_top)
    check_bool("create_model", "include_preprocessing", include_preprocessing)
    if classes is not None:
        classes = check_int("create_model", "classes", classes)
    entry = CATALOG[model]
    fields = [field.name for field in dataclasses.fields(entry.config)]
    check_arguments(model, weights, input_shape, changes, fields)
    # A wrong path or name raises an error before a large model is built.
    source, path = transfer.parse(weights)
    if source and isinstance(entry.config, X2Plus1DConfig):
        raise ValueError(
            f"create_model({model!r}): sources hold weights of transformers, and this is none; "
            f"pass None or a path that ends in .weights.h5. Received: weights={weights!r}"
        )
    foreign = read_checkpoint(path, "create_model") if source else None
    is_file = not source and weights is not None and str(weights).endswith(".weights.h5")
    stored = None if weights is None or is_file or source else store.find(model, weights)
    of_weights = None
    if stored:
        of_weights = stored.classes
    elif is_file:
        of_weights = saved_classes(weights, f"create_model({model!r})")
    elif source:
        of_weights = transfer.source_classes(source, foreign)
        changes = transfer.source_config(source, foreign) | changes
    if classes is None:
        classes = of_weights or 1000
    if of_weights and include_top and classes != of_weights:
        raise ValueError(
            f"create_model({model!r}): weights={weights!r} are for {of_weights} classes; pass "
            f"classes={of_weights} or include_top=False. Received: classes={classes}"
        )
    if class_names is None and stored and include_top:
        class_names = stored.class_names
    computed = input_tensor is not None and not is_input(input_tensor)
    if computed:
        input_shape = input_tensor.shape[1:]
    elif input_shape is None and input_tensor is None:
        input_shape = stored.input_shape if stored else entry.input_shape
    built = MODELS[type(entry.config)](
        dataclasses.replace(entry.config, **changes),
        input_shape=input_shape,
        input_tensor=None if computed else input_tensor,
        include_top=include_top,
        include_preprocessing=include_preprocessing,
        pooling=pooling,
        classes=classes,
        classifier_activation=classifier_activation,
        preprocessing=preprocessing,
        class_names=class_names,
        dtype=dtype,
        name=name or model,
    )
    if stored:
        store.load_stored(built, stored)
    elif is_file:
        load_weights(built, weights)
    elif source:
        report = transfer.load(built, source, foreign)
        if report.left:
            warnings.warn(str(report), stacklevel=2)
    if computed:
        sources = keras.utils.get_source_inputs(input_tensor)
        return keras.Model(sources, built(input_tensor), name=built.name)
    return built
