"""Every named model: small ones through the conformance suite, large ones symbolically."""

import json

import keras
import pytest

from keras_tokenlearner import create_model, layers
from keras_tokenlearner.applications import CATALOG
from tests.applications.cases import CATALOG_CASES, LARGE, SMALL
from tests.conformance import MODEL_CHECKS


@pytest.mark.parametrize("check", MODEL_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("case", CATALOG_CASES, ids=lambda case: case.name)
def test_small_model(case, check):
    check(case)


@pytest.mark.parametrize("name", LARGE)
def test_large_model_symbolically(name):
    entry = CATALOG[name]
    config = entry.config
    with keras.StatelessScope(initialize_variables=False):
        model = create_model(name, classes=11)
        assert model.name == name
        assert model.input_shape == (None, *entry.input_shape)
        assert model.output_shape == (None, 11)
        text = json.dumps(keras.saving.serialize_keras_object(model))
        again = keras.saving.deserialize_keras_object(json.loads(text))
        assert again.count_params() == model.count_params()
        assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]

        height, width = (12 * size for size in config.patch_size[-2:])
        rectangle = (*entry.input_shape[:-3], height, 2 * width, 3)
        tokens = create_model(name, include_top=False, input_shape=rectangle)
    steps = 1 if len(config.patch_size) == 2 else entry.input_shape[0] // config.patch_size[0]
    reduced = config.reducer is not None and config.fuser is None
    count = steps * (config.num_tokens if reduced else 12 * 24) + config.num_prefix_tokens
    assert tokens.output_shape == (None, count, config.hidden_size)


@pytest.mark.parametrize("name", list(CATALOG))
def test_name_says_what_the_model_is(name):
    config = CATALOG[name].config
    parts = name.split("_")
    assert (parts[0] == "tokenlearner") is (config.reducer == "token_learner")
    assert ("fuser" in parts) is (config.fuser == "token_fuser")
    assert ("vivit" in parts) is (len(config.patch_size) == 3)
    size_and_patch = next(part for part in parts[1:] if part != "vivit")
    assert size_and_patch.endswith(str(config.patch_size[-1]))
    if config.reducer:
        assert f"{config.num_tokens}at{config.at}" in parts
    depths = [int(part) for part in parts if part.isdigit() and part != "320"]
    assert depths in ([], [config.num_layers])


def test_the_place_and_number_of_reducers():
    for name in SMALL:
        config = CATALOG[name].config
        model = create_model(name, classes=2)
        learners = [x for x in model.layers if isinstance(x, layers.TokenLearner)]
        fusers = [x for x in model.layers if isinstance(x, layers.TokenFuser)]
        expected = config.num_layers - config.place if config.fuser else bool(config.reducer)
        assert len(learners) == expected
        assert len(fusers) == (expected if config.fuser else 0)
        order = [layer.name for layer in model.layers]
        if config.reducer and not config.fuser:
            assert order.index("token_learner") == order.index(f"block_{config.at}") - 1
