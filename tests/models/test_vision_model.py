"""Saved models keep their config, preprocessing, precision and frozen layers."""

import keras
import numpy as np
import pytest

from keras_tokenlearner import create_model, from_preset, retrofit, with_tokens
from keras_tokenlearner.layers import TransformerBlock
from keras_tokenlearner.layers.composite import parts_of, trainable_flags
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


@pytest.mark.once("torch")
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


@pytest.mark.once("torch")
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


@pytest.mark.once("torch")
def test_preprocessing_of_numpy_values_equals_the_preprocessing_of_python_numbers(tmp_path):
    half, twice = np.float32(0.5), np.array([0.25, 0.5, 0.75], "float32")
    found = Preprocessing(mean=half, std=twice, size=(np.int64(8), 8), crop_fraction=half)
    assert found == Preprocessing((0.5,), (0.25, 0.5, 0.75), (8, 8), crop_fraction=0.5)
    assert found == Preprocessing(mean=[half], std=tuple(twice), size=(8, 8), crop_fraction=0.5)
    assert saved(pico(preprocessing=found), tmp_path).preprocessing == found


@pytest.mark.once("torch")
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


WEIGHTS_ONLY = keras.quantizers.Int8QuantizationConfig(activation_quantizer=None)


def modes(model):
    """Return mode and activation quantizer of each quantized part of a model."""
    return {
        path: (mode, type(part.quantization_config.activation_quantizer))
        for path, part, _ in parts_of(model)
        if (mode := getattr(part.dtype_policy, "quantization_mode", None))
    }


def assert_quantization_is_saved(model, calls, tmp_path):
    """Assert that a quantized model keeps its quantized layers and outputs after loading."""
    for call in calls:
        model.quantize(**call)
    again = saved(model, tmp_path)
    assert modes(again) == modes(model) != {}
    np.testing.assert_array_equal(run(again, pixels()), run(model, pixels()))


@pytest.mark.filterwarnings("ignore:.*quantize.*")
@pytest.mark.parametrize(
    "calls",
    [
        [{"mode": "int8"}],
        [{"mode": "int4"}],
        [{"mode": "float8"}],
        [{"config": WEIGHTS_ONLY}],
        [{"mode": "int8", "filters": "output"}],
        [{"mode": "int8", "filters": "head"}, {"config": WEIGHTS_ONLY, "filters": "hidden"}],
    ],
    ids=["int8", "int4", "float8", "weights only", "int8 of one part", "two quantizations"],
)
def test_quantized_model_loaded_from_a_file_keeps_its_quantized_layers(calls, tmp_path):
    assert_quantization_is_saved(pico(), calls, tmp_path)


@pytest.mark.once("torch")
@pytest.mark.filterwarnings("ignore:.*quantize.*")
def test_save_of_a_model_with_an_unloadable_quantization_raises(tmp_path):
    model = pico()
    weights = keras.quantizers.AbsMaxQuantizer(axis=0, value_range=(-8, 7))
    model.quantize(config=keras.quantizers.Int4QuantizationConfig(weights, block_size=None))
    with pytest.raises(ValueError, match=r"-8.*float model"):
        model.save(tmp_path / "model.keras")


@pytest.mark.filterwarnings("ignore:.*quantize.*")
def test_video_model_with_only_a_quantized_token_fuser_keeps_it_after_loading(tmp_path):
    model = create_model("tokenlearner_x2plus1d_pico", classes=3)
    model.quantize("int8", filters=lambda layer: layer.name == "mix")
    again = saved(model, tmp_path)
    assert modes(again) == modes(model) != {}
    with pytest.raises(ValueError, match="quantized to int8"):
        model.save_to_preset(tmp_path)


def with_own_head(model):
    outputs = keras.layers.Dense(3, name="own")(model.get_layer("pooling").output)
    return keras.Model(model.input, outputs)


def cut(model):
    return keras.Model(model.input, model.get_layer("norm").output)


