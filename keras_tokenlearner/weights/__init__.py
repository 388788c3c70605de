"""Trained numbers into models: files with their hashes, and the weights that ship."""

from keras_tokenlearner.weights.files import load_weights, save_weights
from keras_tokenlearner.weights.store import STORE, StoredWeights
