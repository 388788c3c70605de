"""Loads trained weights: files of this package, checked by hash, and files of other libraries."""

from keras_tokenlearner.weights.formats.entries import Checkpoint
from keras_tokenlearner.weights.formats.read import read_checkpoint
from keras_tokenlearner.weights.load import load, plan_of
from keras_tokenlearner.weights.plan import Plan
from keras_tokenlearner.weights.recognise import SOURCES
from keras_tokenlearner.weights.report import LoadReport
from keras_tokenlearner.weights.saving import load_weights, save_weights, saved_classes
from keras_tokenlearner.weights.sources.timm import to_timm
from keras_tokenlearner.weights.statement import Statement
from keras_tokenlearner.weights.store import STORE, StoredWeights

__all__ = [
    "Checkpoint",
    "load",
    "load_weights",
    "LoadReport",
    "Plan",
    "plan_of",
    "read_checkpoint",
    "save_weights",
    "saved_classes",
    "SOURCES",
    "Statement",
    "STORE",
    "StoredWeights",
    "to_timm",
]
