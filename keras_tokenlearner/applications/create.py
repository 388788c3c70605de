import dataclasses
import fnmatch
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack, cast

import keras

from keras_tokenlearner._checks import check_bool, check_choice, check_int, check_is
from keras_tokenlearner._errors import errors_of
from keras_tokenlearner._precision import dtype_policy
from keras_tokenlearner.applications.arguments import ConfigChanges
from keras_tokenlearner.applications.catalog import CATALOG
from keras_tokenlearner.applications.hints import check_arguments
from keras_tokenlearner.models import (
    Preprocessing,
    VisionTransformer,
    VisionTransformerConfig,
    X2Plus1D,
    X2Plus1DConfig,
    names,
)
from keras_tokenlearner.models.config import check_fields
from keras_tokenlearner.models.config_fields import Fields, Normalization
from keras_tokenlearner.models.vision_model import (
    Activation,
    BuildArguments,
    Policy,
    VisionModel,
    check_build,
    check_class_names,
    is_input,
)
from keras_tokenlearner.presets.addresses import is_address, parse_address
from keras_tokenlearner.presets.build import are_other_classes, build_model
from keras_tokenlearner.presets.from_preset import open_preset
from keras_tokenlearner.presets.hub import fetch_files
from keras_tokenlearner.presets.sizes import build_without_weights
from keras_tokenlearner.weights import SOURCES, load_weights, read_checkpoint, store
from keras_tokenlearner.weights.plan import Plan
from keras_tokenlearner.weights.recognise import fitting_sources
from keras_tokenlearner.weights.saving import OWN_FILES, check_layout, classes_of, saved_shapes

MODELS = {VisionTransformerConfig: VisionTransformer, X2Plus1DConfig: X2Plus1D}


def list_models(pattern: str = "*", weights: bool = False) -> list[str]:
    """Return the names of models in the catalogue, in the order of the catalogue.

    Args:
        pattern: Pattern of the names to return, with `*` and `?` as in file names.
        weights: Boolean, whether to return only models with included trained weights.

    Example:

    >>> list_models("vit_b*")
    ['vit_b32', 'vit_b16', 'vit_b14', 'vit_b8']
    """
    check_bool("list_models", "weights", weights)
    check_is("list_models", "pattern", pattern, str, "a string")
    found = [name for name in CATALOG if fnmatch.fnmatchcase(name, pattern)]
    return [name for name in found if store.names(name)] if weights else found


