"""Saved models keep their config, preprocessing, precision and frozen layers."""

import keras
import numpy as np
import pytest

from keras_tokenlearner import create_model
from keras_tokenlearner.layers import TransformerBlock
from keras_tokenlearner.models import Preprocessing, VisionTransformer, X2Plus1D
from tests.conformance import assign_weights
from tests.layers.helpers import refused, run

NAMES = ("cat", "dog", "hen")


def pico(**arguments):
    model = create_model("tokenlearner_pico8_4at1", classes=3, **arguments)
    assign_weights(model)
    return model


def pixels(count=2):
    return np.random.default_rng(0).uniform(0, 255, (count, 32, 32, 3)).astype("float32")


def saved(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def trainable(model):
    return sorted(weight.path.split("sequential/")[-1] for weight in model.trainable_weights)


def test_vision_transformer_attributes_return_its_layers():
    model = pico(class_names=NAMES)
    assert isinstance(model, VisionTransformer) and model.config.num_tokens == 4
    assert [block.name for block in model.blocks] == ["block_0", "block_1"]
    assert all(isinstance(block, TransformerBlock) for block in model.blocks)
    assert [layer.name for layer in model.token_learners] == ["token_learner"]
    assert model.head is model.get_layer("head") and model.head.units == 3
    assert (model.grid, model.class_names) == ((4, 4), NAMES)
    features = create_model("vit_pico8", include_top=False)
    assert features.head is None and features.classes is None and not features.token_learners


def test_x2plus1d_attributes_return_its_layers():
    model = create_model("tokenlearner_x2plus1d_pico", classes=3)
    assert isinstance(model, X2Plus1D)
    assert len(model.token_learners) == len(model.config.replaced_units) == 2
    assert model.head.units == 3
    assert [block.name for block in model.blocks] == [
        "stage_0_unit_0_relu",
        *(f"stage_1_unit_{unit}_relu" for unit in range(3)),
    ]


def test_x2plus1d_blocks_return_the_relu_of_shortcut_plus_unit():
    model = create_model("x2plus1d_pico", classes=3, input_shape=(4, 16, 24, 3))
    first, *_, last = model.blocks
    assert first.output.shape == (None, 4, 4, 6, 8) and last.output.shape == (None, 4, 2, 3, 16)
    clips = np.random.default_rng(0).uniform(0, 255, (1, 4, 16, 24, 3)).astype("float32")
    added, out = keras.Model(model.input, [last.input, last.output]).predict(clips, verbose=0)
    np.testing.assert_allclose(out, np.maximum(added, 0))
    assert model.get_layer("stage_1_unit_2_sum").output is last.input


def test_saved_model_keeps_config_class_names_and_preprocessing(tmp_path):
    preprocessing = Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), crop_fraction=0.9)
    model = pico(class_names=NAMES, preprocessing=preprocessing, classifier_activation=None)
    again = saved(model, tmp_path)
    assert (again.config, again.preprocessing) == (model.config, preprocessing)
    assert (again.class_names, again.classifier_activation) == (NAMES, None)
    np.testing.assert_allclose(run(again, pixels()), run(model, pixels()), atol=1e-6)


def test_preprocessing_of_numpy_values_equals_the_preprocessing_of_python_numbers(tmp_path):
    half, twice = np.float32(0.5), np.array([0.25, 0.5, 0.75], "float32")
    found = Preprocessing(mean=half, std=twice, size=(np.int64(8), 8), crop_fraction=half)
    assert found == Preprocessing((0.5,), (0.25, 0.5, 0.75), (8, 8), crop_fraction=0.5)
    assert found == Preprocessing(mean=[half], std=tuple(twice), size=(8, 8), crop_fraction=0.5)
    assert saved(pico(preprocessing=found), tmp_path).preprocessing == found


def test_class_names_in_a_numpy_array_equal_the_names_in_a_list(tmp_path):
    model = pico(class_names=np.array(NAMES))
    assert model.class_names == NAMES and {type(name) for name in model.class_names} == {str}
    assert saved(model, tmp_path).class_names == NAMES


def test_preprocessing_layer_equals_normalisation_by_numpy():
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    model = pico(preprocessing=Preprocessing(mean=mean, std=std))
    bare = pico(include_preprocessing=False)
    expected = run(bare, ((pixels() / 255 - mean) / std).astype("float32"))
    np.testing.assert_allclose(run(model, pixels()), expected, atol=1e-5)


def test_saved_model_keeps_its_dtype_policy(tmp_path):
    model = pico(dtype="mixed_bfloat16")
    again = saved(model, tmp_path)
    assert keras.config.dtype_policy().name == "float32"
    for one in (model, again):
        assert one.blocks[0].compute_dtype == "bfloat16"
        assert one.get_layer("predictions").compute_dtype == "float32"


