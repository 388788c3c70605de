"""Reads and converts a checkpoint once, then loads it completely or not at all."""

from __future__ import annotations

from typing import Any, cast

import keras

from keras_tokenlearner._checks import check_bool, check_choice
from keras_tokenlearner._errors import errors_of
from keras_tokenlearner.layers import TokenLearner
from keras_tokenlearner.models import VisionTransformer, VisionTransformerConfig, names
from keras_tokenlearner.models.config_fields import Fields, FieldValue, PlanOptions
from keras_tokenlearner.models.structure import Structure
from keras_tokenlearner.weights import positions
from keras_tokenlearner.weights.architecture import (
    features_are_a_mean,
    features_lacking,
    fields_of,
    may_be_rotary,
    name_norms,
    sizes_of,
)
from keras_tokenlearner.weights.formats.read import CheckpointLike, read_checkpoint
from keras_tokenlearner.weights.match import (
    OF_LOAD,
    OF_NAMES,
    check_head,
    check_reset,
    differences_of,
    match,
    name_added,
    reset_head,
    split_heads,
    take_projection,
)
from keras_tokenlearner.weights.recognise import SOURCES
from keras_tokenlearner.weights.report import LoadReport
from keras_tokenlearner.weights.sources.source import FILLED, Arrays, Entries, remove_doubtful
from keras_tokenlearner.weights.statement import Statement


