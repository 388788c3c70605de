"""The paper's figures as functional Keras models, built from one validated config."""

from keras_tokenlearner.models.config import VisionTransformerConfig
from keras_tokenlearner.models.vision_transformer import vision_transformer