def create_model(
    model: str,
    *,
    include_top: bool = True,
    include_preprocessing: bool = True,
    weights: str | os.PathLike[str] | None = None,
    input_tensor: keras.KerasTensor | None = None,
    input_shape: Sequence[int] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: Activation = "softmax",
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
    dtype: Policy = None,
    normalization: Normalization | None = None,
    grid: Sequence[int] | None = None,
    name: str | None = None,
    **changes: Unpack[ConfigChanges],
) -> VisionModel:
    """Build a model of the catalogue, with or without trained weights.

    Args:
        model: Name in the catalogue. `list_models()` returns all names.
        include_top: Boolean, whether the classifier is part of the model.
        include_preprocessing: Boolean, whether the model takes pixels in [0, 255] and scales them
            itself. Otherwise the model takes normalised pixels, by default in [-1, 1].
        weights: `None` for random weights, or the name of included weights. Or the path or https
            address of a `.weights.h5` file. For a folder with the name of included weights, pass
            `"./NAME"`. For weights that Keras saved in parts, the path of their `.weights.json`.
            Addresses and files for `from_preset` are valid too, such as
            `"hf://timm/vit_base_patch16_224.augreg_in21k"`. The checkpoint then sets the config
            fields that the model's name does not state. Positions are resized to the model's grid.
        input_tensor: A `keras.Input` to build on. For a tensor computed from a `keras.Input`, the
            result is a plain `keras.Model` that calls the model on this tensor.
        input_shape: `(height, width, channels)`, or `(frames, height, width, channels)` for videos.
            Defaults to the shape of the included weights, or of the catalogue. Weights of another
            resolution can be loaded.
        pooling: Output without top: `"avg"`, `"max"`, or `None` for all tokens or positions. A
            transformer also has `"token"` (the class token) and `"head"` (the input of the head).
        classes: Integer, number of classes. Defaults to the number of the weights, or to 1000.
            Another number makes a new head, with a warning. The same number makes a new head if
            `class_names` differ from the names in the weights, even by synonyms. Any number
            replaces the projection of CLIP.
        classifier_activation: Activation of the top; `None` gives logits.
        normalization: For weights of another library: `(mean, std)` of its training pixels in
            [0, 1], or `"half"`, `"imagenet"` or `"clip"`. Replaces the values in the file.
        grid: `(H, W)` or `(T, H, W)`, the grid of the file's positions, if the file is ambiguous.
        preprocessing: A `keras_tokenlearner.models.Preprocessing`. Defaults to the preprocessing of
            the weights if it is known, else to a scaling of pixels to [-1, 1].
        class_names: Names of the classes in their order. Defaults to the names of the weights.
            Without `classes`, the names label the head of the weights.
        dtype: Dtype policy of the layers. Defaults to the global policy.
        name: Name of the model. Defaults to the name in the catalogue.
        **changes: Changed fields of the config, such as `num_tokens`, `at`, `fuser` or
            `dropout_rate`. See `keras_tokenlearner.models.VisionTransformerConfig`, or for X(2+1)D
            `keras_tokenlearner.models.X2Plus1DConfig`.

    Returns:
        A `VisionTransformer` or an `X2Plus1D`. A plain `keras.Model` for an `input_tensor` that is
        computed from a `keras.Input`. The attributes `preprocessing` and `class_names` of the plain
        model are not saved.

    Raises:
        ValueError: If a name is unknown, or the arguments or the weights do not suit the model.
        ImportError: If `weights` is on a hub whose library is not installed.
        PermissionError: If weights on a hub are gated, or private on Kaggle.
        ConnectionError: If the weights cannot be downloaded and are not in the cache.

    Example:

    >>> model = create_model("tokenlearner_pico8_4at1", classes=10, input_shape=(32, 48, 3))
    >>> model.output_shape
    (None, 10)
    """
    check_choice("create_model", "model", model, list(CATALOG), "`list_models()`")
    if classes is not None:
        classes = check_int("create_model", "classes", classes)
    entry = CATALOG[model]
    owner = f"create_model({model!r})"
    fields = [field.name for field in dataclasses.fields(entry.config)]
    check_arguments(model, weights, cast(Fields, changes), fields)
    kind = MODELS[type(entry.config)]
    is_included = isinstance(weights, str) and (model, weights) in store.STORE
    shape = input_shape
    if shape is None and input_tensor is None and not is_included:
        shape = entry.input_shape
    with errors_of(owner):  # wrong arguments raise an error before a download
        check_build(
            owner,
            kind,
            _changed(entry.config, cast(Fields, changes)),
            input_shape=shape,
            input_tensor=input_tensor,
            include_top=include_top,
            include_preprocessing=include_preprocessing,
            pooling=pooling,
            classifier_activation=classifier_activation,
            preprocessing=preprocessing,
            dtype=dtype,
        )
        if class_names is not None:
            number = 1000 if classes is None and weights is None else classes
            check_class_names(owner, class_names, include_top, number)
    # A wrong path or name raises an error before a large model is built.
    is_file = str(weights).endswith(OWN_FILES) and not SOURCES.keys() & {_source(weights)}
    if is_file and str(weights).startswith(("https://", "http://")):
        weights = _downloaded(owner, cast(str, weights))
    stored = plan = of_weights = shapes = None
    if weights is not None and is_file and "://" not in str(weights):
        shapes = saved_shapes(weights, owner)
        of_weights = classes_of(shapes)
    elif weights is not None and not is_included and is_address(weights):
        if isinstance(entry.config, X2Plus1DConfig):
            raise ValueError(
                f"{owner}: `weights` of an X2Plus1D must be None or a file of this package. Pass a "
                "path or https address that ends in .weights.h5, or a path that ends in "
                f".weights.json. Received: weights={weights!r}"
            )
        if normalization is None and preprocessing is not None:
            normalization = (preprocessing.mean, preprocessing.std)
        plan = open_preset(
            weights,
            owner,
            normalization=normalization,
            layer_norm_epsilon=changes.get("layer_norm_epsilon"),
            activation=changes.get("activation"),
            num_heads=changes.get("num_heads"),
            grid=grid,
        )
    elif weights is not None:
        stored = store.find(model, cast(str, weights))
        of_weights = stored.classes
        preprocessing = preprocessing or stored.preprocessing
    if plan is None and (normalization is not None or grid is not None):
        raise ValueError(
            f"{owner}: `normalization` and `grid` apply only to weights of other libraries; "
            f"leave them out. Received: normalization={normalization!r}, grid={grid!r}, "
            f"weights={weights!r}"
        )
    computed = input_tensor is not None and not is_input(input_tensor)
    if computed:
        input_shape = cast(keras.KerasTensor, input_tensor).shape[1:]
    elif input_shape is None and input_tensor is None:
        input_shape = stored.input_shape if stored else entry.input_shape
    arguments: BuildArguments = {
        "input_shape": input_shape,
        "input_tensor": None if computed else input_tensor,
        "include_top": include_top,
        "include_preprocessing": include_preprocessing,
        "pooling": pooling,
        "classifier_activation": classifier_activation,
        "preprocessing": preprocessing,
        "class_names": class_names,
        "dtype": dtype,
        "name": name or model,
    }
    with errors_of(owner):
        if plan is not None:
            plan.check_features()
            plan.check_open(cast(Fields, changes))
            of_transformer = cast(VisionTransformerConfig, entry.config)
            reducer = changes.get("reducer", of_transformer.reducer)
            fuser = changes.get("fuser", of_transformer.fuser)
            fields_of_plan: dict[str, Any] = {**_trunk_fields(plan, reducer, fuser), **changes}
            trunk = dataclasses.replace(of_transformer, **fields_of_plan)
            heads = plan.sizes.get("num_heads")
            if trunk.block_attention != "vector" and heads not in (None, trunk.num_heads):
                raise ValueError(
                    f"{owner}: `num_heads` must be the number of heads in {plan.origin}; pass "
                    f"num_heads={heads}. Received: num_heads={trunk.num_heads}"
                )
            built = build_model(owner, kind, trunk, plan, classes, **arguments)
        else:
            config = dataclasses.replace(entry.config, **cast(dict[str, Any], changes))
            if include_top and shapes and of_weights:
                # A file may state more classes than it stores: compare shapes before the model
                # takes memory.
                sized = build_without_weights(kind, config, of_weights, arguments)
                check_layout(sized, cast(str, weights), shapes)
            known = stored.class_names if stored else None
            is_other = classes not in (None, of_weights) or are_other_classes(
                owner, repr(weights), known, classes, class_names
            )
            new_head = include_top and of_weights and is_other
            if class_names is None and stored and include_top and not new_head:
                arguments["class_names"] = stored.class_names
            built = kind(config, classes=classes or of_weights or 1000, **arguments)
            loaded = built
            if new_head:  # a second model, with the classes of the weights, loads the body
                arguments["class_names"] = None
                loaded = kind(config, classes=cast(int, of_weights), **arguments)
            if stored:
                store.load_stored(loaded, stored)
            elif is_file and weights is not None:
                load_weights(loaded, weights)
            if new_head:
                _copy_body(loaded, built)
                warnings.warn(
                    f"{owner}: weights={weights!r} have {of_weights} classes. The head of the "
                    f"model is untrained, because its {classes} classes differ",
                    stacklevel=2,
                )
    if computed:
        sources = keras.utils.get_source_inputs(input_tensor)
        with dtype_policy(built.dtype_policy):  # decides whether `compile` scales losses
            outer = keras.Model(sources, built(input_tensor), name=built.name)
        outer.preprocessing, outer.class_names = built.preprocessing, built.class_names
        return outer
    return built


