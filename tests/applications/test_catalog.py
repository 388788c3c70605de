"""Every named model: small models in the conformance suite, large models symbolically."""

import json

import keras
import pytest

from keras_tokenlearner import create_model, layers
from keras_tokenlearner.applications import CATALOG
from tests.applications.cases import CATALOG_CASES, LARGE, SMALL, TRANSFORMERS, X2PLUS1D
from tests.conformance import (
    MODEL_CHECKS,
    check_backends_agree,
    check_training_step,
    parameters,
)

# The cases of `tests/models` have the other checks for every form of a config, on every backend.
ONCE = {*MODEL_CHECKS} - {check_backends_agree, check_training_step}


@pytest.mark.parametrize("check", parameters(MODEL_CHECKS, ONCE))
@pytest.mark.parametrize("case", CATALOG_CASES, ids=lambda case: case.name)
def test_small_catalogue_model_passes_conformance(case, check):
    check(case)


@pytest.mark.once("torch")
@pytest.mark.parametrize("name", LARGE)
def test_large_catalogue_model_without_weights_has_the_expected_shapes(name):
    entry = CATALOG[name]
    with keras.StatelessScope(initialize_variables=False):
        model = create_model(name, classes=11)
        assert model.name == name
        assert model.input_shape == (None, *entry.input_shape)
        assert model.output_shape == (None, 11)
        text = json.dumps(keras.saving.serialize_keras_object(model))
        again = keras.saving.deserialize_keras_object(json.loads(text))
        assert again.count_params() == model.count_params()
        assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]

        rectangle, expected = rectangle_and_features(name)
        features = create_model(name, include_top=False, input_shape=rectangle)
    assert features.output_shape == expected


def rectangle_and_features(name):
    """Return the shape of an input that is not square, and the shape of its features."""
    config, shape = CATALOG[name].config, CATALOG[name].input_shape
    if name in X2PLUS1D:
        step = 2 ** (1 + len(config.stage_units))
        rectangle = (shape[0], 3 * step, 4 * step + 1, 3)
        return rectangle, (None, shape[0], 3, 5, config.inner_channels[-1])
    height, width = (12 * size for size in config.patch_size[-2:])
    steps = 1 if len(config.patch_size) == 2 else shape[0] // config.patch_size[0]
    reduced = config.reducer is not None and config.fuser is None
    count = steps * (config.num_tokens if reduced else 12 * 24) + config.num_prefix_tokens
    return (*shape[:-3], height, 2 * width, 3), (None, count, config.hidden_dim)


@pytest.mark.once("torch")
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_catalogue_name_of_a_vit_states_patch_size_tokens_and_unusual_depth(name):
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


@pytest.mark.once("torch")
@pytest.mark.parametrize("name", X2PLUS1D)
def test_catalogue_name_of_an_x2plus1d_states_size_and_bottleneck_module(name):
    config = CATALOG[name].config
    learns = name.startswith("tokenlearner_")
    assert ("tokenlearner" in config.parts) is learns
    _, _, rest = name.partition("x2plus1d_")
    size, _, unit = rest.partition("_")
    assert sum(config.stage_units) == {"pico": 4, "m": 26}[size]
    assert (
        config.unit
        == {
            "": "conv2d+tokenlearner" if learns else "conv2d+conv1d",
            "spatial_temporal": "spatial+temporal",
            "without_conv2d": "tokenlearner",
        }[unit]
    )


@pytest.mark.once("torch")
@pytest.mark.parametrize("name", sorted({*SMALL} & {*X2PLUS1D}))
def test_x2plus1d_has_token_learners_and_fusers_in_the_replaced_units_only(name):
    config = CATALOG[name].config
    model = create_model(name, classes=2)
    learners = [x.name for x in model.layers if isinstance(x, layers.TokenLearner)]
    last = len(config.stage_units) - 1
    units = config.replaced_units if "tokenlearner" in config.parts else ()
    assert learners == [f"stage_{last}_unit_{unit}_1_tokenlearner" for unit in units]
    assert len([x for x in model.layers if isinstance(x, layers.TokenFuser)]) == len(units)


@pytest.mark.once("torch")
def test_catalogue_models_have_token_learners_after_the_block_that_their_name_states():
    for name in set(SMALL) - set(X2PLUS1D):
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
