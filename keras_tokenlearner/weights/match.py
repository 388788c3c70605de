"""Compares a checkpoint with a model: settings, names, shapes and the head."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import NamedTuple, cast

import keras
import numpy as np

from keras_tokenlearner._errors import listed
from keras_tokenlearner.models import VisionTransformer, VisionTransformerConfig, names
from keras_tokenlearner.models.config_fields import FUSERS, REDUCERS, Fields, FieldValue
from keras_tokenlearner.models.preprocessing import Preprocessing
from keras_tokenlearner.models.structure import Structure, same_setting
from keras_tokenlearner.weights.sources.source import (
    BOTH,
    FILLED,
    Arrays,
    Entries,
    Named,
    Source,
)

_HEAD = f"{names.HEAD}/"
# Layers between the last norm and the head. Models without a head do not need these layers.
_BEFORE_HEAD = tuple(
    f"{name}/" for name in (names.PRE_LOGITS, names.POOLING, names.FC_NORM, names.PROJECTION)
)
SETTINGS = ("activation", "layer_norm_epsilon")
# Fields that change the outputs, but show in neither the names nor the shapes of our weights.
_UNSEEN = (
    "final_norm",
    "final_norm_epsilon",
    "norm",
    "pool_prefix",
    "rotary",
    "rotary_theta",
    "rotary_layout",
    "rotary_order",
    "rotary_offset",
    "rotary_grid",
)
_TOLD = ("final_norm", "norm")  # the names of entries in a checkpoint show these two fields
_DEFAULT = {one.name: one.default for one in fields(VisionTransformerConfig)}


class Fixes(NamedTuple):
    """The fixes that error messages state: arguments of the function that the user called.

    Attributes:
        head: Arguments for a head that does not fit.
        config: Start of a sentence, the fix for a model of another config.
        partial: End of the sentence, another fix for different layers, or the empty string.
        settings: End of the sentence, another fix for different settings, or the empty string.
    """

    head: str
    config: str
    partial: str = ""
    settings: str = ""


OF_LOAD = Fixes(
    "head='drop' or head='reset'",
    "Build the model with the `config` and `preprocessing` of plan_of(...)",
    ", or pass partial=True to load the common part",
    ", or pass check_settings=False",
)
# For `from_preset` and `create_model`.
OF_NAMES = Fixes(
    "include_top=False, or another `classes`",
    "Change the name or the arguments that differ from the checkpoint",
)


def differences_of(
    structure: Structure,
    stated: Fields,
    preprocessing: Preprocessing | None,
    is_complete: bool,
    has_head: bool,
) -> list[str]:
    """Return a description of each setting that differs between a model and a checkpoint.

    Args:
        structure: `Structure` of the model.
        stated: Fields of `VisionTransformerConfig` that the checkpoint decides.
        preprocessing: `Preprocessing` of the checkpoint's images, or `None`.
        is_complete: Whether `stated` is complete, as from a config.json. Absent fields then have
            their default values.
        has_head: Whether the checkpoint's head is loaded.
    """
    wanted: dict[str, str | float | None] = {
        name: cast("str | float | None", value)
        for name, value in stated.items()
        if name in (*SETTINGS, "head_reads", "token_pooling") and value is not None
    }
    if has_head:
        wanted.setdefault("head_reads", None)
    else:
        wanted.pop("head_reads", None)
    differences = structure.disagreements(wanted)
    found = {layer.name for layer in structure.model.layers}
    # A custom head without weights of the file may pool any tokens.
    reads = isinstance(structure.model, VisionTransformer) or (has_head and names.HEAD in found)
    loads_pooling = stated.get("head_reads") == "attention" and names.LATENT in structure.variables
    pools = reads and names.POOLING in found and (has_head or loads_pooling)
    config = structure.config
    for name in _UNSEEN:
        if name == "pool_prefix" and not pools:
            continue
        have: FieldValue = getattr(config, name)
        must: FieldValue = stated.get(name, cast("FieldValue", _DEFAULT[name]))
        if name == "final_norm_epsilon" and have != must:
            # The last norm has the epsilon of the other norms by default.
            usual = stated.get("layer_norm_epsilon", config.layer_norm_epsilon)
            have, must = have or config.layer_norm_epsilon, must or usual
        # Settings that no array shows are compared only if the checkpoint states them.
        if not same_setting(have, must) and (name in stated or is_complete or name in _TOLD):
            differences.append(f"{name} is {have!r}, but must be {must!r}")
    if None not in (structure.config.reducer, stated.get("reducer")) and (
        structure.config.num_prefix_tokens  # otherwise proportional attention has no effect
    ):
        have = structure.config.proportional_attention
        must = stated.get("proportional_attention", False)
        if have != must:
            differences.append(f"proportional_attention is {have!r}, but must be {must!r}")
    # A kernel whose heads and channels are one axis fits any number of heads.
    heads = {"num_heads": structure.heads}
    if structure.config.block_attention == "vector":  # vector attention ignores `num_heads`
        del heads["num_heads"]
    if names.LATENT in structure.variables:
        heads["pooling_num_heads"] = structure.model.get_layer(names.POOLING).num_heads
    differences += [
        f"{name} is {have}, but must be {stated[name]}"
        for name, have in heads.items()
        if stated.get(name) not in (None, have)
    ]
    ours = _pixels_of(structure.model)
    if ours and preprocessing and not _same_pixels(ours, preprocessing):
        theirs = preprocessing
        differences.append(
            f"preprocessing has mean {ours.mean} and std {ours.std}, but must have mean "
            f"{theirs.mean} and std {theirs.std}"
        )
    return differences


def take_projection(arrays: Arrays, structure: Structure) -> None:
    """If the file has no head, use a projection with the shape of the model's head instead."""
    kernel = structure.variables.get(names.HEAD_KERNEL)
    projection = arrays.get(f"{names.PROJECTION}/kernel")
    if names.HEAD_KERNEL in arrays or projection is None or kernel is None:
        return
    if tuple(kernel.shape) == projection.array.shape:
        for leaf in ("kernel", "bias"):
            arrays[f"{_HEAD}{leaf}"] = arrays.pop(f"{names.PROJECTION}/{leaf}")


