"""Outputs of the feature extractor, against the blocks run one by one."""

import keras
import numpy as np
import pytest

from keras_tokenlearner import create_model, feature_extractor
from keras_tokenlearner.models.features import with_calls
from tests.conformance import assign_weights
from tests.layers.helpers import refused, run
from tests.models.cases import transformer
from tests.models.test_vision_transformer import IMAGE, LEARNER, VIDEO


def built(base=IMAGE, **changes):
    model = transformer(**{**base, **changes})
    assign_weights(model)
    return model


def pixels(model):
    return np.random.default_rng(0).uniform(0, 255, (2, *model.input_shape[1:])).astype("float32")


def test_feature_extractor_equals_the_block_outputs_on_the_grid():
    model = built(class_token=True, register_tokens=2)
    found = feature_extractor(model, blocks=(1, 3))(pixels(model))
    x = keras.Model(model.input, model.get_layer("dropout").output)(pixels(model))
    for index, block in enumerate(model.blocks):
        x = block(x)
        if index in (1, 3):
            expected = keras.ops.convert_to_numpy(x)[:, 3:].reshape(2, 4, 4, 16)
            features = keras.ops.convert_to_numpy(found[f"block_{index}"])
            np.testing.assert_allclose(features, expected, atol=1e-5)


def test_feature_extractor_of_the_normalized_last_block_equals_the_model():
    model = built(include_top=False)
    found = feature_extractor(model, blocks=[3], normalize=True)(pixels(model))["block_3"]
    expected = run(model, pixels(model)).reshape(2, 4, 4, 16)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), expected, atol=1e-5)


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("base", "changes", "shapes"),
    [
        (IMAGE, {**LEARNER, "at": 2}, {0: (4, 4, 16), 3: (3, 16)}),
        (IMAGE, {**LEARNER, "fuser": "token_fuser", "class_token": True}, {3: (4, 4, 16)}),
        (IMAGE, {**LEARNER, "fuser": "unpool"}, {2: (4, 4, 16)}),
        (VIDEO, {**LEARNER, "at": 2}, {1: (2, 4, 4, 16), 2: (6, 16)}),
    ],
    ids=["learner", "fuser", "unpool", "video"],
)
def test_feature_extractor_returns_grids_except_for_learned_tokens(base, changes, shapes):
    model = built(base, **changes)
    extractor = feature_extractor(model, blocks=tuple(shapes))
    wanted = {f"block_{index}": (None, *shape) for index, shape in shapes.items()}
    assert {name: tuple(x.shape) for name, x in extractor.output.items()} == wanted


def test_feature_extractor_of_the_normalized_last_fuser_equals_the_model():
    model = built(**LEARNER, fuser="token_fuser", include_top=False)
    found = feature_extractor(model, blocks=(3,), normalize=True)(pixels(model))["block_3"]
    found = keras.ops.convert_to_numpy(found).reshape(2, 16, 16)
    np.testing.assert_allclose(found, run(model, pixels(model)), atol=1e-5)


@pytest.mark.once("torch")
def test_feature_extractor_of_a_wrong_block_or_model_raises():
    model = built()
    refused(lambda: feature_extractor(model, blocks=(4,)), "`blocks`", "0 to 3")
    refused(lambda: feature_extractor(model, blocks=()), "`blocks`")
    refused(lambda: feature_extractor(model, blocks=(0, -1)), "`blocks`", "blocks=(0, -1)")
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    refused(lambda: feature_extractor(other, blocks=(0,)), "`model`", "Sequential")


@pytest.mark.once("torch")
def test_feature_extractor_of_a_float16_model_returns_float16_and_scales_its_losses():
    model = create_model("vit_pico8", classes=3, dtype="mixed_float16")
    extractor = feature_extractor(model, blocks=(1,))
    assert extractor.output["block_1"].dtype == "float16"
    extractor.compile("sgd", "mse")
    assert isinstance(extractor.optimizer, keras.optimizers.LossScaleOptimizer)


@pytest.mark.once("torch")
def test_calls_of_a_model_without_shared_layers_are_found_without_new_calls():
    model = create_model("tokenlearner_pico8_4at1", classes=3, class_token=True)
    copy, calls = with_calls(model)
    assert copy.input is model.input and copy.output is model.output
    assert calls["head"].inputs is model.get_layer("head").input
    assert all(len(layer._inbound_nodes) == 1 for layer in model.layers)


@pytest.mark.once("torch")
def test_calls_of_a_layer_shared_by_two_models_have_the_arguments_of_each_model():
    inputs, dropout = keras.Input((4,)), keras.layers.Dropout(0.5)
    first, second = (keras.Model(inputs, dropout(inputs, training=x)) for x in (False, True))
    for model, training in ((first, False), (second, True)):
        _, calls = with_calls(model)
        assert calls[dropout.name].arguments["training"] is training