@pytest.mark.filterwarnings("ignore:.*quantize.*")
@pytest.mark.parametrize(
    ("make", "calls"),
    [
        (with_own_head, [{"mode": "int8"}]),
        pytest.param(cut, [{"mode": "int4"}], marks=pytest.mark.once("torch")),
        pytest.param(cut, [{"mode": "float8"}], marks=pytest.mark.once("torch")),
        pytest.param(
            with_own_head,
            [{"mode": "int8", "filters": "output"}, {"config": WEIGHTS_ONLY, "filters": "hidden"}],
            marks=pytest.mark.once("torch"),
        ),
    ],
    ids=["int8", "int4", "float8", "two quantizations"],
)
def test_quantized_model_with_custom_head_or_cut_keeps_its_quantized_layers(make, calls, tmp_path):
    assert_quantization_is_saved(make(pico()), calls, tmp_path)


@pytest.mark.once("torch")
@pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="only on torch: parameters of modules"
)
@pytest.mark.filterwarnings("ignore:.*quantize.*")
def test_loaded_quantized_model_with_custom_head_has_no_float_kernels_in_torch_parameters(tmp_path):
    model = with_own_head(pico())
    model.quantize("int8")
    again = saved(model, tmp_path)
    for part in (again.get_layer("block_0"), again.get_layer("block_0").mlp):
        assert len(list(part.parameters())) == len(part.variables)


@pytest.mark.once("torch")
@pytest.mark.filterwarnings("ignore:.*quantize.*")
def test_quantized_model_with_custom_head_loads_under_a_float16_policy(tmp_path):
    model = with_own_head(pico())
    model.quantize("int8")
    keras.config.set_dtype_policy("float16")
    try:
        again = saved(model, tmp_path)
    finally:
        keras.config.set_dtype_policy("float32")
    assert modes(again) == modes(model)


@pytest.mark.once("torch")
@pytest.mark.filterwarnings("ignore:.*quantize.*")
def test_save_of_a_model_with_custom_head_quantized_by_gptq_raises(tmp_path):
    model = with_own_head(pico())
    hidden = model.get_layer("block_0").mlp.hidden
    hidden.quantize(config=keras.quantizers.GPTQConfig(dataset=None, tokenizer=None))
    words = "TransformerBlock.get_build_config", "'int8'", "mlp/hidden", "gptq"
    refused(lambda: model.save(tmp_path / "model.keras"), *words)


@pytest.mark.filterwarnings("ignore:.*quantize.*")
def test_model_config_of_an_earlier_version_keeps_quantization_mode_and_frozen_layers():
    config = {**pico().get_config(), "quantization": "int8", "frozen": ["block_0", "head/bias"]}
    model = VisionTransformer.from_config(config)
    assert model.head.dtype_policy.quantization_mode == "int8"
    assert not model.blocks[0].trainable and model.blocks[1].trainable
    assert model.head.trainable and not model.head.bias.trainable


def test_config_of_a_model_quantized_by_gptq_raises():
    model = pico()
    config = keras.quantizers.GPTQConfig(dataset=None, tokenizer=None)
    model.head.quantize(config=config)
    refused(model.get_config, "VisionTransformer.get_config", "'int8'", "head", "gptq")


def freeze_all(model):
    model.trainable = False


def freeze_a_block(model):
    model.blocks[0].trainable = False


def freeze_a_part_of_a_block(model):
    model.blocks[1].mlp.trainable = False


def freeze_all_but_a_block(model):
    for layer in model.layers:
        layer.trainable = layer.name == "block_1"


def freeze_all_but_a_part_of_a_block(model):
    for layer in model.layers:
        layer.trainable = False
    model.blocks[1].mlp.trainable = True
    model.blocks[1].mlp.hidden.trainable = False
    model.blocks[0].mlp_norm.gamma.trainable = True


