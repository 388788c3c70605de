"""The tables of rotary positions that the blocks of a vision transformer use."""

from typing import cast

import keras
from keras import layers

from keras_tokenlearner.layers import RotaryPositions, TransformerBlock
from keras_tokenlearner.models import names
from keras_tokenlearner.models.config import VisionTransformerConfig


class Rotations:
    """The rotary tables for the blocks that run on the patches.

    With `rotary="learned"`, each block has its own table. Otherwise all blocks share one table.

    Args:
        config: A `VisionTransformerConfig`.
        patches: Embedded patches, (B, H, W, C) or (B, T, H, W, C). Only their grid is used.
    """

    def __init__(self, config: VisionTransformerConfig, patches: keras.KerasTensor) -> None:
        self._config, self._patches = config, patches
        shared = config.rotary not in (None, "learned") and config.place
        self._table = rotary_positions(config, names.ROTARY)(patches) if shared else None

    def apply(self, block: TransformerBlock, index: int, x: keras.KerasTensor) -> keras.KerasTensor:
        """Call block `index` on all tokens, with its rotary table if there is one."""
        table = self._table
        if self._config.rotary == "learned":
            layer = rotary_positions(self._config, names.numbered(names.ROTARY, index))
            table = layer(self._patches)
        return call_block(block, x, table)


def call_block(
    block: TransformerBlock, x: keras.KerasTensor, table: keras.KerasTensor | None
) -> keras.KerasTensor:
    """Call a block, with a rotary table unless it is `None`."""
    return block(x) if table is None else block(x, rotation=table)


def rotary_positions(config: VisionTransformerConfig, name: str) -> RotaryPositions:
    """Return the layer that computes the rotary tables for a config."""
    learned = config.rotary == "learned"
    return RotaryPositions(
        config.num_heads,
        config.num_prefix_tokens,
        coordinates="index" if learned else cast(str, config.rotary),
        frequencies="learned" if learned else "fixed",
        theta=config.rotary_theta,
        layout=config.rotary_layout,
        order=config.rotary_order,
        offset=config.rotary_offset,
        reference_grid=config.rotary_grid,
        name=name,
    )


def table_of_maps(
    config: VisionTransformerConfig,
    grid: tuple[int, ...],
    patches: keras.KerasTensor,
    maps: keras.KerasTensor,
    index: int | None = None,
) -> keras.KerasTensor:
    """Return the rotary table for learned tokens, from the centres of mass of their maps."""
    shape = (*grid, config.hidden_dim)
    name = names.numbered(f"{names.ROTARY}_tokens", index)
    on_grid = layers.Reshape(shape, name=f"{name}_grid")(patches)
    return rotary_positions(config, name)(on_grid, maps)
