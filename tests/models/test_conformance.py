"""The checks of `tests/conformance.py` for models of every form of the config."""

import pytest

from tests.conformance import MODEL_CHECKS, parameters
from tests.layers.cases import LAYER_CASES
from tests.models.cases import MODEL_CASES


@pytest.mark.once("torch")
def test_conformance_case_names_are_unique():
    names = [case.name for case in (*LAYER_CASES, *MODEL_CASES)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("check", parameters(MODEL_CHECKS))
@pytest.mark.parametrize("case", MODEL_CASES, ids=lambda case: case.name)
def test_model_passes_conformance(case, check):
    check(case)
