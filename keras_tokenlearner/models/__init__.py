"""The models of the paper as functional Keras models, each built from one validated config."""

from keras_tokenlearner.models.bottleneck import bottleneck_module
from keras_tokenlearner.models.budgets import with_tokens
from keras_tokenlearner.models.config import VisionTransformerConfig
from keras_tokenlearner.models.features import feature_extractor
from keras_tokenlearner.models.preprocessing import Preprocessing
from keras_tokenlearner.models.retrofit import retrofit
from keras_tokenlearner.models.vision_transformer import VisionTransformer
from keras_tokenlearner.models.x2plus1d import X2Plus1D
from keras_tokenlearner.models.x2plus1d_config import X2Plus1DConfig

__all__ = [
    "bottleneck_module",
    "feature_extractor",
    "Preprocessing",
    "retrofit",
    "VisionTransformer",
    "VisionTransformerConfig",
    "with_tokens",
    "X2Plus1D",
    "X2Plus1DConfig",
]
