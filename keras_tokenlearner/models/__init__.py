"""The paper's figures as functional Keras models, each built from one validated config."""

from keras_tokenlearner.models.bottleneck import bottleneck_module
from keras_tokenlearner.models.config import VisionTransformerConfig
from keras_tokenlearner.models.vision_transformer import vision_transformer
from keras_tokenlearner.models.x2plus1d import x2plus1d
from keras_tokenlearner.models.x2plus1d_config import X2Plus1DConfig