def name_added(
    owner: str, arrays: Arrays, structure: Structure, partial: bool, fixes: Fixes
) -> None:
    """Rename the file's TokenLearners and TokenFusers, numbered from 0, to the model's names."""
    renamed: Arrays = {}
    for kind in (names.TOKEN_LEARNER, names.TOKEN_FUSER):
        ours = structure.numbered(kind)
        theirs = {path.partition("/")[0] for path in arrays if path.startswith(f"{kind}_")}
        if theirs and ours and len(theirs) != len(ours) and not partial:
            raise ValueError(
                f"{owner}: the file has {len(theirs)} {kind} layers, but `model` has {len(ours)}. "
                f"The model is unchanged. {fixes.config}{fixes.partial}"
            )
        for index, name in enumerate(ours):
            start = f"{names.numbered(kind, index)}/"
            for path in [path for path in arrays if path.startswith(start)]:
                renamed[f"{name}/{path.removeprefix(start)}"] = arrays.pop(path)
    arrays |= renamed


def split_heads(arrays: Arrays, structure: Structure) -> None:
    """Split the joint axis of heads and channels in attention arrays into two axes."""
    for path, (array, origin) in arrays.items():
        variable = structure.variables.get(path)
        if variable is None or "attention/" not in path:
            continue
        shape = tuple(variable.shape)
        if len(shape) == array.ndim + 1 and math.prod(shape) == array.size:
            arrays[path] = Named(array.reshape(shape), origin)


def check_head(
    owner: str,
    arrays: Arrays,
    structure: Structure,
    entries: Entries,
    recipe: Source,
    fixes: Fixes,
) -> None:
    """Raise `ValueError` if the file's head does not fit the model."""
    kernel = structure.variables.get(names.HEAD_KERNEL)
    if kernel is None or names.HEAD_KERNEL not in arrays:
        return
    starts = recipe.head_only
    between = [name for name in entries.unused() if starts and name.startswith(starts)]
    between += [
        origin
        for path, (_, origin) in arrays.items()
        if path.startswith(_BEFORE_HEAD)
        and path not in structure.variables
        and origin not in FILLED
    ]
    if between:
        raise ValueError(
            f"{owner}: in the file, the classifier comes after layers that the model lacks: "
            f"{listed(between)}. Pass {fixes.head}"
        )
    array, origin = arrays[names.HEAD_KERNEL]
    if array.shape[-1] != kernel.shape[-1]:
        raise ValueError(
            f"{owner}: the head of `model` must have the classes of the file. Build the model with "
            f"classes={array.shape[-1]}, or pass {fixes.head}. Received: "
            f"{kernel.path} of shape {tuple(kernel.shape)}, {origin} of shape {array.shape}"
        )


class Match(NamedTuple):
    """The entries of a checkpoint and the variables of a model that have no counterpart.

    Attributes:
        unused: Names of the entries without a variable in the model.
        left: Paths of the variables without an entry in the file.
        added: Names of the layers that are not in a plain ViT and not in the file.
    """

    unused: list[str]
    left: list[str]
    added: list[str]


