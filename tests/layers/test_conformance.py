"""The checks of `tests/conformance.py` for every public layer."""

import inspect

import keras
import pytest

from keras_tokenlearner import layers
from tests.conformance import LAYER_CHECKS, MODEL_CHECKS, check_precision, parameters
from tests.layers.cases import LAYER_CASES

# `LAYER_CHECKS` check a layer's own policy, so the check of the global policy is not needed.
CHECKS = (*LAYER_CHECKS, *(check for check in MODEL_CHECKS if check is not check_precision))


@pytest.mark.once("torch")
def test_conformance_cases_cover_every_public_layer():
    public = {
        kind
        for kind in vars(layers).values()
        if inspect.isclass(kind) and issubclass(kind, keras.Layer)
    }
    assert public == {case.layer for case in LAYER_CASES}


@pytest.mark.once("torch")
def test_conformance_case_names_are_unique():
    assert len({case.name for case in LAYER_CASES}) == len(LAYER_CASES)


@pytest.mark.parametrize("check", parameters(CHECKS))
@pytest.mark.parametrize("case", LAYER_CASES, ids=lambda case: case.name)
def test_layer_passes_conformance(case, check):
    check(case)
