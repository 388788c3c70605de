"""Finds the parts of a vision transformer in a graph, for loading weights and cutting models."""

import math
from collections.abc import Mapping
from typing import cast

import keras
import numpy as np

from keras_tokenlearner.layers import (
    AttentionPooling,
    ConvStem,
    Reproject,
    SequencePositions,
    TokenFuser,
    TokenLearner,
    Unpool,
    activations,
)
from keras_tokenlearner.layers.token_alternatives import FrameTokenizer
from keras_tokenlearner.models import names
from keras_tokenlearner.models.config import VisionTransformerConfig
from keras_tokenlearner.models.config_fields import (
    BESIDE_THE_CLASS_TOKEN,
    POOLS,
    FieldValue,
    VisionTransformerFields,
)
from keras_tokenlearner.models.vision_transformer import VisionTransformer

_PLAIN = (
    names.EMBEDDING,
    names.EMBEDDING_NORM,
    names.POSITIONS,
    names.CLASS_TOKEN,
    names.REGISTER_TOKENS,
    names.PRE_NORM,
    names.NORM,
    names.POOLING,
    names.PRE_LOGITS,
    names.HEAD,
)

# The config's field `head_reads` by the class of the layer `pooling`.
_POOLINGS = {
    keras.layers.GlobalAveragePooling1D: "average",
    keras.layers.GlobalMaxPooling1D: "max",
    AttentionPooling: "attention",
}