@pytest.mark.parametrize(
    "freeze",
    [
        freeze_all_but_a_part_of_a_block,
        # `tests/training/test_frozen.py` has similar forms on every backend.
        *(
            pytest.param(freeze, marks=pytest.mark.once("torch"))
            for freeze in (
                freeze_all,
                freeze_a_block,
                freeze_a_part_of_a_block,
                freeze_all_but_a_block,
            )
        ),
    ],
)
def test_frozen_backbone_stays_frozen_after_loading(freeze, tmp_path):
    backbone = create_model("tokenlearner_pico8_4at1", include_top=False, pooling="avg")
    freeze(backbone)
    model = keras.Sequential([backbone, keras.layers.Dense(3)])
    model.compile(keras.optimizers.Adam(), "mse")
    model.fit(pixels(), np.ones((2, 3)), verbose=0)
    again = saved(model, tmp_path)
    assert trainable(again) == trainable(model)
    assert trainable_flags(again.layers[0]) == trainable_flags(backbone)
    assert len(trainable(model)) == {freeze_all: 2}.get(freeze, len(trainable(model)))
    for one, other in zip(again.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other)
        )


def train_only_queries(model):
    for _, part, _ in parts_of(model):
        part.trainable = part.name in ("block_0", "self_attention", "query")


@pytest.mark.parametrize("freeze", [freeze_all_but_a_part_of_a_block, train_only_queries])
def test_partly_frozen_custom_head_model_trains_the_same_weights_after_loading(freeze, tmp_path):
    backbone = pico(include_top=False, pooling="avg")
    freeze(backbone)
    model = with_own_head(backbone)
    again = saved(model, tmp_path)
    assert trainable(again) == trainable(model)
    assert 2 < len(trainable(model)) < len(model.weights)


@pytest.mark.once("torch")
def test_loaded_custom_head_model_trains_the_kernel_that_had_lora_in_a_frozen_block(tmp_path):
    model = with_own_head(pico())
    for layer in model.layers[:-1]:
        layer.trainable = False
    hidden = model.get_layer("block_0").mlp.hidden
    hidden.enable_lora(2)
    hidden.lora_kernel_a.trainable = hidden.lora_kernel_b.trainable = True
    hidden.lora_kernel_b.assign(np.ones(hidden.lora_kernel_b.shape))
    again = saved(model, tmp_path)
    np.testing.assert_allclose(run(again, pixels()), run(model, pixels()), atol=1e-5)
    assert trainable(again) == ["block_0/mlp/hidden/kernel", "own/bias", "own/kernel"]


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
@pytest.mark.parametrize("frozen", [False, True])
def test_model_trained_by_lora_trains_its_kernels_after_loading(frozen, tmp_path):
    model = pico()
    if frozen:
        for layer in model.layers:
            layer.trainable = False
    for layer in (model.head, model.blocks[0].mlp.hidden):
        layer.enable_lora(2)
        layer.lora_kernel_a.trainable = layer.lora_kernel_b.trainable = True
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    model.fit(pixels(), np.array([0, 1]), verbose=0)
    again = saved(model, tmp_path)
    np.testing.assert_allclose(run(again, pixels()), run(model, pixels()), atol=1e-6)
    before = [each.path for each in model.weights if "lora" not in each.path]
    assert [each.path for each in again.weights] == before
    expected = ["block_0/mlp/hidden/kernel", "head/kernel"] if frozen else sorted(before)
    assert trainable(again) == expected
    kernel = again.head.get_weights()[0]
    again.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    again.fit(pixels(), np.array([0, 1]), verbose=0)
    assert np.abs(again.head.get_weights()[0] - kernel).max() > 0


def test_vision_transformer_can_be_split_and_cloned_as_a_functional_model():
    model = pico()
    inner = keras.Model(model.input, model.get_layer("block_0").output)
    assert run(inner, pixels()).shape == (2, 16, 32)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_allclose(run(clone, pixels()), run(model, pixels()), atol=1e-6)


@pytest.mark.once("torch")
def test_vision_transformer_with_an_input_tensor_other_than_a_keras_input_raises():
    inputs = keras.Input((32, 32, 3), name="mine")
    model = pico(input_tensor=inputs)
    assert model.input is inputs
    refused(
        lambda: VisionTransformer(model.config, input_tensor=keras.layers.Rescaling(2.0)(inputs)),
        "VisionTransformer: `input_tensor`",
        "input_shape=(32, 32, 3)",
    )