class Plan:
    """A checkpoint that `plan_of` has read and converted, and the config of its model.

    Attributes:
        source: Key of `SOURCES` for the library that named the entries, such as `"timm"`.
        origin: Where the checkpoint came from: a path, or a phrase such as "a mapping".
        fields: Fields of `VisionTransformerConfig` that the checkpoint decides, without sizes.
        sizes: Fields for the sizes of the model, if the arrays or the config.json state them.
        classes: Classes of the head; `None` without a head.
        class_names: Names of the classes, or `None`.
        preprocessing: The `Preprocessing` of the images, or `None` if mean and std are unknown. A
            resizing that no config states has the defaults of `Preprocessing`.
        pooling: Pooling of the features if the head is omitted, or `"none"` for all tokens.
            `None` if this package does not support the pooling of the source.
        grid: Grid of the positions, or `None` if it is unknown or ambiguous.
    """

    def __init__(
        self,
        owner: str,
        source: str,
        checkpoint: CheckpointLike,
        said: Statement,
        resize: str | None,
        reads: bool = True,
    ) -> None:
        checkpoint = read_checkpoint(checkpoint, owner)
        self.owner, self.source, self.origin = owner, source, checkpoint.origin
        self._recipe = recipe = SOURCES[source]
        self._entries = Entries(owner, checkpoint, recipe.anchors, reads)
        self._arrays = recipe.convert(self._entries)
        remove_doubtful(self._arrays)
        norm = {**recipe.config, **said.fields}.get("norm")
        name_norms(self._arrays, rms=norm == "rms_norm")
        shown = fields_of(self._arrays, recipe)
        self.sizes: dict[str, FieldValue] = sizes_of(self._arrays)
        said_fields = dict(said.fields)
        for name in ("num_heads", "patch_size", "mlp_dim"):
            if name in said_fields:
                self.sizes[name] = said_fields.pop(name)
        self.fields: dict[str, FieldValue] = {**recipe.config, **shown, **said_fields}
        if self.fields.get("rotary") and names.POSITION_TABLE not in self._arrays:
            self.fields["positions"] = None
        self._drop_unread()
        self._unknown_activation = None if "activation" in said_fields else said.unknown_activation
        if self._unknown_activation is not None:
            self.fields.pop("activation", None)  # the usual activation of the source
        self._is_described, self._projection = said.is_config, said.projection
        is_named = owner.startswith(("from_preset(", "create_model("))
        self._fixes = OF_NAMES if is_named else OF_LOAD
        self.preprocessing = said.preprocessing
        self.class_names = said.class_names
        self.pooling = said.pooling
        if self.pooling is None and not features_are_a_mean(self._arrays):
            self.pooling = "head"
        self.missing = said.missing + features_lacking(self._arrays)
        self.missing_head = said.missing_head
        self._resize = resize or said.resize or self._own_resize()
        patch = cast("tuple[int, ...] | None", self.sizes.get("patch_size"))
        stated: tuple[int, ...] | None = None  # the grid for the image size in the config
        if said.input_size and patch is not None and len(patch) == 2:
            stated = tuple(n // p for n, p in zip(said.input_size, patch, strict=True))
        self.grid = said.grid
        has_table = names.POSITION_TABLE in self._arrays
        fits = stated and (not has_table or positions.file_grids(self._arrays, stated))
        if self.grid is None and fits:
            self.grid = stated
        self._said_grid = self.grid
        self.input_shape = said.input_shape
        if self.grid is None and has_table:
            grids = set(positions.file_grids(self._arrays))
            self.grid = grids.pop() if len(grids) == 1 else None
        # The grid does not determine the image size: 27 patches of 14 pixels cover 378 pixels of an
        # image of 384 pixels.
        self.input_size = said.input_size if stated and stated == self.grid else None

    @property
    def classes(self) -> int | None:
        """Number of classes of the head, or `None` without a head."""
        kernel = self._arrays.get(names.HEAD_KERNEL)  # a head may have no bias
        return kernel.array.shape[-1] if kernel else None

    @property
    def is_projection(self) -> bool:
        """Whether the head computes the embeddings of CLIP, not scores of classes."""
        return self.classes is not None and self.classes == self._projection

    @property
    def num_values(self) -> int:
        """Number of values in all arrays."""
        return sum(array.size for array, _ in self._arrays.values())

    @property
    def channels(self) -> int:
        """Number of channels of the images, or 3 if the file has no kernel for patches."""
        kernel = self._arrays.get(names.EMBEDDING_KERNEL)
        return kernel.array.shape[-2] if kernel else 3

    @property
    def projection(self) -> int | None:
        """Width of a projection after the features, as in CLIP, or `None`.

        `load` takes the projection as the head of a model with this number of classes.
        """
        kernel = self._arrays.get(f"{names.PROJECTION}/kernel")
        return kernel.array.shape[-1] if kernel else None

    @property
    def open(self) -> dict[str, tuple[FieldValue, ...]]:
        """Settings that neither the checkpoint nor its source states, with their usual values."""
        known = {**self.fields, "normalization": self.preprocessing}
        choices = self._recipe.choices
        unsaid = {name: usual for name, usual in choices.items() if known.get(name) is None}
        if self._unknown_activation is not None:
            unsaid["activation"] = ("gelu", "gelu_tanh", "quick_gelu", "silu")
        is_bare = self.source == "timm" and not self._is_described
        if is_bare and "rotary" not in known and may_be_rotary(self._entries):
            unsaid["rotary"] = (None, "index", "centred", "learned")
        # A norm after the pooling shows that the head does not read the class token.
        pools = known.get("final_norm") == "pooled" and known.get("class_token")
        if is_bare and pools and known.get("head_reads") is None:
            unsaid["head_reads"] = ("average", "max")
        is_hub_head = self.source == "keras_hub" and names.HEAD_KERNEL in self._arrays
        if is_hub_head and known.get("class_token") and "head_reads" not in known:
            unsaid["head_reads"] = (None, "average")  # for pooling="token" and pooling="gap"
        return unsaid

    @property
    def config(self) -> VisionTransformerConfig:
        """The config of the checkpoint's model."""
        return self.config_with({})

    def config_with(self, changes: Fields) -> VisionTransformerConfig:
        """Return the config of the checkpoint's model, with fields changed.

        Raises:
            ValueError: If a size or a required setting is not stated, such as the number of heads.
                Also if this package does not support a part of the architecture.
        """
        self.check_features()
        self.check_open(changes)
        merged: dict[str, Any] = {**self.sizes, **self.fields, **changes}
        sizes = ("hidden_dim", "num_layers", "patch_size")
        if absent := [name for name in sizes if name not in merged]:
            raise ValueError(
                f"{self.owner}: {self.origin} must have blocks, and a kernel of 4 or 5 axes that "
                "embeds patches; choose another checkpoint. "
                f"Received: {self.source} weights without {', '.join(absent)}"
            )
        if "num_heads" not in merged:
            raise ValueError(
                f"{self.owner}: {self.origin} does not state its number of attention heads; "
                "pass `num_heads`. Most ViTs have num_heads=hidden_dim / 64. For this checkpoint, "
                f"this quotient is {max(1, int(merged['hidden_dim']) // 64)}. "
                "Received: num_heads=None"
            )
        with errors_of(self.owner):
            return VisionTransformerConfig(**merged)

    def check_open(self, given: Fields = {}) -> None:  # noqa: B006 (never changed)
        """Raise a `ValueError` with the missing settings, if any, and their usual values."""
        unsaid = {name: usual for name, usual in self.open.items() if name not in given}
        if unsaid:
            values = {name: f"one of {', '.join(map(repr, unsaid[name]))}" for name in unsaid}
            if "activation" in unsaid and self._unknown_activation is not None:
                values["activation"] = (
                    f"the name of {self._unknown_activation!r} in keras.activations"
                )
            hints = "; ".join(
                f"`{name}`{self._receiver(name)}, {value}" for name, value in values.items()
            )
            cause = (
                "whose settings are incomplete or unknown"
                if self._is_described
                else "without a config.json, and the weights do not show all settings of the model"
            )
            if self.source == "keras_hub" and "head_reads" in unsaid:
                hints += (
                    ": None for pooling='token', 'average' with pool_prefix=True for pooling='gap'"
                )
            raise ValueError(
                f"{self.owner}: {self.origin} has {self.source} weights {cause}. Pass {hints}"
            )

    def check_features(self) -> None:
        """Raise `ValueError` if this package does not support a part of the architecture."""
        self._check_missing(self.missing)

    def _check_missing(self, missing: tuple[str, ...]) -> None:
        if missing:
            raise ValueError(
                f"{self.owner}: the model of {self.origin} has {', '.join(missing)}, which "
                "this package does not support; choose another checkpoint"
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

        The position embedding of the class token is added to the class token. A model without a
        class token drops the class token and its position embedding. If model and file both have
        TokenLearners, the numbers of TokenLearners must be equal, unless `partial` is `True`. The
        same applies to TokenFusers.

        Args:
            model: A `VisionTransformer`.
            head: `"keep"` loads the file's classifier, if any. `"drop"` keeps the model's
                classifier. `"reset"` initialises the model's classifier again.
            embedding: Conversion of a kernel for image patches to a kernel for tubelets.
                `"central_frame"` uses the kernel for the central frame of a tubelet, with zeros for
                the other frames. `"inflate"` divides the kernel equally among all frames.
            partial: Boolean, whether to load a file that matches only in part. The file may then
                lack variables or layers, and have more blocks or unknown entries.
            check_settings: Boolean, whether to raise an error if a setting of the model differs
                from the checkpoint. Examples are the activation and the normalisation of pixels.

        Returns:
            A `LoadReport`.

        Raises:
            ValueError: If the architecture, a shape or a setting differs. The model is then
                unchanged.
        """
        arrays, report = self.fit(model, head, embedding, partial, check_settings)
        trees = positions.trees_of("Plan.load", self._arrays, report.loaded.values())
        # All checks are done: from here on, nothing can fail.
        variables = {weight.path: weight for weight in model.weights}
        for path in report.loaded:
            variables[path].assign(arrays[path].array)
        for layer in model.layers:
            if isinstance(layer, TokenLearner) and layer.position_bias:
                layer.parents = trees.get(report.loaded.get(layer.bias.path, ""), layer.parents)
        if isinstance(model, VisionTransformer) and names.POSITION_TABLE in report.loaded:
            model.position_resize = self._resize
        if report.reset:
            reset_head(model)
        return report

    def fit(
        self,
        model: keras.Model,
        head: str = "keep",
        embedding: str = "central_frame",
        partial: bool = False,
        check_settings: bool = True,
    ) -> tuple[Arrays, LoadReport]:
        """Do the checks of `load` and resize the arrays. The model stays unchanged.

        Returns:
            The arrays by the paths of the model's variables, and the report of `load`.
        """
        owner = "Plan.load"
        check_choice(owner, "head", head, ("keep", "drop", "reset"))
        check_choice(owner, "embedding", embedding, ("central_frame", "inflate"))
        check_bool(owner, "partial", partial)
        check_bool(owner, "check_settings", check_settings)
        structure = Structure(owner, model)
        # A tree of cells is no variable.
        arrays = {
            path: array for path, array in self._arrays.items() if not path.endswith(names.PARENTS)
        }
        take_projection(arrays, structure)
        name_added(owner, arrays, structure, partial, self._fixes)
        has_head = names.HEAD_KERNEL in self._arrays and head == "keep"
        stated: dict[str, FieldValue] = {**self.sizes, **self.fields}
        reads_head = has_head and names.HEAD_KERNEL in structure.variables
        if reads := self.open.get("head_reads"):  # the model decides
            own, has_class_token = structure.head_reads, structure.config.class_token
            stated["head_reads"] = own if own in reads or not has_class_token else reads[0]
            if self.source == "keras_hub" and reads_head:  # its averages include the class token
                stated["pool_prefix"] = own == "average" and has_class_token
        if self.source == "keras_tokenlearner" and not self._is_described:
            # Our arrays do not show which tokens the head reads.
            stated.setdefault("head_reads", structure.head_reads)
        if reads_head and check_settings:
            self._check_missing(self.missing + self.missing_head)
        differences = differences_of(
            structure, stated, self.preprocessing, self._is_described, has_head
        )
        if differences and check_settings:
            raise ValueError(
                f"{owner}: the settings of `model` differ from the checkpoint. "
                f"{self._fixes.config}{self._fixes.settings}. Received: {'; '.join(differences)}"
            )
        adapted = {path: FILLED[origin] for path, (_, origin) in arrays.items() if origin in FILLED}
        folded, resized = positions.fit_positions(
            owner, arrays, structure.grid, self._resize, self._said_grid
        )
        resized |= positions.fit_biases(arrays, structure.variables)
        for path, what in folded.items():
            adapted[path] = f"{adapted[path]}; {what}" if path in adapted else what
        embedded = structure.variables.get(names.EMBEDDING_KERNEL)
        if embedded is not None:
            resized |= positions.inflate(arrays, tuple(embedded.shape), embedding)
        split_heads(arrays, structure)
        if head == "keep":
            check_head(owner, arrays, structure, self._entries, self._recipe, self._fixes)
        unused, left, added = match(
            owner, arrays, structure, self._entries, self._recipe, head, partial, self._fixes
        )
        loaded = {path: arrays[path] for path in structure.variables if path in arrays}
        reset = [path for path in left if head == "reset" and path.startswith(f"{names.HEAD}/")]
        check_reset(owner, model, reset)
        return arrays, LoadReport(
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

    def _receiver(self, setting: str) -> str:
        """Return " to Plan.config_with" for errors, or "" if `self.owner` takes the setting."""
        is_option = self.owner != "plan_of" or setting in PlanOptions.__annotations__
        return "" if is_option else " to Plan.config_with"

    def _drop_unread(self) -> None:
        """Remove fields that have no effect on this model. Our config refuses most of them."""
        fields = self.fields
        prefix = fields.get("class_token") or fields.get("register_tokens")
        if not prefix:
            fields.pop("pool_prefix", None)
        if not fields.get("class_token") and fields.get("head_reads") == "average":
            fields["head_reads"] = None
        if fields.get("final_norm", "tokens") is None:
            fields.pop("final_norm_epsilon", None)

    def _own_resize(self) -> str:
        recipe = self._recipe
        if recipe.resize_without_registers and names.REGISTERS not in self._arrays:
            return recipe.resize_without_registers
        return recipe.resize
