"""Loading of a checkpoint: read and converted once, loaded completely or not at all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, cast

import keras
import numpy as np

from keras_tokenlearner._checks import check_bool, check_choice, check_int, check_positive
from keras_tokenlearner.models import VisionTransformerConfig, names
from keras_tokenlearner.models.preprocessing import Preprocessing
from keras_tokenlearner.models.structure import Structure
from keras_tokenlearner.models.vision_transformer import VisionTransformer
from keras_tokenlearner.weights import positions
from keras_tokenlearner.weights.architecture import (
    features_lacking,
    fields_of,
    may_be_rotary,
    name_norms,
    sizes_of,
)
from keras_tokenlearner.weights.formats import CheckpointLike, listed, read_checkpoint
from keras_tokenlearner.weights.recognise import SOURCES, recognise
from keras_tokenlearner.weights.source import (
    BOTH,
    NORMALIZATIONS,
    ZEROS,
    Arrays,
    Entries,
    Fields,
    FieldValue,
    Named,
)

Normalization = str | tuple[Sequence[float], Sequence[float]]

_UNTRAINED = (
    "These layers start untrained, and the blocks behind them meet tokens that they have not seen: "
    "fine-tune or distill. The TokenLearner's authors found that plain weights alone do not help."
)
# Layers between the last norm and the head: without the head they are not needed.
_BEFORE_HEAD = ("pre_logits/", "pooling/", "fc_norm/", "projection/")
_SETTINGS = ("activation", "layer_norm_epsilon")
# Fields that change the outputs and that neither names nor shapes of weights show.
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
_TOLD = ("final_norm", "norm")  # by the names of the entries of every source
_DEFAULT = {one.name: one.default for one in fields(VisionTransformerConfig)}


@dataclass(frozen=True)
class Statement:
    """Settings of a checkpoint that are not in its arrays, from a config.json or arguments.

    Attributes:
        source: Name of the source, or `None` to recognise it by the names of entries.
        fields: Fields of `VisionTransformerConfig`.
        preprocessing: `Preprocessing` of its images, or `None`.
        class_names: Names of its classes, or `None`.
        grid: Grid of its positions, or `None`.
        input_size: `(height, width)` of its images, or `None`.
        input_shape: Shape of its model's input, or `None` for the grid of its positions.
        resize: Method to resize its positions, or `None` for the method of the source.
        pooling: Pooling of its features without a head, or `None`.
        missing: Names of features that this package lacks.
        is_config: Whether it is from a config.json, which states everything.
    """

    source: str | None = None
    fields: Fields = field(default_factory=dict)
    preprocessing: Preprocessing | None = None
    class_names: tuple[str, ...] | None = None
    grid: tuple[int, ...] | None = None
    input_size: tuple[int, ...] | None = None
    input_shape: tuple[int, ...] | None = None
    resize: str | None = None
    pooling: str | None = None
    missing: tuple[str, ...] = ()
    is_config: bool = False


@dataclass(frozen=True)
class LoadReport:
    """The result of `load`. `print` it.

    Attributes:
        model: Name of the model.
        source: Name of the source.
        origin: Where the weights came from: a path, or "a mapping".
        loaded: Paths of variables to the names of the entries that they came from.
        resized: Paths of variables to the changes of their shape.
        adapted: Paths of variables to the changes of their values.
        left: Paths of the variables that kept their values.
        reset: Paths of the variables that were initialised again.
        unused: Names of the entries without a place in the model.
        added: Names of the layers that a plain ViT lacks and the file did not fill.
        differences: Settings that differ between model and source, where allowed.
    """

    model: str
    source: str
    origin: str
    loaded: dict[str, str]
    resized: dict[str, str]
    adapted: dict[str, str]
    left: tuple[str, ...]
    reset: tuple[str, ...]
    unused: tuple[str, ...]
    added: tuple[str, ...]
    differences: tuple[str, ...]

    def __str__(self) -> str:
        total = len(self.loaded) + len(self.left) + len(self.reset)
        lines = [
            f"{self.source} weights from {self.origin} in the model {self.model!r}: "
            f"{len(self.loaded)} of {total} variables loaded"
        ]
        for title, rows in (("resized", self.resized), ("adapted", self.adapted)):
            for what in dict.fromkeys(rows.values()):
                paths = [path for path in rows if rows[path] == what]
                lines.append(f"  {title:8} {listed(paths)}: {what}")
        for title in ("left", "reset", "unused"):
            found = getattr(self, title)
            if found:
                lines.append(f"  {title:8} {len(found)}: {listed(found)}")
        lines += [f"  differs  {what}" for what in self.differences]
        if self.added:
            lines.append(f"  note     {listed(self.added)}: {_UNTRAINED}")
        return "\n".join(lines)


class Plan:
    """A checkpoint that `plan_of` read and converted: the config of its model, and its loading.

    Attributes:
        source: Name of the source.
        origin: Where the checkpoint came from: a path, or "a mapping".
        fields: Fields of `VisionTransformerConfig` that the checkpoint decides, without its sizes.
        sizes: Fields that are its sizes, as far as its arrays or its config.json state them.
        classes: Classes of its head; `None` without a head.
        class_names: Names of its classes, or `None`.
        preprocessing: The `Preprocessing` of its images, or `None` if it is not stated.
        pooling: Pooling of its features without a head.
        grid: Grid of its positions, or `None` if it is ambiguous.
    """

    def __init__(
        self,
        owner: str,
        source: str,
        checkpoint: CheckpointLike,
        said: Statement,
        resize: str | None,
    ) -> None:
        checkpoint = read_checkpoint(checkpoint, owner)
        self.owner, self.source, self.origin = owner, source, checkpoint.origin
        self._recipe = recipe = SOURCES[source]
        self._entries = Entries(owner, checkpoint, recipe.anchors)
        self._arrays = recipe.convert(self._entries)
        rms = said.fields.get("norm") == "rms_norm"
        name_norms(self._arrays, rms)
        shown = fields_of(self._arrays, recipe)
        self.sizes: dict[str, FieldValue] = sizes_of(self._arrays)
        said_fields = dict(said.fields)
        for name in ("num_heads", "patch_size", "mlp_dim"):
            if name in said_fields:
                self.sizes[name] = said_fields.pop(name)
        self.fields: dict[str, FieldValue] = {**recipe.config, **shown, **said_fields}
        if self.fields.get("rotary") and positions.TABLE not in self._arrays:
            self.fields["positions"] = None
        self._drop_unread()
        self._is_described = said.is_config
        self.preprocessing = said.preprocessing
        self.class_names = said.class_names
        self.pooling = said.pooling or "head"
        self.missing = said.missing + features_lacking(self._arrays)
        self._resize = resize or said.resize or self._own_resize()
        patch = self.sizes.get("patch_size")
        self.grid = said.grid
        if self.grid is None and said.input_size and isinstance(patch, tuple) and len(patch) == 2:
            # The grid of the file's positions, where its pictures have the size that it says.
            grid = tuple(n // p for n, p in zip(said.input_size, patch, strict=True))
            if positions.TABLE not in self._arrays or positions.file_grids(self._arrays, grid):
                self.grid = grid
        self._said_grid = self.grid
        self.input_shape = said.input_shape
        if self.grid is None and positions.TABLE in self._arrays:
            grids = set(positions.file_grids(self._arrays))
            self.grid = grids.pop() if len(grids) == 1 else None

    @property
    def classes(self) -> int | None:
        """Classes of the head, or `None` without one."""
        return len(self._arrays["head/bias"].array) if "head/bias" in self._arrays else None

    @property
    def channels(self) -> int:
        """Channels of the pictures."""
        kernel = self._arrays.get("embedding/projection/kernel")
        return kernel.array.shape[-2] if kernel else 3

    @property
    def projection(self) -> int | None:
        """Width of a projection behind the features, as CLIP's, or `None`."""
        kernel = self._arrays.get("projection/kernel")
        return kernel.array.shape[-1] if kernel else None

    @property
    def open(self) -> dict[str, tuple[FieldValue, ...]]:
        """Settings that neither checkpoint nor source states, and their usual values."""
        known = {**self.fields, "normalization": self.preprocessing}
        choices = self._recipe.choices
        unsaid = {name: usual for name, usual in choices.items() if known.get(name) is None}
        is_bare = self.source == "timm" and not self._is_described and "rotary" not in known
        if is_bare and may_be_rotary(self._entries):
            unsaid["rotary"] = (None, "index", "centred", "learned")
        return unsaid

    @property
    def config(self) -> VisionTransformerConfig:
        """The config of the checkpoint's model."""
        return self.config_with({})

    def config_with(self, changes: Fields) -> VisionTransformerConfig:
        """Return the config of the checkpoint's model, with fields changed.

        Raises:
            ValueError: If the heads, the activation or the epsilon are not stated. Also if this
                package lacks a feature of the checkpoint.
        """
        self.check_features()
        self.check_open(changes)
        merged: dict[str, Any] = {**self.sizes, **self.fields, **changes}
        if "num_heads" not in merged:
            raise ValueError(
                f"{self.owner}: {self.origin} does not say how many heads its attentions have; "
                f"pass num_heads= (ViTs have hidden_dim / 64, here "
                f"{max(1, int(merged['hidden_dim']) // 64)})"
            )
        return VisionTransformerConfig(**merged)

    def check_open(self, given: Fields = {}) -> None:  # noqa: B006 (never changed)
        """Raise `ValueError` with usual values of settings that are neither stated nor given."""
        unsaid = {name: usual for name, usual in self.open.items() if name not in given}
        if unsaid:
            hints = "; ".join(
                f"`{name}`, one of {', '.join(map(repr, usual))}" for name, usual in unsaid.items()
            )
            raise ValueError(
                f"{self.owner}: {self.origin} is a {self.source} file without a config.json, and "
                f"its names do not say how its model was built. Pass {hints}"
            )

    def check_features(self) -> None:
        """Raise `ValueError` if our models lack a feature of the checkpoint."""
        if self.missing:
            raise ValueError(
                f"{self.owner}: {self.origin} is of a model with {', '.join(self.missing)}, which "
                "our models lack"
            )

    def load(
        self,
        model: keras.Model,
        head: str = "keep",
        embedding: str = "central_frame",
        partial: bool = False,
        check_settings: bool = True,
    ) -> LoadReport:
        """Load the checkpoint into a model of this package, completely or not at all.

        The class token's position becomes part of the class token. A model that averages drops
        both. A file with TokenLearners needs a model with the same number of them.

        Args:
            model: A `VisionTransformer`.
            head: `"keep"` loads the file's classifier, if any. `"drop"` keeps the model's
                classifier. `"reset"` initialises it again, for other classes.
            embedding: `"central_frame"` or `"inflate"`, the way from patches of an image to
                tubelets.
            partial: Boolean, whether an incomplete match is loaded. The file may then lack
                variables or layers of a TokenLearner, or have more blocks or unknown entries.
            check_settings: Boolean, whether to raise an error for a model with another activation,
                epsilon or normalisation of pixels than the checkpoint.

        Returns:
            A `LoadReport`.

        Raises:
            ValueError: If a shape or a setting differs. The model is then unchanged.
        """
        owner = self.owner
        check_choice(owner, "head", head, ("keep", "drop", "reset"))
        check_choice(owner, "embedding", embedding, ("central_frame", "inflate"))
        check_bool(owner, "partial", partial)
        check_bool(owner, "check_settings", check_settings)
        structure = Structure(owner, model)
        arrays = dict(self._arrays)
        kernel = structure.variables.get("head/kernel")
        self._take_projection(arrays, kernel)
        _name_added(owner, arrays, structure, partial)
        differences = self._differences(structure, head)
        if differences and check_settings:
            raise ValueError(
                f"{owner}: the settings of the model differ from the checkpoint: "
                f"{'; '.join(differences)}. Build it with the fields of `plan_of(...)`, or pass "
                "check_settings=False"
            )
        adapted = {
            path: "zeros, since the file's layer has no bias"
            for path, (_, origin) in arrays.items()
            if origin == ZEROS
        }
        folded, resized = positions.fit_positions(
            owner, arrays, structure.grid, self._resize, self._said_grid
        )
        for path, what in folded.items():
            adapted[path] = f"{adapted[path]}; {what}" if path in adapted else what
        embedded = structure.variables.get("embedding/projection/kernel")
        if embedded is not None:
            resized |= positions.inflate(arrays, tuple(embedded.shape), embedding)
        _split_heads(arrays, structure)
        if head == "keep":
            _check_head(owner, arrays, structure, self._between())
        unused, left, added = self._match(arrays, structure, head, partial)
        # Nothing has been assigned so far, and nothing can fail from here on.
        loaded = {path: arrays[path] for path in structure.variables if path in arrays}
        for path, (array, _) in loaded.items():
            structure.variables[path].assign(array)
        reset = [path for path in left if head == "reset" and path.startswith(f"{names.HEAD}/")]
        if reset:
            _reset(model.get_layer(names.HEAD))
        return LoadReport(
            model=model.name,
            source=self.source,
            origin=self.origin,
            loaded={path: origin for path, (_, origin) in loaded.items()},
            resized=resized,
            adapted={path: what for path, what in adapted.items() if path in loaded},
            left=tuple(path for path in left if path not in reset),
            reset=tuple(reset),
            unused=tuple(unused),
            added=tuple(added),
            differences=tuple(differences),
        )

    def _drop_unread(self) -> None:
        """Leave out fields that our config refuses as unread."""
        fields = self.fields
        prefix = fields.get("class_token") or fields.get("register_tokens")
        if not prefix:
            fields.pop("pool_prefix", None)
        if not fields.get("class_token") and fields.get("head_reads") == "average":
            fields["head_reads"] = None
        if fields.get("final_norm", "tokens") is None:
            fields.pop("final_norm_epsilon", None)

    def _between(self) -> list[str]:
        """Return the entries that stand between the features and the head and were not taken."""
        starts = self._recipe.head_only
        return [name for name in self._entries.unused() if starts and name.startswith(starts)]

    def _own_resize(self) -> str:
        recipe = self._recipe
        if recipe.resize_without_registers and "register_tokens/tokens" not in self._arrays:
            return recipe.resize_without_registers
        return recipe.resize

    def _take_projection(self, arrays: Arrays, kernel: keras.Variable | None) -> None:
        """Load a projection as the head, without a bias, if the model has its number of classes."""
        if "head/kernel" in arrays or "projection/kernel" not in arrays or kernel is None:
            return
        if tuple(kernel.shape) == arrays["projection/kernel"].array.shape:
            for leaf in ("kernel", "bias"):
                arrays[f"head/{leaf}"] = arrays.pop(f"projection/{leaf}")

    def _differences(self, structure: Structure, head: str) -> list[str]:
        wanted: dict[str, str | float | None] = {
            name: cast("str | float | None", value)
            for name, value in self.fields.items()
            if name in (*_SETTINGS, "head_reads", "token_pooling") and value is not None
        }
        if "head/kernel" in self._arrays and head == "keep":
            wanted.setdefault("head_reads", None)
        else:
            wanted.pop("head_reads", None)
        differences = structure.disagreements(wanted)
        for name in _UNSEEN:
            have, must = getattr(structure.config, name), self.fields.get(name, _DEFAULT[name])
            # Settings that no array shows are compared where the checkpoint states them.
            if have != must and (name in self.fields or self._is_described or name in _TOLD):
                differences.append(f"{name} is {have!r} and must be {must!r}")
        ours = getattr(structure.model, "preprocessing", None) or Preprocessing()
        if self.preprocessing is not None and not _same_pixels(ours, self.preprocessing):
            theirs = self.preprocessing
            differences.append(
                f"preprocessing has mean {ours.mean} and std {ours.std}, and must have "
                f"{theirs.mean} and {theirs.std}"
            )
        return differences

    def _match(
        self, arrays: Arrays, structure: Structure, head: str, partial: bool
    ) -> tuple[list[str], list[str], list[str]]:
        """Take arrays without a place in the model out of `arrays`, and find missing ones.

        Returns:
            The names of the unused entries, the paths of the unchanged variables, and the names of
            the added layers that the file lacks.
        """
        owner, variables, recipe = self.owner, structure.variables, self._recipe
        homeless = {
            path: arrays[path].origin
            for path in arrays
            if path not in variables or (head != "keep" and path.startswith("head/"))
        }
        for path in homeless:
            del arrays[path]
        _check_shapes(owner, arrays, variables)
        left = [path for path in variables if path not in arrays]
        filled = {path.split("/")[0] for path in arrays}
        unfilled = [layer.name for layer in structure.added if layer.name not in filled]
        may_be_left = {*unfilled} if "head" in filled else {"head", *unfilled}
        missing = [path for path in left if path.split("/")[0] not in may_be_left]
        entries = self._entries
        unused = [name for name in entries.unused() if not name.startswith(recipe.head_only)] if (
            recipe.head_only
        ) else entries.unused()  # fmt: skip
        unknown = [
            entries.full_name(name)
            for name in unused
            if entries.full_name(name) not in entries.outside
            and not (recipe.ignored and name.startswith(recipe.ignored))
        ]
        # A head that is not wanted, and the class token of a model that averages, may go.
        may_go = ["class_token/", "projection/"]
        if head != "keep" or "head/kernel" not in variables:
            may_go += ["head/", *_BEFORE_HEAD]
        unknown += [
            origin
            for path, origin in homeless.items()
            if origin != ZEROS and not path.startswith(tuple(may_go))
        ]
        if (missing or unknown) and not partial:
            raise ValueError(
                f"{owner}: model and file are of different architectures, so the model is "
                f"unchanged. Not in the file: {listed(missing) or 'nothing'}. Without a place in "
                f"the model: {listed(unknown) or 'nothing'}. Build the model from "
                "plan_of(...).config, or pass partial=True to load the rest"
            )
        all_unused = [entries.full_name(name) for name in entries.unused()]
        origins = [name for origin in homeless.values() for name in origin.split(BOTH)]
        all_unused += [name for name in dict.fromkeys(origins) if name != ZEROS]
        return all_unused, left, unfilled


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
    """Read a checkpoint of another library once, for its config and its loading.

    Args:
        checkpoint: Path of a file, a mapping of names to arrays or a model, as `read_checkpoint`
            takes it.
        source: `"augreg"`, `"scenic"`, `"timm"`, `"timm_deit"`, `"dinov2"`, `"torchvision"`,
            `"huggingface_vit"` and the other `"huggingface_..."`, `"keras_hub"`, or
            `"keras_tokenlearner"`. Defaults to the source of the names of the entries.
        statement: Statement of a config.json, or `None`.
        normalization: `(mean, std)` of the training pixels, in [0, 1], or `"half"` (both 0.5),
            `"imagenet"` or `"clip"`. It overrides the file.
        layer_norm_epsilon: Epsilon of the norms. It overrides the file.
        activation: Activation of the MLPs. It overrides the file.
        num_heads: Heads of the attentions. Many files do not state it.
        grid: `(H, W)` or `(T, H, W)` of the file's positions. Defaults to a square.
        resize: `"bilinear"` with aligned corners, `"bicubic"`, `"bicubic_antialias"` or
            `"bicubic_offset"`. Defaults to the source's own method.
        owner: Name of the function that the user called, for error messages.

    Returns:
        A `Plan`.

    Raises:
        ValueError: If the file is damaged, of no known source, or of another source than `source`.

    Example:

    >>> from keras_tokenlearner import create_model
    >>> plan = plan_of(create_model("vit_pico8", classes=10))
    >>> plan.config.hidden_dim, plan.classes
    (32, 10)
    """
    said = statement or Statement()
    checkpoint_read = read_checkpoint(checkpoint, owner)
    source = recognise(owner, checkpoint_read, source or said.source)
    if isinstance(checkpoint, VisionTransformer):
        said = _of_model(checkpoint)
    preprocessing = said.preprocessing
    default = SOURCES[source].normalization
    if normalization is None and preprocessing is None:
        normalization = default
    if normalization is not None:
        mean, std = _normalization(owner, normalization)
        preprocessing = replace(preprocessing or Preprocessing(), mean=mean, std=std)
    given: dict[str, FieldValue] = {}
    if layer_norm_epsilon is not None:
        given["layer_norm_epsilon"] = check_positive(
            owner, "layer_norm_epsilon", layer_norm_epsilon
        )
    if activation is not None:
        given["activation"] = activation
    if num_heads is not None:
        given["num_heads"] = check_int(owner, "num_heads", num_heads)
    grid = None if grid is None else tuple(grid)
    said = replace(
        said,
        fields={**said.fields, **given},
        preprocessing=preprocessing,
        grid=grid or said.grid,
    )
    return Plan(owner, source, checkpoint_read, said, resize)


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
    """Load weights of another library into a model of this package, completely or not at all.

    Equals `plan_of` and then `Plan.load`, for an existing model.

    Args:
        model: A `VisionTransformer` with the settings of the checkpoint, which
            `plan_of(...).config` states.
        source: As for `plan_of`.
        checkpoint: As for `plan_of`.
        head: As for `Plan.load`.
        grid: As for `plan_of`.
        resize: As for `plan_of`.
        normalization: As for `plan_of`; the model's `preprocessing` must have it too.
        embedding: As for `Plan.load`.
        partial: As for `Plan.load`.
        check_settings: As for `Plan.load`.

    Returns:
        A `LoadReport`; print it.

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
    Structure(owner, model)  # a wrong model raises an error before anything is read
    plan = plan_of(
        checkpoint, source, normalization=normalization, grid=grid, resize=resize, owner=owner
    )
    if check_settings:
        plan.check_open(dict.fromkeys(_SETTINGS, True))  # the model has those
    return plan.load(model, head, embedding, partial, check_settings)


def _normalization(owner: str, value: Normalization) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if isinstance(value, str):
        check_choice(owner, "normalization", value, list(NORMALIZATIONS))
        value = NORMALIZATIONS[value]
    pair = [np.asarray(part, np.float64).reshape(-1) for part in value] if len(value) == 2 else []
    sizes = {part.size for part in pair} - {1}
    if not pair or len(sizes) > 1 or not all(np.isfinite(part).all() for part in pair):
        raise ValueError(
            f"{owner}: `normalization` must be one of {list(NORMALIZATIONS)}, or a pair of finite "
            f"mean and standard deviation. Received: normalization={value}"
        )
    if not np.all(pair[1] > 0):
        raise ValueError(
            f"{owner}: `normalization` must have positive standard deviations. "
            f"Received: normalization={value}"
        )
    mean, std = (tuple(float(x) for x in part) for part in pair)
    return mean, std


def _same_pixels(one: Preprocessing, other: Preprocessing) -> bool:
    return all(
        np.allclose(getattr(one, name), getattr(other, name), rtol=1e-5)
        if {len(getattr(p, name)) for p in (one, other)} - {1} in ({3}, set(), {1}, {4})
        else False
        for name in ("mean", "std")
    )


def _of_model(model: VisionTransformer) -> Statement:
    """Return the statement of our model."""
    sizes = ("hidden_dim", "num_layers")
    said = {
        one.name: getattr(model.config, one.name)
        for one in fields(model.config)
        if one.name not in sizes
    }
    return Statement(
        source="keras_tokenlearner",
        fields=said,
        preprocessing=model.preprocessing,
        class_names=model.class_names,
        grid=model.grid,
        input_shape=model.input_shape[1:],
        pooling=model.pooling,
        is_config=True,
    )


def _name_added(owner: str, arrays: Arrays, structure: Structure, partial: bool) -> None:
    """Give the file's TokenLearners and TokenFusers, numbered from 0, the names of the model's."""
    renamed: Arrays = {}
    for kind in ("token_learner", "token_fuser"):
        ours = structure.numbered(kind)
        theirs = {path.partition("/")[0] for path in arrays if path.startswith(f"{kind}_")}
        if theirs and ours and len(theirs) != len(ours) and not partial:
            raise ValueError(
                f"{owner}: the file has {len(theirs)} layers {kind} and the model has "
                f"{len(ours)}, so the model is unchanged; build it with as many (`at` and "
                "`num_layers` decide), or pass partial=True"
            )
        for index, name in enumerate(ours):
            start = f"{kind}_{index}/"
            for path in [path for path in arrays if path.startswith(start)]:
                renamed[f"{name}/{path.removeprefix(start)}"] = arrays.pop(path)
    arrays |= renamed


def _split_heads(arrays: Arrays, structure: Structure) -> None:
    """Give the arrays of attentions, which may have heads and channels as one axis, both axes."""
    for path, (array, origin) in arrays.items():
        variable = structure.variables.get(path)
        if variable is None or "attention/" not in path:
            continue
        shape = tuple(variable.shape)
        if len(shape) == array.ndim + 1 and math.prod(shape) == array.size:
            arrays[path] = Named(array.reshape(shape), origin)


def _check_head(owner: str, arrays: Arrays, structure: Structure, between: list[str]) -> None:
    """Raise `ValueError`, with the fix, if the file's head does not fit the model."""
    kernel = structure.variables.get("head/kernel")
    if kernel is None or "head/kernel" not in arrays:
        return
    between = between + [
        origin
        for path, (_, origin) in arrays.items()
        if path.startswith(_BEFORE_HEAD) and path not in structure.variables and origin != ZEROS
    ]
    if between:
        raise ValueError(
            f"{owner}: the file's head follows layers that this model lacks, "
            f"{listed(between)}; pass head='drop' or head='reset'"
        )
    array, origin = arrays["head/kernel"]
    if array.shape[-1] != kernel.shape[-1]:
        raise ValueError(
            f"{owner}: {kernel.path} of the model has shape {tuple(kernel.shape)}, {origin} of the "
            f"file gives {array.shape}; build the model with classes={array.shape[-1]}, or pass "
            "head='drop' or head='reset'"
        )


def _check_shapes(owner: str, arrays: Arrays, variables: Mapping[str, keras.Variable]) -> None:
    wrong = [
        f"{path} of the model has shape {tuple(variables[path].shape)}, {origin} of the file gives "
        f"{array.shape}"
        for path, (array, origin) in arrays.items()
        if array.shape != tuple(variables[path].shape)
    ]
    if wrong:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(
            f"{owner}: shapes differ, so the model is unchanged: {'; '.join(wrong[:3])}{more}"
        )


def _reset(layer: keras.layers.Dense) -> None:
    for variable, initializer in (
        (layer.kernel, layer.kernel_initializer),
        (layer.bias, layer.bias_initializer),
    ):
        variable.assign(initializer(variable.shape, dtype=variable.dtype))