COPIES = {
    "saved": saved,
    "preset": lambda model, folder: from_preset(model.save_to_preset(folder / "preset")),
    "retrofit": lambda model, folder: retrofit(model, at=1, num_tokens=8, reducer="fixed_grid"),
    "with_tokens": lambda model, folder: with_tokens(retrofit(model, at=1, num_tokens=8), 4),
}


@pytest.mark.once("torch")
@pytest.mark.filterwarnings("ignore:The structure of `inputs`")
@pytest.mark.parametrize("route", COPIES)
def test_copy_of_a_model_on_an_input_tensor_has_the_same_input(route, tmp_path):
    inputs = keras.Input((32, 32, 3), batch_size=2, name="image", dtype="uint8")
    model = create_model("vit_pico8", classes=3, input_tensor=inputs)
    copy = COPIES[route](model, tmp_path)
    found = copy.inputs[0]
    assert (found.name, found.dtype, found.shape) == ("image", "uint8", (2, 32, 32, 3))
    assert copy.predict({"image": pixels().astype("uint8")}, verbose=0).shape == (2, 3)


@pytest.mark.once("torch")
def test_model_config_of_an_earlier_version_without_input_gives_the_default_input():
    config = pico().get_config()
    del config["input"]
    assert VisionTransformer.from_config(config).inputs[0].name == "inputs"


@pytest.mark.once("torch")
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
        ({"preprocessing": "half"}, ["`preprocessing`", "'half'"]),
        ({"dtype": "int8_from_float32"}, ["`dtype`", "'int8_from_float32'"]),
        ({"dtype": "int32"}, ["`dtype`", "'int32'"]),
    ],
    ids=str,
)
def test_create_model_with_wrong_class_names_flags_or_preprocessing_raises(changes, words):
    refused(lambda: pico(**changes), *words)


@pytest.mark.once("torch")
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


@pytest.mark.once("torch")
@pytest.mark.parametrize("name", ["vit_pico8", "x2plus1d_pico"])
def test_model_on_an_integer_input_without_preprocessing_raises(name):
    model = create_model(name, classes=3)
    inputs = keras.Input(model.input_shape[1:], dtype="uint8")
    given = {"input_tensor": inputs, "include_preprocessing": False}
    words = ["`input_tensor`", "uint8", "include_preprocessing=False"]
    refused(lambda: create_model(name, **given), "create_model", *words)
    refused(lambda: type(model)(model.config, **given), type(model).__name__, *words)


@pytest.mark.once("torch")
@pytest.mark.parametrize("dtype", ["int8_from_float32", "int4_from_mixed_bfloat16", "int32"])
def test_layer_or_model_of_a_quantized_or_integer_dtype_policy_raises(dtype):
    words = ["Received: ", f"dtype='{dtype}'"]
    refused(lambda: TransformerBlock(2, dtype=dtype), "TransformerBlock: `dtype`", *words)
    keras.config.set_dtype_policy(dtype)
    refused(lambda: TransformerBlock(2), "TransformerBlock: `dtype`", *words)
    refused(lambda: create_model("x2plus1d_pico"), "create_model", "`dtype`", *words)
    keras.config.set_dtype_policy("float32")
    policies = {"block_0/mlp/hidden": keras.dtype_policies.get(dtype)}
    policies = keras.dtype_policies.DTypePolicyMap("float32", policies)
    refused(lambda: create_model("vit_pico8", dtype=policies), "create_model", "`dtype`", *words)


@pytest.mark.once("torch")
def test_model_of_a_map_of_float_dtype_policies_has_these_policies():
    policies = {"block_0": keras.dtype_policies.get("mixed_bfloat16")}
    model = pico(dtype=keras.dtype_policies.DTypePolicyMap("float32", policies))
    assert [block.compute_dtype for block in model.blocks] == ["bfloat16", "float32"]
