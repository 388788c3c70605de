"""Converts a checkpoint to a `Plan` (`plan_of`), or loads a checkpoint into a model (`load`)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import keras

from keras_tokenlearner._checks import (
    check_bool,
    check_choice,
    check_int,
    check_ints,
    check_positive,
)
from keras_tokenlearner._errors import errors_of
from keras_tokenlearner.layers import activations
from keras_tokenlearner.models.config_fields import FieldValue, Normalization, PlanOptions
from keras_tokenlearner.models.preprocessing import Preprocessing
from keras_tokenlearner.models.structure import Structure
from keras_tokenlearner.models.vision_transformer import VisionTransformer
from keras_tokenlearner.weights.formats.read import CheckpointLike, read_checkpoint
from keras_tokenlearner.weights.keras_json import of_keras_model
from keras_tokenlearner.weights.match import SETTINGS
from keras_tokenlearner.weights.plan import Plan
from keras_tokenlearner.weights.positions import METHODS
from keras_tokenlearner.weights.recognise import SOURCES, recognise
from keras_tokenlearner.weights.report import LoadReport
from keras_tokenlearner.weights.statement import Statement, mean_and_std, statement_of_model
from keras_tokenlearner.weights.transformers_json import of_transformers_module


def plan_of(
    checkpoint: CheckpointLike,
    source: str | None = None,
    *,
    statement: Statement | None = None,
    normalization: Normalization | None = None,
    layer_norm_epsilon: float | None = None,
    activation: str | None = None,
    num_heads: int | None = None,
    grid: Sequence[int] | None = None,
    resize: str | None = None,
    owner: str = "plan_of",
) -> Plan:
    """Read a checkpoint into a `Plan`: the config and weights of the checkpoint's model.

    Args:
        checkpoint: Path of a file of another library, a mapping of names to arrays, or a model.
            `read_checkpoint` lists the formats.
        source: Key of `keras_tokenlearner.weights.SOURCES` for the library that named the entries.
            Examples are `"augreg"`, `"scenic"`, `"timm"`, `"dinov2"`, `"torchvision"`,
            `"huggingface_vit"`, `"keras_hub"` and `"keras_tokenlearner"`. Defaults to the source in
            `statement`. Without a source there, the names of the entries decide.
        statement: Settings from a config.json, as a `Statement`. Defaults to the settings of a
            model in memory, if it is of KerasHub or transformers. The settings of a
            `VisionTransformer` replace this argument.
        normalization: `(mean, std)` of the training pixels in [0, 1], or `"half"` (both 0.5),
            `"imagenet"` or `"clip"`. Overrides the file.
        layer_norm_epsilon: Epsilon of the norms. Overrides the file.
        activation: Activation of the MLPs. Overrides the file.
        num_heads: Number of attention heads, which many files do not state.
        grid: `(H, W)` or `(T, H, W)` of the file's positions. Defaults to the grid that `statement`
            implies, or to a square.
        resize: How to resize the position embedding to another grid: `"bilinear"` with aligned
            corners, `"bilinear_half_pixel"`, `"bilinear_antialias"`, `"bicubic"`,
            `"bicubic_antialias"`, `"bicubic_aligned"` or `"bicubic_offset"`. Defaults to the method
            in `statement`, or else to the method of the source. For a `VisionTransformer`, defaults
            to its `position_resize`.
        owner: Name of the function that the user called, for error messages.

    Returns:
        A `Plan`.

    Raises:
        ValueError: If the file is damaged, of an unknown source, or not of the source `source`.
            Also if an option is out of range or has an unknown value.

    Example:

    >>> from keras_tokenlearner import create_model
    >>> plan = plan_of(create_model("vit_pico8", classes=10))
    >>> plan.config.hidden_dim, plan.classes
    (32, 10)
    """
    options: PlanOptions = {
        "normalization": normalization,
        "layer_norm_epsilon": layer_norm_epsilon,
        "activation": activation,
        "num_heads": num_heads,
        "grid": grid,
        "resize": resize,
    }
    return _plan_of(owner, checkpoint, source, statement, options)


def _plan_of(
    owner: str,
    checkpoint: CheckpointLike,
    source: str | None,
    statement: Statement | None,
    options: PlanOptions,
    reads: bool = True,
) -> Plan:
    """Return the result of `plan_of`. With `reads=False`, arrays are zeros that take no memory."""
    given = _checked_fields(owner, options)  # all options are checked before the file is read
    said = statement or _settings_in_memory(owner, checkpoint)
    normalization, grid = options.get("normalization"), options.get("grid")
    if normalization is not None:
        mean_and_std(owner, normalization)
    if grid is not None:
        grid = check_ints(owner, "grid", grid, lengths=(2, 3))
    resize = options.get("resize")
    if resize is not None:
        check_choice(owner, "resize", resize, METHODS)
    checkpoint_read = read_checkpoint(checkpoint, owner)
    source = recognise(owner, checkpoint_read, source or said.source)
    if isinstance(checkpoint, VisionTransformer):
        said = statement_of_model(checkpoint)
    if said.resize is not None:
        check_choice(owner, "position_resize", said.resize, METHODS)
    preprocessing = said.preprocessing
    default = SOURCES[source].normalization
    if normalization is None and preprocessing is None:
        normalization = default
    if normalization is not None:
        mean, std = mean_and_std(owner, normalization)
        preprocessing = replace(preprocessing or Preprocessing(), mean=mean, std=std)
    said = replace(
        said,
        fields={**said.fields, **given},
        preprocessing=preprocessing,
        grid=said.grid if grid is None else grid,
    )
    return Plan(owner, source, checkpoint_read, said, resize, reads)


def _settings_in_memory(owner: str, checkpoint: CheckpointLike) -> Statement:
    """Return the settings of a model of KerasHub or transformers, empty for other checkpoints."""
    found = of_keras_model(owner, checkpoint) or of_transformers_module(owner, checkpoint)
    return found or Statement()


def _checked_fields(owner: str, options: PlanOptions) -> dict[str, FieldValue]:
    """Return the config fields in `options`, or raise `ValueError` if one is wrong."""
    given: dict[str, FieldValue] = {}
    epsilon, num_heads = options.get("layer_norm_epsilon"), options.get("num_heads")
    activation = options.get("activation")
    if epsilon is not None:
        given["layer_norm_epsilon"] = check_positive(owner, "layer_norm_epsilon", epsilon)
    if activation is not None:
        activations.get(activation, owner)
        given["activation"] = activation
    if num_heads is not None:
        given["num_heads"] = check_int(owner, "num_heads", num_heads)
    return given


def load(
    model: keras.Model,
    source: str | None,
    checkpoint: CheckpointLike,
    *,
    head: str = "keep",
    grid: Sequence[int] | None = None,
    resize: str | None = None,
    normalization: Normalization | None = None,
    embedding: str = "central_frame",
    partial: bool = False,
    check_settings: bool = True,
) -> LoadReport:
    """Load a checkpoint into a model of this package, completely or not at all.

    The function calls `plan_of`, and then `Plan.load` with the model.

    Args:
        model: A `VisionTransformer` with the settings of the checkpoint, which
            `plan_of(...).config` states.
        source: Argument of `plan_of`.
        checkpoint: Argument of `plan_of`.
        head: Argument of `Plan.load`.
        grid: Argument of `plan_of`.
        resize: Argument of `plan_of`.
        normalization: Argument of `plan_of`. The model must have the same mean and std.
        embedding: Argument of `Plan.load`.
        partial: Argument of `Plan.load`.
        check_settings: Argument of `Plan.load`.

    Returns:
        A printable `LoadReport`.

    Raises:
        ValueError: If the file is damaged or of another architecture, or if a shape or a setting
            differs. The model is then unchanged.

    Example:

    >>> from keras_tokenlearner import create_model
    >>> teacher = create_model("vit_pico8", classes=10)
    >>> student = create_model("tokenlearner_pico8_4at1", classes=10, input_shape=(64, 64, 3))
    >>> report = load(student, "keras_tokenlearner", teacher)
    >>> report.resized
    {'positions/table': '4x4 to 8x8, bilinear'}
    """
    owner = f"load({source!r})"
    check_bool(owner, "check_settings", check_settings)
    Structure(owner, model)  # a wrong model raises an error before the file is read
    options: PlanOptions = {"normalization": normalization, "grid": grid, "resize": resize}
    fitting = (head, embedding, partial, check_settings)
    passes: tuple[bool, ...] = (True,)
    if isinstance(checkpoint, (str, os.PathLike)):
        checkpoint = read_checkpoint(checkpoint, owner)
        passes = (False, True)  # the first pass compares names and shapes, and reads no arrays
    with errors_of(owner):
        for reads in passes:
            plan = _plan_of(owner, checkpoint, source, None, options, reads)
            if check_settings:
                # The model has these settings. `load` has no arguments for them.
                plan.check_open(dict.fromkeys((*SETTINGS, "rotary", "head_reads"), True))
            if not reads:
                plan.fit(model, *fitting)
        return plan.load(model, *fitting)
