"""The models of the catalogue as cases of the conformance suite, found through the catalogue."""

from functools import partial

from keras_tokenlearner import create_model
from keras_tokenlearner.applications import CATALOG
from tests.conformance import ModelCase

# Models that a laptop runs; the others are checked symbolically, without their weights.
SMALL = [name for name, entry in CATALOG.items() if entry.config.hidden_size < 384]
LARGE = [name for name in CATALOG if name not in SMALL]

CATALOG_CASES = tuple(
    ModelCase(f"catalog/{name}", partial(create_model, name, classes=5)) for name in SMALL
)
