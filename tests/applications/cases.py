"""The models of the catalogue as cases of the conformance suite."""

import math
from functools import partial

from keras_tokenlearner import create_model
from keras_tokenlearner.applications import CATALOG
from keras_tokenlearner.models import X2Plus1DConfig
from tests.conformance import ModelCase

# Models that a laptop runs; the others are checked symbolically, without their weights.
SMALL = [
    name
    for name, entry in CATALOG.items()
    if math.prod(entry.input_shape) < 50_000 and getattr(entry.config, "hidden_dim", 0) < 128
]
LARGE = [name for name in CATALOG if name not in SMALL]
X2PLUS1D = [name for name, entry in CATALOG.items() if isinstance(entry.config, X2Plus1DConfig)]
TRANSFORMERS = [name for name in CATALOG if name not in X2PLUS1D]

CATALOG_CASES = tuple(
    ModelCase(f"catalog/{name}", partial(create_model, name, classes=5)) for name in SMALL
)