def test_compiled_model_of_float16_layers_scales_its_losses():
    for dtype, scales in (("mixed_float16", True), ("mixed_bfloat16", False), (None, False)):
        model = pico(dtype=dtype)
        model.compile("adam", "categorical_crossentropy")
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) is scales
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.filterwarnings("ignore:.*quantize.*")
def test_quantized_model_can_be_saved_and_loaded(tmp_path):
    model = pico()
    model.quantize("int8")
    again = saved(model, tmp_path)
    assert again.blocks[0].mlp.hidden.dtype_policy.quantization_mode == "int8"
    np.testing.assert_allclose(run(again, pixels()), run(model, pixels()), atol=1e-6)


def freeze_all(model):
    model.trainable = False


def freeze_a_block(model):
    model.blocks[0].trainable = False


def freeze_a_part_of_a_block(model):
    model.blocks[1].mlp.trainable = False


def freeze_all_but_a_block(model):
    for layer in model.layers:
        layer.trainable = layer.name == "block_1"


@pytest.mark.parametrize(
    "freeze", [freeze_all, freeze_a_block, freeze_a_part_of_a_block, freeze_all_but_a_block]
)
def test_frozen_backbone_stays_frozen_after_loading(freeze, tmp_path):
    backbone = create_model("tokenlearner_pico8_4at1", include_top=False, pooling="avg")
    freeze(backbone)
    model = keras.Sequential([backbone, keras.layers.Dense(3)])
    model.compile(keras.optimizers.Adam(), "mse")
    model.fit(pixels(), np.ones((2, 3)), verbose=0)
    again = saved(model, tmp_path)
    assert trainable(again) == trainable(model)
    assert len(trainable(model)) == {freeze_all: 2}.get(freeze, len(trainable(model)))
    for one, other in zip(again.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other)
        )


def test_vision_transformer_can_be_split_and_cloned_as_a_functional_model():
    model = pico()
    inner = keras.Model(model.input, model.get_layer("block_0").output)
    assert run(inner, pixels()).shape == (2, 16, 32)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_allclose(run(clone, pixels()), run(model, pixels()), atol=1e-6)


def test_vision_transformer_with_an_input_tensor_other_than_a_keras_input_raises():
    inputs = keras.Input((32, 32, 3), name="mine")
    model = pico(input_tensor=inputs)
    assert model.input is inputs
    refused(
        lambda: VisionTransformer(model.config, input_tensor=keras.layers.Rescaling(2.0)(inputs)),
        "VisionTransformer: `input_tensor`",
        "input_shape=(32, 32, 3)",
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"class_names": ("cat",)}, ["`class_names`", "3 names"]),
        ({"class_names": ("cat", "dog", 3)}, ["`class_names`"]),
        ({"class_names": np.array(["cat", "dog"])}, ["`class_names`", "2 names"]),
        ({"class_names": "abc"}, ["`class_names`", "class_names=abc"]),
        ({"include_top": "False"}, ["`include_top`", "'False'"]),
        ({"include_preprocessing": 1}, ["`include_preprocessing`", "Received"]),
        ({"preprocessing": Preprocessing(mean=(0.1, 0.2))}, ["`mean`", "(0.1, 0.2)"]),
    ],
    ids=str,
)
def test_create_model_with_wrong_class_names_flags_or_preprocessing_raises(changes, words):
    refused(lambda: pico(**changes), *words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mean": ()}, ["`mean`"]),
        ({"mean": ("a",)}, ["`mean`", "'a'"]),
        ({"std": (0.0,)}, ["`std`", "0.0"]),
        ({"mean": (0.1, 0.2), "std": (0.1, 0.2, 0.3)}, ["`std`", "0.3"]),
        ({"size": (0, 3)}, ["`size`"]),
        ({"resize_mode": "crop"}, ["`resize_mode`", "'crop'"]),
        ({"interpolation": "cubic"}, ["`interpolation`", "'bicubic'"]),
        ({"crop_fraction": 1.5}, ["`crop_fraction`", "1.5"]),
        ({"crop_fraction": True}, ["`crop_fraction`", "True"]),
        ({"crop_fraction": np.float32(0)}, ["`crop_fraction`", "0.0"]),
        ({"mean": np.float32("nan")}, ["`mean`", "nan"]),
        ({"mean": True}, ["`mean`", "True"]),
    ],
    ids=str,
)
def test_preprocessing_with_a_wrong_value_raises(changes, words):
    refused(lambda: Preprocessing(**changes), "Preprocessing: ", "Received", *words)
