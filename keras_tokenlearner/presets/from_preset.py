"""Builds models by name or address. The checkpoint decides the config and the weights."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias, Unpack
from urllib.parse import urlsplit

import keras

from keras_tokenlearner._checks import check_bool, check_choice, check_path
from keras_tokenlearner._errors import errors_of
from keras_tokenlearner._precision import policy_of
from keras_tokenlearner.models import (
    VisionTransformer,
    VisionTransformerConfig,
    X2Plus1D,
    retrofit,
)
from keras_tokenlearner.models.config_fields import (
    Normalization,
    PlanOptions,
    VisionTransformerChanges,
)
from keras_tokenlearner.models.vision_model import (
    Activation,
    Policy,
    VisionModel,
    check_activation,
    check_build,
    check_class_names,
    check_shape,
    input_options,
)
from keras_tokenlearner.presets.addresses import Address, parse_address
from keras_tokenlearner.presets.build import build_model, head_is_new
from keras_tokenlearner.presets.checkpoints import PublishedCheckpoint, table
from keras_tokenlearner.presets.config_json import read_statement
from keras_tokenlearner.presets.hub import HEAD, PresetFiles, fetch_files
from keras_tokenlearner.presets.own import freeze_as, own_model
from keras_tokenlearner.weights import STORE, Checkpoint, read_checkpoint
from keras_tokenlearner.weights.load import plan_of
from keras_tokenlearner.weights.plan import Plan
from keras_tokenlearner.weights.saving import OWN_FILES

PresetName: TypeAlias = str | os.PathLike[str]
_OF_THE_PRESET = "preset"  # the default of `classifier_activation`, where `None` means logits
# Fields that `retrofit` sets for an added TokenLearner.
_OF_RETROFIT = ("reducer", "fuser", "token_attention", "token_start", "proportional_attention")
# Other fields of reducers and fusers. `retrofit` cannot set them.
_NOT_OF_RETROFIT = (
    "pool_size",
    "token_pooling",
    "over",
    "fuser_beta",
    "fuser_norm",
    "rotary_tokens",
)


def from_preset(
    preset: PresetName,
    *,
    at: int | None = None,
    num_tokens: int | None = None,
    include_top: bool | None = None,
    include_preprocessing: bool | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: Activation = _OF_THE_PRESET,
    class_names: Sequence[str] | None = None,
    dtype: Policy = None,
    input_shape: Sequence[int] | None = None,
    normalization: Normalization | None = None,
    layer_norm_epsilon: float | None = None,
    activation: str | None = None,
    num_heads: int | None = None,
    grid: Sequence[int] | None = None,
    resize: str | None = None,
    name: str | None = None,
    **changes: Unpack[VisionTransformerChanges],
) -> VisionModel:
    """Build the model that a checkpoint describes, with its weights.

    The config.json of the checkpoint decides the model. Without a config.json, the shapes of the
    checkpoint's arrays decide. An error asks for missing settings of the model. If the checkpoint
    has no classifier, the model returns pooled features.

    Images are resized as the JSON files state, else as in the defaults of `Preprocessing`. For
    another resizing, set `model.preprocessing`, for example to
    `dataclasses.replace(model.preprocessing, crop_fraction=0.875)`.

    A preset of `save_to_preset` gives the saved model: arguments that you leave out keep their
    saved values. Frozen layers stay frozen, unless `at` adds a TokenLearner.

    Args:
        preset: `"hf://ORG/NAME[@REVISION]"`, `"https://..."`,
            `"kaggle://OWNER/MODEL/FRAMEWORK/VARIATION"`, a local folder or file, or a name of
            `list_checkpoints()`. The argument `source` of `plan_of` may precede a file, as in
            `"timm:FILE"`. For a local `dinov2_..._pretrain.pth`, the file
            `dinov2_..._linear_head.pth` in the same folder is the classifier.
        at: Integer, number of blocks before an added TokenLearner, as in `retrofit`. `None` adds no
            TokenLearner. With `at`, the fields `reducer`, `fuser`, `token_attention`, `token_start`
            and `proportional_attention` in `changes` are passed to `retrofit`. Other fields of
            reducers and fusers are refused.
        num_tokens: Integer, number of learned tokens, as in `retrofit`. Needs `at`.
        include_top: Boolean, whether the classifier is part of the model. Defaults to `True` if the
            checkpoint has a classifier, or `classes` is passed.
        include_preprocessing: Boolean, whether the model takes pixels in [0, 255] and normalises
            them itself. Defaults to the value in a preset of `save_to_preset`, else to `True`.
        pooling: Output without top: `"avg"`, `"max"`, `"token"`, `"head"` for the input of the
            head, or `"none"` for all tokens. Defaults to the pooling of a preset of
            `save_to_preset` without top, else to `"head"`. For a checkpoint without classifier,
            `"head"` gives the features of its own library. Required for distilled DeiT of timm
            without classifier.
        classes: Integer, number of classes. Defaults to the checkpoint's number. Another number
            makes a new classifier, with a warning. The same number makes a new classifier if
            `class_names` differ from the names in the checkpoint, even by synonyms. Any number
            replaces the projection of CLIP.
        classifier_activation: Activation of the top; `None` gives logits. Defaults to the
            activation of a preset of `save_to_preset`. Defaults to `None` for image towers of CLIP
            from timm, whose top computes embeddings. For others, defaults to `"softmax"`. Pass
            `"softmax"` for a fine-tuned CLIP tower whose config.json has no label names.
        class_names: Names of the classes in their order. Defaults to the checkpoint's names.
            Without `classes`, the names label the checkpoint's classifier.
        dtype: Dtype policy of the layers. Defaults to the policy of a preset of `save_to_preset`,
            else to the global policy.
        input_shape: `(height, width, channels)`, or `(frames, height, width, channels)` for videos.
            Positions are resized. For images, defaults to the size that the checkpoint's processor
            gives, else to the size of its positions. For videos, defaults to the size in
            config.json.
        normalization: `(mean, std)` of the pixels in [0, 1], or `"half"`, `"imagenet"` or
            `"clip"`. Overrides the checkpoint.
        layer_norm_epsilon: Epsilon of the norms. Overrides the checkpoint.
        activation: Activation of the MLPs. Overrides the checkpoint.
        num_heads: Number of attention heads. Needed if the checkpoint does not state the number.
        grid: `(H, W)` or `(T, H, W)`, the grid of the checkpoint's positions. Needed if the
            checkpoint does not determine the grid.
        resize: Method to resize positions, as for `keras_tokenlearner.weights.plan_of`.
        name: Name of the model.
        **changes: Further fields of `VisionTransformerConfig` to change, such as `dropout_rate`.

    Returns:
        A `VisionTransformer`, or the `X2Plus1D` that the preset was saved from.

    Raises:
        ImportError: If the hub's library is not installed (the extras `hf` and `kaggle`).
        ValueError: If the preset does not exist or is damaged. Also if this package does not
            support its model, or a required setting is missing. Also if an argument is out of range
            or has no effect.
        PermissionError: If the preset is gated, or private on Kaggle. A private preset on Hugging
            Face raises a `ValueError`, as if it did not exist.
        ConnectionError: If the preset cannot be downloaded and is not in the cache.

    Example:

    >>> folder = create_model("vit_pico8", classes=10).save_to_preset("my_preset")
    >>> from_preset("my_preset").output_shape
    (None, 10)
    >>> from_preset("my_preset", at=1, num_tokens=4, classes=3).output_shape
    (None, 3)
    """
    check_path("from_preset", "preset", preset)
    owner = f"from_preset({str(preset)!r})"
    if include_top is not None:
        check_bool(owner, "include_top", include_top)
    if include_preprocessing is not None:
        check_bool(owner, "include_preprocessing", include_preprocessing)
    if num_tokens is not None and at is None:
        raise ValueError(
            f"{owner}: `num_tokens` needs `at`, the number of blocks before the TokenLearner. "
            f"Received: num_tokens={num_tokens!r}, at=None"
        )
    if input_shape is not None:
        input_shape = check_shape(owner, input_shape, None)
    check_choice(owner, "pooling", pooling, (None, "none", *VisionTransformer.poolings))
    if classifier_activation != _OF_THE_PRESET:
        check_activation(owner, classifier_activation)
    policy_of(owner, dtype)
    options: PlanOptions = {
        "normalization": normalization,
        "layer_norm_epsilon": layer_norm_epsilon,
        "activation": activation,
        "num_heads": num_heads,
        "grid": grid,
        "resize": resize,
    }
    found = _found(owner, preset)
    saved = own_model(owner, found.files)
    if isinstance(saved, X2Plus1D):
        given = {
            "at": at,
            "include_top": include_top,
            "include_preprocessing": include_preprocessing,
            "pooling": pooling,
            "classes": classes,
            "classifier_activation": classifier_activation,
            "class_names": class_names,
            "dtype": dtype,
            "input_shape": input_shape,
            "name": name,
            **options,
            **changes,
        }
        _check_unused(owner, given, "on an X2Plus1D preset")
        return saved
    plan = _plan_of(owner, found, saved, options)
    known = [field.name for field in fields(VisionTransformerConfig)]
    for change in changes:
        check_choice(owner, "argument", change, known)
    changed: dict[str, Any] = dict(changes)
    added: dict[str, Any] = {}
    if at is not None:
        added = {field: changed.pop(field) for field in _OF_RETROFIT if field in changed}
        others = {
            field: value
            for field, value in changed.items()
            if field in _NOT_OF_RETROFIT and value != getattr(VisionTransformerConfig, field)
        }
        _check_unused(owner, others, f"with `at`: retrofit takes only {list(_OF_RETROFIT)}")
    config = plan.config_with(changed)
    if include_top is None:
        include_top = classes is not None or plan.classes is not None
    if include_top:
        _check_unused(owner, {"pooling": pooling}, "on a classifier. Or pass include_top=False")
    else:
        of_top = {
            "classes": classes,
            "classifier_activation": classifier_activation,
            "class_names": class_names,
        }
        _check_unused(owner, of_top, "without a classifier")
        pooling = _pooling(owner, plan, pooling)
    if class_names is not None:
        number = plan.classes if classes is None else classes
        class_names = check_class_names(owner, class_names, include_top, number)
    if include_preprocessing is None:
        include_preprocessing = saved is None or saved.include_preprocessing
    is_new_head = head_is_new(owner, plan, classes, class_names)
    if classifier_activation == _OF_THE_PRESET:
        embeds = plan.is_projection and not is_new_head
        classifier_activation = None if embeds else "softmax"
        if saved is not None:
            classifier_activation = saved.classifier_activation
    shape = input_shape or _input_shape(owner, plan, config)
    check_build(owner, VisionTransformer, config, input_shape=shape)
    tensor = None
    if saved is not None:
        kept = input_options(saved.inputs[0])
        if include_preprocessing != saved.include_preprocessing:  # only raw pixels may be integers
            kept["dtype"] = keras.config.floatx()
        tensor = keras.Input(shape, **kept)
    model = build_model(
        owner,
        VisionTransformer,
        config,
        plan,
        classes,
        input_shape=shape,
        input_tensor=tensor,
        include_top=include_top,
        include_preprocessing=include_preprocessing,
        pooling=None if pooling == "none" else pooling,
        classifier_activation=classifier_activation,
        class_names=class_names,
        dtype=saved.dtype_policy if dtype is None and saved is not None else dtype,
        name=name or _name(found),
    )
    if saved is not None:
        freeze_as(saved, model, is_new_head)
    if at is None:
        return model
    with errors_of(owner):
        return retrofit(model, at, num_tokens, **added)


def _pooling(owner: str, plan: Plan, pooling: str | None) -> str:
    """Return `pooling`, or for `None` the pooling of a checkpoint without its head."""
    pooling = plan.pooling if pooling is None else pooling
    if pooling is None:
        raise ValueError(
            f"{owner}: pass `pooling`. timm returns the mean of class and distillation token, but "
            "this package has no such pooling. Pass 'token' for the class token, or 'none' for all "
            "tokens. Received: pooling=None"
        )
    return pooling


def _check_unused(owner: str, given: Mapping[str, Any], where: str) -> None:
    """Raise `ValueError` for an argument that is given, but has no effect."""
    defaults = {"classifier_activation": _OF_THE_PRESET}
    for name, value in given.items():
        default = defaults.get(name)
        if value is not default and (default is None or value != default):  # arrays have no !=
            raise ValueError(
                f"{owner}: leave out `{name}`, which has no effect {where}. "
                f"Received: {name}={value!r}"
            )


def open_preset(preset: PresetName, owner: str, **options: Unpack[PlanOptions]) -> Plan:
    """Read and convert the checkpoint of a name or address, and return its `Plan`.

    Args:
        preset: The argument of `from_preset`.
        owner: Name of the function that the user called, for error messages.
        **options: Arguments of `plan_of`.
    """
    found = _found(owner, preset)
    return _plan_of(owner, found, own_model(owner, found.files), options)


@dataclass(frozen=True)
class _Found:
    """A local or downloaded preset: its address, files, and row in the table of checkpoints."""

    row: PublishedCheckpoint | None
    address: Address
    files: PresetFiles


def _found(owner: str, preset: PresetName) -> _Found:
    """Find the files of a preset on this machine, or download them."""
    model, _, stored = str(preset).rpartition("/")
    if (model, stored) in STORE:
        raise ValueError(
            f"{owner}: `preset` must not be the name of included weights; call "
            f"create_model({model!r}, weights={stored!r}). Received: preset={str(preset)!r}"
        )
    row = table().get(str(preset))
    address = parse_address(owner, row.address if row else preset)
    return _Found(row, address, fetch_files(owner, address))


def _plan_of(owner: str, found: _Found, saved: VisionModel | None, options: PlanOptions) -> Plan:
    """Read and convert the checkpoint in the files of a preset, and return its `Plan`.

    `saved` is the model of a preset of `save_to_preset`, or `None`.
    """
    if saved is not None:
        return plan_of(saved, "keras_tokenlearner", owner=owner, **options)
    statement = read_statement(owner, found.files.configs)
    if found.row and "config.json" not in found.files.configs:
        statement = found.row.statement()
    return plan_of(
        _with_head(owner, found.files),
        found.address.source or statement.source,
        statement=statement,
        owner=owner,
        **options,
    )


def _with_head(owner: str, files: PresetFiles) -> Checkpoint | Path:
    """Return the weights of a preset, including a head that its library saves in another file."""
    if files.linear_head is not None:
        path, start = files.linear_head, "linear_head."
    elif HEAD in files.configs and files.weights.name.endswith(OWN_FILES):
        path, start = files.configs[HEAD], ""
    else:
        return files.weights
    backbone, head = (read_checkpoint(one, owner) for one in (files.weights, path))
    entries = {f"{start}{name}": entry for name, entry in head.entries.items()}
    return Checkpoint({**entries, **backbone.entries}, str(files.weights))


def _input_shape(owner: str, plan: Plan, config: VisionTransformerConfig) -> tuple[int, ...]:
    """Return the input shape that a checkpoint states, or else compute it from `plan.grid`."""
    if plan.input_shape:
        return plan.input_shape
    if plan.input_size:
        return (*plan.input_size, plan.channels)
    if plan.grid is None or len(plan.grid) != len(config.patch_size):
        raise ValueError(
            f"{owner}: {plan.origin} does not state the size of its images; pass `input_shape`. "
            "If the file has a position embedding, also pass `grid`, the number of positions along "
            f"each of {len(config.patch_size)} axes. Received: input_shape=None, grid={plan.grid}"
        )
    sizes = (n * patch for n, patch in zip(plan.grid, config.patch_size, strict=True))
    return (*sizes, plan.channels)


def _name(found: _Found) -> str:
    """Return the name of a preset with only characters that Keras allows in model names."""
    place = found.row.name if found.row else found.address.place
    if found.address.kind == "https" and not found.row:
        place = urlsplit(place).path
    if found.address.kind == "kaggle":
        place = "/".join(place.split("/")[:4])  # without the version
    name = Path(place).name
    return "".join(c if c.isalnum() else "_" for c in name).strip("_") or "model"