def match(
    owner: str,
    arrays: Arrays,
    structure: Structure,
    entries: Entries,
    recipe: Source,
    head: str,
    partial: bool,
    fixes: Fixes,
) -> Match:
    """Remove arrays without a variable in the model, and return names without a counterpart.

    The file may lack the head. It may also lack whole layers that a plain ViT does not have, such
    as a TokenLearner.

    Raises:
        ValueError: If a shape differs. Also if `partial` is `False` and a required name has no
            counterpart.
    """
    variables = structure.variables
    # A file without learned tokens also lacks the weights of proportional attention.
    is_plain = not any(path.startswith((*REDUCERS, *FUSERS)) for path in arrays)
    homeless = {
        path: arrays[path].origin
        for path in arrays
        if path not in variables or (head != "keep" and path.startswith(_HEAD))
    }
    for path in homeless:
        del arrays[path]
    _check_shapes(owner, arrays, variables, fixes)
    left = [path for path in variables if path not in arrays]
    filled = {path.split("/")[0] for path in arrays}
    unfilled = [layer.name for layer in structure.added if layer.name not in filled]
    may_be_left = {*unfilled} if names.HEAD in filled else {names.HEAD, *unfilled}
    missing = [
        path
        for path in left
        if path.split("/")[0] not in may_be_left
        and not (path.endswith(names.PATCH_BIAS) and is_plain)
    ]
    unused = [name for name in entries.unused() if not name.startswith(recipe.head_only)] if (
        recipe.head_only
    ) else entries.unused()  # fmt: skip
    unknown = [
        entries.full_name(name)
        for name in unused
        if entries.full_name(name) not in entries.outside
        and not (recipe.ignored and name.startswith(recipe.ignored))
    ]
    # The model may lack the file's class token and projection, and an unwanted head.
    may_go = [f"{names.CLASS_TOKEN}/", f"{names.PROJECTION}/"]
    if head != "keep" or names.HEAD_KERNEL not in variables:
        may_go += [_HEAD, *_BEFORE_HEAD]
        # A model that returns tokens has no norm after the pooling.
        if structure.config.final_norm == "pooled":
            may_go.append(f"{names.NORM}/")
    elif names.HEAD_KERNEL not in arrays:
        may_go.append(f"{names.PRE_LOGITS}/")
    unknown += [
        origin
        for path, origin in homeless.items()
        if origin not in FILLED and not path.startswith(tuple(may_go))
    ]
    if (missing or unknown) and not partial:
        raise ValueError(
            f"{owner}: `model` and the file have different architectures. The model is unchanged. "
            f"{fixes.config}{fixes.partial}. Missing in the file: "
            f"{listed(missing) or 'nothing'}. Missing in the model: {listed(unknown) or 'nothing'}"
        )
    all_unused = [entries.full_name(name) for name in entries.unused()]
    origins = [name for origin in homeless.values() for name in origin.split(BOTH)]
    all_unused += [name for name in dict.fromkeys(origins) if name not in FILLED]
    return Match(all_unused, left, unfilled)


def check_reset(owner: str, model: keras.Model, reset: list[str]) -> None:
    """Raise `ValueError` if `reset_head` cannot set the weights at the paths `reset`."""
    if not reset:
        return
    layer = model.get_layer(names.HEAD)
    other = sorted({*reset} - {names.HEAD_KERNEL, names.HEAD_BIAS})
    if other or not isinstance(layer, keras.layers.Dense):
        raise ValueError(
            f"{owner}: head='reset' needs a model whose head is a Dense layer with float weights; "
            f"pass head='drop'. Received: head='reset', for a {type(layer).__name__} with the "
            f"weights {listed(reset)}"
        )


def reset_head(model: keras.Model) -> None:
    """Set the weights of the head to new initial values."""
    layer = model.get_layer(names.HEAD)
    for variable, initializer in (
        (layer.kernel, layer.kernel_initializer),
        (layer.bias, layer.bias_initializer),
    ):
        if variable is not None:
            variable.assign(initializer(variable.shape, dtype=variable.dtype))


def _pixels_of(model: keras.Model) -> Preprocessing | None:
    """Return the mean and std of a model. `None` if a custom model takes normalised pixels."""
    if isinstance(model, VisionTransformer):
        return model.preprocessing
    found = [layer for layer in model.layers if layer.name == names.PREPROCESSING]
    is_ours = found and isinstance(found[0], keras.layers.Rescaling)
    return Preprocessing.of_layer(found[0]) if is_ours else None


def _same_pixels(one: Preprocessing, other: Preprocessing) -> bool:
    """Return whether mean and std are equal. One number equals several equal numbers."""
    pairs = ((one.mean, other.mean), (one.std, other.std))
    return all(
        len({len(ours), len(theirs)} - {1}) < 2 and np.allclose(ours, theirs, rtol=1e-5)
        for ours, theirs in pairs
    )


def _check_shapes(
    owner: str, arrays: Arrays, variables: Mapping[str, keras.Variable], fixes: Fixes
) -> None:
    wrong = [
        f"{path} of the model has shape {tuple(variables[path].shape)}, {origin} of the file has "
        f"shape {array.shape}"
        for path, (array, origin) in arrays.items()
        if array.shape != tuple(variables[path].shape)
    ]
    if wrong:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(
            f"{owner}: `model` must have the shapes of the file. The model is unchanged. "
            f"{fixes.config}. Received: {'; '.join(wrong[:3])}{more}"
        )
