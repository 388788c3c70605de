"""The paper's equations as Keras layers, and the other layers of a vision transformer."""

from keras_tokenlearner.layers.attention_pooling import AttentionPooling
from keras_tokenlearner.layers.conv_stem import ConvStem
from keras_tokenlearner.layers.fuser_alternatives import Reproject, Unpool
from keras_tokenlearner.layers.layer_scale import LayerScale
from keras_tokenlearner.layers.mixer import MixerBlock
from keras_tokenlearner.layers.mlp import MLP
from keras_tokenlearner.layers.patches import PatchEmbedding, TubeletEmbedding
from keras_tokenlearner.layers.positions import PositionEmbedding
from keras_tokenlearner.layers.prefix_tokens import PrefixTokens
from keras_tokenlearner.layers.prior_attention import PriorAttention
from keras_tokenlearner.layers.rotary import RotaryPositions
from keras_tokenlearner.layers.self_attention import SelfAttention
from keras_tokenlearner.layers.sequence_positions import SequencePositions
from keras_tokenlearner.layers.space_time import SpaceTimeAttention
from keras_tokenlearner.layers.token_alternatives import (
    DirectTokens,
    FixedGrid,
    PooledTokens,
    SpatialPooling,
)
from keras_tokenlearner.layers.token_fuser import TokenFuser
from keras_tokenlearner.layers.token_learner import TokenLearner
from keras_tokenlearner.layers.transformer import TransformerBlock
from keras_tokenlearner.layers.vector_attention import VectorAttention

__all__ = [
    "AttentionPooling",
    "ConvStem",
    "DirectTokens",
    "FixedGrid",
    "LayerScale",
    "MixerBlock",
    "MLP",
    "PatchEmbedding",
    "PooledTokens",
    "PositionEmbedding",
    "PrefixTokens",
    "PriorAttention",
    "Reproject",
    "RotaryPositions",
    "SelfAttention",
    "SequencePositions",
    "SpaceTimeAttention",
    "SpatialPooling",
    "TokenFuser",
    "TokenLearner",
    "TransformerBlock",
    "TubeletEmbedding",
    "Unpool",
    "VectorAttention",
]
