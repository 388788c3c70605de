"""The catalogue of named models, and a function for every family."""

from keras_tokenlearner.applications.catalog import CATALOG, CatalogEntry
from keras_tokenlearner.applications.create import create_model, list_models
from keras_tokenlearner.applications.hub import hub_backbone
from keras_tokenlearner.applications.image import (
    TokenLearnerB16,
    TokenLearnerB32,
    TokenLearnerL8,
    TokenLearnerL10,
    TokenLearnerL14,
    TokenLearnerL16,
    TokenLearnerS32,
    ViTB16,
    ViTB32,
    ViTL16,
    ViTS32,
)
from keras_tokenlearner.applications.load import load_model
from keras_tokenlearner.applications.predictions import decode_predictions, preprocess_input
from keras_tokenlearner.applications.video import (
    TokenLearnerViViTL10,
    TokenLearnerViViTL14,
    TokenLearnerViViTL16,
    TokenLearnerX2Plus1DM,
    ViViTL16,
    X2Plus1DM,
)

__all__ = [
    "CATALOG",
    "CatalogEntry",
    "create_model",
    "decode_predictions",
    "hub_backbone",
    "list_models",
    "load_model",
    "preprocess_input",
    "TokenLearnerB16",
    "TokenLearnerB32",
    "TokenLearnerL10",
    "TokenLearnerL14",
    "TokenLearnerL16",
    "TokenLearnerL8",
    "TokenLearnerS32",
    "TokenLearnerViViTL10",
    "TokenLearnerViViTL14",
    "TokenLearnerViViTL16",
    "TokenLearnerX2Plus1DM",
    "ViTB16",
    "ViTB32",
    "ViTL16",
    "ViTS32",
    "ViViTL16",
    "X2Plus1DM",
]