class Structure:
    """The parts of a vision transformer, with the package's head or a custom head.

    Args:
        owner: Name of the function that the user called, for error messages.
        model: A `VisionTransformer`, or a functional model of a ViT with another head.

    Attributes:
        model: The model.
        config: The `VisionTransformerConfig`, from the model or from its layers.
        variables: The weights of the model, by path.
        num_blocks: Number of transformer blocks.
        block: The first transformer block.
        heads: Attention heads of every block.
        hidden_dim: Channels of a token.
        num_prefix_tokens: Number of prefix tokens: class token and registers.
        grid: `(H, W)` or `(T, H, W)` of the patches.
        head_reads: The config's field `head_reads`. For a custom head, the layer `pooling` or
            a layer with a name in `BESIDE_THE_CLASS_TOKEN` decides.
        added: The layers with weights, except for the layers of a plain ViT.
        reducers: The reducers before the last block or norm, with weights or without.
        fusers: The fusers before the last block or norm, with weights or without.

    Raises:
        ValueError: If the model does not contain a vision transformer of this package.
    """

    def __init__(self, owner: str, model: keras.Model) -> None:
        parts = model.layers if isinstance(model, keras.Model) else []
        found = {layer.name for layer in parts}
        missing = {names.EMBEDDING, names.TOKENS, names.block_name(0)} - found
        if missing:
            inside = [layer for layer in parts if _is_trunk(layer)]
            fix = f"; pass its layer {inside[0].name!r}" if inside else ""
            raise ValueError(
                f"{owner}: `model` must be built by create_model or VisionTransformer{fix}. "
                f"Received: model={repr(model)[:200]} without layers {sorted(missing)}"
            )
        self.model = model
        self.variables = {weight.path: weight for weight in model.weights}
        self.block = model.get_layer(names.block_name(0))
        self.num_blocks = sum(names.block_index(name) is not None for name in found)
        self.heads = self.block.num_heads
        *grid, self.hidden_dim = model.get_layer(names.TOKENS).input.shape[1:]
        self.grid = tuple(grid)
        self.num_prefix_tokens = sum(
            model.get_layer(name).num_tokens
            for name in (names.CLASS_TOKEN, names.REGISTER_TOKENS)
            if name in found
        )
        self.head_reads = model.config.head_reads if _is_trunk(model) else self._head_reads(found)
        self.added = [
            layer for layer in model.layers if layer.weights and not _is_plain(layer.name)
        ]
        trunk = self._trunk()
        self.reducers = [x for x in trunk if isinstance(x, (TokenLearner, FrameTokenizer))]
        self.fusers = [x for x in trunk if isinstance(x, (TokenFuser, Unpool, Reproject))]
        self.config = model.config if _is_trunk(model) else self._config(found)

    def _trunk(self) -> list[keras.Layer]:
        """Return the layers up to the last block or norm. A custom head may also have reducers."""
        found = self.model.layers
        if _is_trunk(self.model):  # a reducer may follow the last block
            return found
        ends = [x.name == names.NORM or names.block_index(x.name) is not None for x in found]
        return found[: len(ends) - ends[::-1].index(True)]

    def _config(self, found: set[str]) -> VisionTransformerConfig:
        """Return the config of a plain ViT, read from its layers."""
        block, embedding = self.block, self.model.get_layer(names.EMBEDDING)
        registers = names.REGISTER_TOKENS in found
        stem = embedding.convs if isinstance(embedding, ConvStem) else None
        if stem is None:
            patch_size = embedding.patch_size
        else:
            pixels = math.prod(stride for _, stride in stem)
            patch_size = (1,) * (len(self.grid) - 2) + (pixels, pixels)
        fields = VisionTransformerFields(
            hidden_dim=self.hidden_dim,
            num_layers=self.num_blocks,
            num_heads=self.heads,
            patch_size=patch_size,
            stem=stem,
            mlp_dim=block.mlp_dim,
            gated_mlp=block.gated_mlp,
            class_token=names.CLASS_TOKEN in found,
            register_tokens=self.model.get_layer(names.REGISTER_TOKENS).num_tokens
            if registers
            else 0,
            head_reads=self.head_reads,
            pool_prefix=self._pools_all(found),
            pre_norm=names.PRE_NORM in found,
            block_attention=block.attention,
            dropout_rate=block.dropout_rate,
            attention_dropout_rate=block.attention_dropout_rate,
            layer_scale=block.layer_scale,
            activation=self._activation(),
            layer_norm_epsilon=block.layer_norm_epsilon,
            norm=block.norm,
            qk_norm=block.qk_norm,
            qkv_bias=block.qkv_bias,
            attention_bias=block.attention_bias,
            mlp_bias=block.mlp_bias,
            attention_inner_norm=block.attention_inner_norm,
            mlp_inner_norm=block.mlp_inner_norm,
            embedding_norm=names.EMBEDDING_NORM in found,
            head_bias=names.HEAD_KERNEL not in self.variables or names.HEAD_BIAS in self.variables,
            positions=self._positions(found),
        )
        return VisionTransformerConfig(**fields | self._final_norm(found) | self._rotary(found))

    def _activation(self) -> str:
        """Return the activation of the blocks: its name, or the function if it has no name."""
        name = activations.serialize(self.block.activation)
        return cast(str, name if isinstance(name, str) else self.block.activation)

    def _head_reads(self, found: set[str]) -> str | None:
        beside = next((name for name in BESIDE_THE_CLASS_TOKEN if name in found), None)
        if beside or names.POOLING not in found:
            return beside
        reads = _POOLINGS.get(type(self.model.get_layer(names.POOLING)))
        return None if reads == "average" and names.CLASS_TOKEN not in found else reads

    def _pools_all(self, found: set[str]) -> bool:
        """Return whether the pooling of a custom head reads the prefix tokens too."""
        pools = self.head_reads in POOLS or names.CLASS_TOKEN not in found
        if not pools or names.POOLING not in found or not self.num_prefix_tokens:
            return False
        before_norm = names.block_name(self.num_blocks - 1)
        last = names.NORM if self._final_norm(found)["final_norm"] == "tokens" else before_norm
        pooling, tokens = (self.model.get_layer(name) for name in (names.POOLING, last))
        return pooling.input.shape == tokens.output.shape

    def _positions(self, found: set[str]) -> str | None:
        if names.POSITIONS not in found:
            return None
        layer = self.model.get_layer(names.POSITIONS)
        return "sequence" if isinstance(layer, SequencePositions) else layer.initializer

    def _final_norm(self, found: set[str]) -> VisionTransformerFields:
        if names.NORM not in found:
            return {"final_norm": None}
        norm = self.model.get_layer(names.NORM)
        place = "tokens" if len(norm.input.shape) == 3 else "pooled"
        same = norm.epsilon == self.block.layer_norm_epsilon
        return {"final_norm": place, "final_norm_epsilon": None if same else norm.epsilon}

    def _rotary(self, found: set[str]) -> VisionTransformerFields:
        """Return the config fields of rotary positions."""
        layer = next((name for name in sorted(found) if name.startswith(names.ROTARY)), None)
        if layer is None:
            return {}
        layer = self.model.get_layer(layer)
        learned = layer.frequencies == "learned"
        return {
            "rotary": "learned" if learned else layer.coordinates,
            "rotary_theta": layer.theta,
            "rotary_layout": layer.layout,
            "rotary_order": layer.order,
            "rotary_offset": layer.offset,
            "rotary_grid": layer.reference_grid,
        }

    def numbered(self, kind: str) -> list[str]:
        """Return the names of the layers of one kind in `added`, from first to last."""
        added = [layer.name for layer in self.added if layer.name.startswith(kind)]
        return names.in_order(kind, added)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the weights of the model as numpy arrays, by path."""
        return {path: keras.ops.convert_to_numpy(v) for path, v in self.variables.items()}

    def settings(self) -> dict[str, str | float | None]:
        """Return the config fields that differ between libraries and do not show in the weights."""
        settings = {
            "activation": self._activation(),
            "layer_norm_epsilon": self.block.layer_norm_epsilon,
        }
        if names.HEAD in {layer.name for layer in self.model.layers}:
            settings["head_reads"] = self.head_reads
        for layer in self.added:
            if layer.name.startswith(names.TOKEN_LEARNER) and layer.attention == "conv":
                settings["token_pooling"] = layer.pooling
        return settings

    def disagreements(self, wanted: Mapping[str, str | float | None]) -> list[str]:
        """Return a text for each config field that differs from its wanted value."""
        have = self.settings()
        return [
            f"{name} is {have[name]!r} and must be {value!r}"
            for name, value in wanted.items()
            if name in have and not same_setting(have[name], value)
        ]


def _is_plain(name: str) -> bool:
    """Return whether a plain ViT may have a layer of this name."""
    numbered = names.block_index(name) is not None or name.startswith(names.ROTARY)
    return name in _PLAIN or numbered


def _is_trunk(layer: keras.Layer) -> bool:
    return isinstance(layer, VisionTransformer)


def same_setting(one: FieldValue, other: FieldValue) -> bool:
    """Return whether two values of a config field are equal, except for rounding."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-3)
    return one == other