# Fields that keep the catalogue's values if the weights are from another model of the package.
# These fields also keep their values if the named model has no TokenLearner.
OF_THE_NAME = (
    "reducer",
    "num_tokens",
    "pool_size",
    "at",
    "token_attention",
    "token_pooling",
    "token_start",
    "proportional_attention",
    "over",
    "fuser",
    "fuser_beta",
    "fuser_norm",
    "stem",
    "dropout_rate",
    "attention_dropout_rate",
    "drop_path_rate",
    "rotary_tokens",
)


def _trunk_fields(plan: Plan, reducer: str | None, fuser: str | None) -> Fields:
    """Return the checkpoint's config fields that apply to the named model.

    The fields in `OF_THE_NAME` apply only if the model has a TokenLearner, and the checkpoint is
    not of this package. The fields of TokenFusers also need a TokenFuser in the model.

    Args:
        plan: The checkpoint.
        reducer: Reducer of the model.
        fuser: Fuser of the model.
    """
    without: tuple[str, ...] = ()
    if plan.source == "keras_tokenlearner" or reducer != "token_learner":
        without = OF_THE_NAME
    elif fuser != "token_fuser":
        without = ("fuser_beta", "fuser_norm")
    return {name: value for name, value in plan.fields.items() if name not in without}


def _changed(
    config: VisionTransformerConfig | X2Plus1DConfig, changes: Fields
) -> VisionTransformerConfig | X2Plus1DConfig:
    """Return a config with changed fields. A checkpoint may change further fields of a ViT."""
    if isinstance(config, VisionTransformerConfig):
        return check_fields(config, changes)
    return dataclasses.replace(config, **cast(dict[str, Any], changes))


def _source(weights: str | os.PathLike[str] | None) -> str:
    return str(weights).partition(":")[0]


def _downloaded(owner: str, weights: str) -> str | Path:
    """Download a file. Return its path, or its address if the file is of another library."""
    path = fetch_files(owner, parse_address(owner, weights)).weights
    return weights if fitting_sources(read_checkpoint(path, owner)) else path


def _copy_body(one: VisionModel, other: VisionModel) -> None:
    """Copy all weights except the head to a model that differs only in its head."""
    weights = {weight.path: weight for weight in one.weights}
    for weight in other.weights:
        if not weight.path.startswith(f"{names.HEAD}/"):
            weight.assign(weights[weight.path])
    for learner, copy in zip(one.token_learners, other.token_learners, strict=True):
        if learner.parents:
            copy.parents = learner.parents
