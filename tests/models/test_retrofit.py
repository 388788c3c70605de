"""`retrofit` and `with_tokens`: the layers, the copied weights and the untrained maps."""

import functools

import keras
import numpy as np
import pytest

from keras_tokenlearner import costs, create_model, from_preset, retrofit, with_tokens
from keras_tokenlearner.analysis import with_token_maps
from keras_tokenlearner.layers import SpatialPooling, TokenLearner
from keras_tokenlearner.models import VisionTransformer
from keras_tokenlearner.models.structure import Structure
from keras_tokenlearner.weights import load_weights, save_weights
from tests.conformance import array

NUMPY = keras.ops.convert_to_numpy
ONCE = pytest.mark.once("torch")  # two forms of a retrofit run on every backend


def teacher(seed=0, **changes):
    """Return a small ViT with a random head, since a new head is zero."""
    keras.utils.set_random_seed(seed)
    model = create_model(changes.pop("name", "vit_pico8"), classes=10, **changes)
    for layer in model.layers:
        if layer.name == "head":
            kernel, bias = layer.get_weights()
            layer.set_weights([np.random.normal(size=kernel.shape), bias])
    return model


def pixels(*shape):
    return np.random.default_rng(1).uniform(0, 255, shape).astype("float32")


def names(model):
    return sorted(weight.path for weight in model.weights)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        pytest.param("tokenlearner_pico8_4at1", {}, marks=ONCE),
        ("tokenlearner_pico8_4at1", {"class_token": True, "register_tokens": 2}),
        pytest.param("tokenlearner_pico8_4at1", {"at": 0}, marks=ONCE),
        pytest.param("tokenlearner_pico8_4at1", {"at": 2}, marks=ONCE),
        ("tokenlearner_pico8_4at1_fuser", {}),
        pytest.param(
            "tokenlearner_pico8_4at1_fuser", {"fuser": "unpool", "class_token": True}, marks=ONCE
        ),
        pytest.param("tokenlearner_pico8_4at1_fuser", {"fuser": "reproject"}, marks=ONCE),
    ],
    ids=str,
)
def test_retrofitted_model_equals_the_catalogue_model(name, changes):
    model = create_model(name, classes=10, **changes)
    plain = {key: value for key, value in changes.items() if key not in ("at", "fuser")}
    student = retrofit(
        teacher(**plain),
        changes.get("at", 1),
        num_tokens=4,
        fuser=model.config.fuser,
        token_attention="conv",
        proportional_attention=False,
    )
    assert names(student) == names(model)
    assert costs(student).macs == costs(model).macs
    model.set_weights(student.get_weights())
    x = pixels(2, 32, 32, 3)
    np.testing.assert_allclose(NUMPY(student(x)), NUMPY(model(x)), atol=1e-6)


def test_untrained_student_equals_teacher_blocks_on_learned_tokens():
    model = teacher(class_token=True, register_tokens=1)
    before = model.get_weights()
    student = retrofit(model, at=1, num_tokens=4, proportional_attention=False)
    x = pixels(2, 32, 32, 3)
    inner = keras.Model(student.input, student.get_layer("join").output)
    tokens = inner(x)
    assert tuple(tokens.shape) == (2, 6, 32)
    np.testing.assert_allclose(  # class token and register equal the teacher's
        NUMPY(tokens)[:, :2],
        NUMPY(keras.Model(model.input, model.get_layer("block_0").output)(x))[:, :2],
        atol=1e-5,
    )
    tokens = model.get_layer("norm")(model.get_layer("block_1")(tokens))
    expected = keras.ops.softmax(model.get_layer("head")(tokens[:, 0]))
    np.testing.assert_allclose(NUMPY(student(x)), NUMPY(expected), atol=1e-5)
    for values, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(values, old)


VIDEO = {"patch_size": (2, 8, 8), "input_shape": (4, 32, 32, 3)}
POOLED = [
    ({}, 4, "fixed_grid"),
    ({"class_token": True, "register_tokens": 2}, 8, "fixed_grid"),
    ({"class_token": True, "input_shape": (32, 64, 3)}, 8, "spatial_pooling"),
    (
        {**VIDEO, "class_token": True},
        4,
        "fixed_grid",
    ),
]


@pytest.mark.parametrize(("changes", "num_tokens", "reducer"), POOLED, ids=str)
def test_untrained_student_with_grid_start_equals_average_pooling(changes, num_tokens, reducer):
    model = teacher(**changes)
    x = pixels(2, *model.input_shape[1:])
    student = retrofit(model, at=1, num_tokens=num_tokens)
    count = None if reducer == "spatial_pooling" else num_tokens
    pooled = retrofit(model, at=1, num_tokens=count, reducer=reducer)
    assert pooled.name == student.name == f"vit_pico8_{num_tokens}at1"
    logits, wanted, full = (
        NUMPY(keras.Model(m.input, m.get_layer("head").output)(x)) for m in (student, pooled, model)
    )
    # Positions outside the cell of a token have exp(-8) of the weight of positions inside.
    # The difference is less than 2% of the effect of pooling.
    assert np.abs(logits - wanted).max() < 0.02 * np.abs(wanted - full).max()
    if len(model.input_shape) == 4:
        student.get_layer("token_learner").bias.assign(
            5 * student.get_layer("token_learner").bias  # exp(-40) is negligible
        )
        logits = NUMPY(keras.Model(student.input, student.get_layer("head").output)(x))
        np.testing.assert_allclose(logits, wanted, atol=1e-4)


def test_proportional_attention_equals_attention_to_repeated_tokens():
    """Tokens that replace 4 patches give the same outputs as 4 copies of each token."""
    model = teacher(class_token=True)
    x = pixels(2, 32, 32, 3)
    student = retrofit(model, at=1, num_tokens=4)
    plain = retrofit(model, at=1, num_tokens=4, proportional_attention=False)
    joined = NUMPY(keras.Model(student.input, student.get_layer("join").output)(x))
    copies = np.concatenate([joined[:, :1], np.repeat(joined[:, 1:], 4, axis=1)], axis=1)
    wanted = NUMPY(model.get_layer("block_1")(copies))[:, 0]
    found = NUMPY(keras.Model(student.input, student.get_layer("block_1").output)(x))[:, 0]
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert not any("patch_bias" in name for name in names(plain))
    assert sum("patch_bias" in name for name in names(student)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"class_token": True},
        {**VIDEO, "class_token": True},
    ],
    ids=str,
)
def test_model_from_with_tokens_equals_the_student_called_with_fewer_tokens(changes, tmp_path):
    model = teacher(**changes)
    student = retrofit(model, at=1, num_tokens=8)
    learner = student.get_layer("token_learner")
    for seed, weight in enumerate(learner.weights):
        weight.assign(weight + 0.3 * array(weight.shape, seed))
    student.get_layer("block_1").patch_bias.assign(0.2)
    x = pixels(2, *model.input_shape[1:])
    small = with_tokens(student, 3)
    joined = NUMPY(keras.Model(student.input, student.get_layer("block_0").output)(x))
    tokens = NUMPY(learner(joined[:, 1:], num_tokens=3))
    tokens = student.get_layer("block_1")(np.concatenate([joined[:, :1], tokens], axis=1))
    logits = NUMPY(student.get_layer("head")(student.get_layer("norm")(tokens)[:, 0]))
    found = keras.Model(small.input, small.get_layer("head").output)
    np.testing.assert_allclose(NUMPY(found(x)), logits, atol=1e-4)
    assert costs(small).macs < costs(student).macs
    small.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    np.testing.assert_allclose(NUMPY(loaded(x)), NUMPY(small(x)), atol=1e-6)


def saved(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def cloned(model, folder):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def configured(model, folder):
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy


def saved_as_weights(model, folder):
    save_weights(model, folder / "a.weights.h5")
    copy = create_model("vit_pico8", classes=10, input_shape=(112, 112, 3))
    copy = retrofit(copy, at=1, num_tokens=6)
    load_weights(copy, folder / "a.weights.h5")
    return copy


def saved_as_preset(model, folder):
    return from_preset(model.save_to_preset(folder / "preset"))


ROUTES = {
    "direct": lambda model, folder: model,
    "saved": saved,
    "cloned": cloned,
    "config": configured,
    "weights": saved_as_weights,
    "preset": saved_as_preset,
}


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("route", "is_custom"),
    [*((route, False) for route in ROUTES), ("saved", True), ("cloned", True), ("config", True)],
)
def test_reduction_by_with_tokens_to_6_and_then_2_tokens_equals_the_reduction_to_2_tokens(
    route, is_custom, tmp_path
):
    """On 14 x 14 patches, the tree of 6 cells is not a part of the tree of 8 cells."""
    model = teacher(input_shape=(112, 112, 3), include_top=not is_custom)
    if is_custom:
        pooled = keras.layers.GlobalAveragePooling1D()(model.output)
        model = keras.Model(model.input, keras.layers.Dense(3)(pooled))
    student = retrofit(model, at=1, num_tokens=8)
    learner = student.get_layer("token_learner")
    for seed, weight in enumerate(learner.weights):
        weight.assign(weight + 0.3 * array(weight.shape, seed))
    twice = with_tokens(ROUTES[route](with_tokens(student, 6), tmp_path), 2)
    once = with_tokens(student, 2)
    for found, expected in zip(twice.get_weights(), once.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_untrained_student_reduced_by_with_tokens_equals_a_retrofit_to_as_many_tokens():
    model = teacher(class_token=True)
    x = pixels(2, 32, 32, 3)
    found = with_tokens(retrofit(model, at=1, num_tokens=8), 4)
    wanted = retrofit(model, at=1, num_tokens=4)
    np.testing.assert_allclose(NUMPY(found(x)), NUMPY(wanted(x)), atol=1e-4)


@pytest.mark.once("torch")
def test_reduction_by_with_tokens_of_unsuitable_counts_or_models_raises():
    model = teacher()
    for student, message in (
        (retrofit(model, at=1, num_tokens=4), "`num_tokens` .* at most 4.* num_tokens=5"),
        (
            retrofit(model, at=1, num_tokens=4, token_start="random"),
            "each .* `model` .* with token_learner$",
        ),
        (model, "each .* `model` .* with no TokenLearner$"),
    ):
        with pytest.raises(ValueError, match=f"with_tokens: .*{message}"):
            with_tokens(student, 5)


@pytest.mark.once("torch")
@pytest.mark.filterwarnings("ignore:.*quantize.*")
def test_reduction_by_with_tokens_of_a_model_with_token_fuser_lora_or_int8_weights_raises():
    fused, lora, int8 = (
        retrofit(teacher(), at=1, num_tokens=4, fuser=fuser)
        for fuser in ("token_fuser", None, None)
    )
    lora.blocks[0].mlp.hidden.enable_lora(2)
    int8.quantize("int8")
    for student, words in ((fused, "token_fuser_1"), (lora, "LoRA"), (int8, "int8")):
        with pytest.raises(ValueError, match=f"with_tokens: `model` .*{student.name!r}.*{words}"):
            with_tokens(student, 2)


@pytest.mark.parametrize("fuser", ["unpool", "reproject"])
def test_reduction_by_with_tokens_of_a_student_with_fuser_equals_a_retrofit_to_fewer_tokens(fuser):
    model = teacher(class_token=True)
    x = pixels(2, 32, 32, 3)
    found = with_tokens(retrofit(model, at=1, num_tokens=8, fuser=fuser), 4)
    wanted = retrofit(model, at=1, num_tokens=4, fuser=fuser)
    if fuser == "reproject":
        wanted.get_layer("reproject_1").set_weights(found.get_layer("reproject_1").get_weights())
    np.testing.assert_allclose(NUMPY(found(x)), NUMPY(wanted(x)), atol=1e-4)


@pytest.mark.once("torch")
def test_retrofit_of_a_loaded_bfloat16_model_keeps_its_dtype_policy(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        teacher().save(tmp_path / "mine.keras")
    finally:
        keras.config.set_dtype_policy("float32")
    student = retrofit(keras.saving.load_model(tmp_path / "mine.keras"), at=1, num_tokens=4)
    assert student.get_layer("token_learner").compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"
    assert NUMPY(student(pixels(2, 32, 32, 3))).shape == (2, 10)


def test_retrofit_of_a_video_model_reduces_its_tokens():
    model = teacher(patch_size=(2, 8, 8), input_shape=(4, 32, 32, 3), class_token=True)
    student = retrofit(model, at=1, num_tokens=3)
    inner = keras.Model(student.input, student.get_layer("join").output)
    assert tuple(inner(pixels(1, 4, 32, 32, 3)).shape) == (1, 1 + 2 * 3, 32)


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"at": 3}, "retrofit: `at` "),
        ({"at": 3}, "num_layers=2. Received: at=3"),
        ({"at": -1}, "Received: at=-1"),
        ({"at": 1, "num_tokens": 0}, "Received: num_tokens=0"),
        ({"at": 1, "token_attention": "mpl"}, "'mlp'"),
        ({"at": 1, "token_attention": "conv", "token_start": "grid"}, "token_attention='conv'"),
        ({"at": 1, "reducer": "fixed_grid", "token_start": "grid"}, "reducer='fixed_grid'"),
        ({"at": 1, "token_start": "clusters"}, "token_start='clusters'"),
        ({"at": 1, "num_tokens": 17}, "num_tokens=17"),
        ({"at": 1, "num_tokens": 4, "reducer": "spatial_pooling"}, "Received: num_tokens=4"),
        ({"at": 1, "num_tokens": 8, "reducer": "spatial_pooling"}, "reducer='spatial_pooling'"),
        *(
            (
                {"at": 1, "token_attention": kind, "reducer": "fixed_grid"},
                f"Received: token_attention='{kind}'",
            )
            for kind in ("mlp", "conv")
        ),
        ({"at": 1, "fuser": True}, "fuser=True"),
    ],
)
def test_retrofit_with_wrong_arguments_raises(arguments, message):
    with pytest.raises(ValueError) as caught:
        retrofit(teacher(), **arguments)
    assert message in str(caught.value)


@pytest.mark.once("torch")
def test_retrofit_of_unsuitable_models_raises():
    with pytest.raises(ValueError, match="retrofit: .*tokenlearner_pico8_4at1.*token_learner"):
        retrofit(create_model("tokenlearner_pico8_4at1"), at=1)
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="retrofit: .*model=<Sequential"):
        retrofit(other, at=1)


@pytest.mark.once("torch")
@pytest.mark.parametrize("reducer", ["token_learner", "fixed_grid"])
def test_retrofit_without_num_tokens_has_eight_tokens(reducer):
    student = retrofit(teacher(), at=1, reducer=reducer)
    assert student.name == "vit_pico8_8at1" and student.config.num_tokens == 8
    assert student.get_layer(reducer).output.shape == (None, 8, 32)


def test_student_of_a_frozen_teacher_is_trainable():
    model = teacher()
    model.trainable = False
    student = retrofit(model, at=1, num_tokens=4)
    assert len(student.trainable_weights) == len(student.weights)
    assert not model.trainable_weights


@pytest.mark.once("torch")
def test_student_of_a_model_with_a_custom_head_keeps_that_head():
    base = teacher(include_top=False, pooling="avg")
    outputs = keras.layers.Dense(3, activation="softmax", name="mine")(base.output)
    model = keras.Model(base.input, outputs, name="flowers")
    for layer in model.layers:
        layer.trainable = layer.name == "mine"
    student = retrofit(model, at=1, num_tokens=4)
    assert student.name == "flowers_4at1" and student.output_shape == (None, 3)
    assert len(student.trainable_weights) == len(student.weights)
    for found, expected in zip(
        student.get_layer("mine").get_weights(), model.get_layer("mine").get_weights(), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.once("torch")
def test_retrofit_and_with_tokens_of_a_model_with_a_custom_loss_return_uncompiled_models():
    base = teacher(include_top=False, pooling="avg")
    model = keras.Model(base.input, keras.layers.Dense(3)(base.output))

    def loss(wanted, found):
        return keras.ops.mean(found - wanted)

    model.compile("adamw", loss=loss)
    student = retrofit(model, at=1, num_tokens=4)
    assert not student.compiled
    student.compile("adamw", loss=loss)
    small = with_tokens(student, 2)
    assert not small.compiled and model.compiled and student.compiled
    assert tuple(small(pixels(2, 32, 32, 3)).shape) == (2, 3)


@pytest.mark.once("jax")  # on PyTorch in float32, the constants are views of the weights
@pytest.mark.parametrize("nested", [False, True])
def test_copies_of_a_model_with_an_adapted_normalization_keep_its_statistics(nested):
    base = teacher(include_top=False, pooling="avg")
    norm = keras.layers.Normalization(name="own")
    norm.adapt(5 + 2 * array((8, 32), 0))
    layer = keras.Sequential([keras.Input((32,)), norm], name="nested") if nested else norm
    model = keras.Model(base.input, keras.layers.Dense(3)(layer(base.output)))
    student = retrofit(model, at=1, num_tokens=4)
    x = array((2, 32), 1)
    for copy in (student, with_tokens(student, 2), with_token_maps(student)):
        found = copy.get_layer(layer.name)
        assert found is not layer
        np.testing.assert_allclose(NUMPY(found(x)), NUMPY(norm(x)), atol=1e-6)


@pytest.mark.once("torch")
@pytest.mark.parametrize("fuser", [None, "unpool"])
@pytest.mark.parametrize("kind", ["flatten", "reshape"])
def test_retrofit_and_with_tokens_of_a_head_for_a_fixed_number_of_tokens_need_a_fuser(kind, fuser):
    def with_head(body):
        flat = keras.layers.Flatten()(body.output)
        if kind == "reshape":
            flat = keras.layers.Reshape((flat.shape[-1],), name="own")(body.output)
        return keras.Model(body.input, keras.layers.Dense(3, name="own_dense")(flat))

    body = teacher(include_top=False)
    model = with_head(body)
    if fuser:
        student = retrofit(model, at=1, num_tokens=4, fuser=fuser)
        assert with_tokens(student, 2).output_shape == (None, 3)
        return
    with pytest.raises(ValueError, match="^retrofit: .*`fuser`.*'own"):
        retrofit(model, at=1, num_tokens=4)
    student = with_head(retrofit(body, at=1, num_tokens=4))
    with pytest.raises(ValueError, match="^with_tokens: .*`fuser`.*'own"):
        with_tokens(student, 2)


@pytest.mark.once("torch")
def test_retrofit_of_a_model_with_custom_head_and_an_unnamed_input_returns_a_student():
    base = teacher(include_top=False, pooling="avg", input_tensor=keras.Input((32, 32, 3)))
    model = keras.Model(base.input, keras.layers.Dense(3)(base.output))
    student = retrofit(model, at=1, num_tokens=4)
    wanted = model.get_layer("block_0").get_weights()
    for ours, theirs in zip(student.get_layer("block_0").get_weights(), wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert with_tokens(student, 2).output_shape == (None, 3)


@pytest.mark.once("torch")
@pytest.mark.parametrize("is_custom", [False, True])
def test_model_from_with_tokens_of_a_partly_frozen_student_is_trainable(is_custom):
    model = teacher(include_top=not is_custom)
    if is_custom:
        pooled = keras.layers.GlobalAveragePooling1D()(model.output)
        model = keras.Model(model.input, keras.layers.Dense(3)(pooled))
    student = retrofit(model, at=1, num_tokens=4)
    student.get_layer("block_0").trainable = False
    student.get_layer("block_1").mlp.trainable = False
    small = with_tokens(student, 2)
    assert len(small.trainable_weights) == len(small.weights)
    assert not student.get_layer("block_0").trainable


@pytest.mark.once("torch")
def test_students_of_a_mixed_float16_model_with_custom_head_compile_with_loss_scaling(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    plain = create_model("vit_pico8", include_top=False, pooling="avg")
    custom = keras.Model(plain.input, keras.layers.Dense(3)(plain.output))
    keras.config.set_dtype_policy("float32")
    student = retrofit(custom, at=1, num_tokens=4)
    for model in (student, with_tokens(student, 2), with_tokens(saved(student, tmp_path), 2)):
        model.compile("sgd", "mse")
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)


@pytest.mark.parametrize(
    ("rotary", "fuser"),
    [
        ("index", None),
        ("learned", "token_fuser"),
        pytest.param("centred", None, marks=ONCE),
        pytest.param("learned", None, marks=ONCE),
        pytest.param("index", "token_fuser", marks=ONCE),
        pytest.param("centred", "token_fuser", marks=ONCE),
    ],
)
def test_student_of_a_rotary_model_with_custom_head_has_the_features_of_the_student_without_head(
    rotary, fuser
):
    plain = teacher(rotary=rotary, include_top=False, pooling="avg")
    custom = keras.Model(plain.input, keras.layers.Dense(3)(plain.output))
    x = pixels(2, 32, 32, 3)
    ours, theirs = (retrofit(m, at=1, num_tokens=4, fuser=fuser) for m in (plain, custom))
    features = keras.Model(theirs.input, theirs.layers[-2].output)
    for layer in features.layers:
        layer.set_weights(ours.get_layer(layer.name).get_weights())
    np.testing.assert_allclose(NUMPY(features(x)), NUMPY(ours(x)), atol=1e-5)


@pytest.mark.once("torch")
def test_retrofit_of_nested_or_lora_models_raises():
    nested = keras.Sequential([teacher(include_top=False, pooling="avg"), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="retrofit: .*'vit_pico8'"):
        retrofit(nested, at=1)
    model = teacher()
    model.blocks[0].mlp.hidden.enable_lora(2)
    with pytest.raises(ValueError, match="LoRA"):
        retrofit(model, at=1)
    renamed = keras.layers.Dense(3, name="my_lora_head")(teacher(include_top=False).output)
    student = retrofit(keras.Model(keras.utils.get_source_inputs(renamed), renamed), at=1)
    assert student.get_layer("my_lora_head").units == 3


@pytest.mark.once("torch")
@pytest.mark.parametrize("kind", [SpatialPooling, TokenLearner])
def test_retrofit_of_a_model_with_a_reducer_in_its_custom_head_keeps_this_head(kind):
    body = teacher(include_top=False)
    tokens = kind(grid=(4, 4), name="own")(body.output)
    model = keras.Model(body.input, keras.layers.GlobalAveragePooling1D()(tokens))
    student = retrofit(model, at=1, num_tokens=4, fuser="unpool")
    assert student.get_layer("own").output.shape == tokens.shape
    found = Structure("test", student)
    assert [x.name for x in found.reducers + found.fusers] == ["token_learner_1", "unpool_1"]


@pytest.mark.once("torch")
@pytest.mark.parametrize("reducer", ["spatial_pooling", "fixed_grid"])
@pytest.mark.parametrize(("class_token", "at"), [(False, 1), (True, 0)])
def test_retrofit_of_a_model_with_a_reducer_without_weights_raises(reducer, class_token, at):
    student = retrofit(teacher(class_token=class_token), at=at, reducer=reducer)
    cut = keras.Model(student.input, student.get_layer("block_1").output)
    for model in (student, cut):
        with pytest.raises(ValueError, match=f"retrofit: `model` .*{reducer}"):
            retrofit(model, at=1)


def own_softmax(x):
    return keras.ops.softmax(x, axis=-1)


def own_silu(x):
    return x * keras.ops.sigmoid(x)


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("own", "top"),
    [
        (own_silu, own_softmax),
        (functools.partial(own_silu), functools.partial(own_softmax)),
    ],
    ids=["function", "partial"],
)
def test_copies_of_a_model_with_own_functions_have_the_same_functions(own, top):
    student = retrofit(teacher(activation=own, classifier_activation=top), at=1, num_tokens=4)
    small = with_tokens(student, 2)
    for model in (student, small):
        assert model.classifier_activation is top and model.config.activation is own
        assert model.get_layer("predictions").activation is top
        assert model.get_layer("block_1").mlp.activation is own


class Noted(VisionTransformer):
    """A model class with an argument of its own."""

    def __init__(self, *args, note, **kwargs):
        super().__init__(*args, **kwargs)
        self.note = note

    def get_config(self):
        return {**super().get_config(), "note": self.note}


@pytest.mark.once("torch")
def test_copies_of_a_model_of_an_own_class_have_its_arguments_or_the_class_vision_transformer():
    plain = teacher(activation=own_silu)
    student = retrofit(Noted(plain.config, (32, 32, 3), classes=10, note="mine"), at=1)
    assert type(student) is VisionTransformer
    small = with_tokens(Noted(student.config, (32, 32, 3), classes=10, note="mine"), 2)
    assert type(small) is Noted and small.note == "mine" and small.config.activation is own_silu


@pytest.mark.once("torch")
def test_copies_of_a_model_with_custom_head_keep_its_functions_and_attributes():
    base = teacher(include_top=False, pooling="avg", activation=own_silu)
    outputs = keras.layers.Dense(3, activation=own_softmax, name="own")(base.output)
    model = keras.Model(base.input, outputs)
    model.class_names, model.preprocessing = ("cat", "dog", "hen"), base.preprocessing
    student = retrofit(model, at=1, num_tokens=4)
    student.config = {"epochs": 3}  # an attribute of the user
    small = with_tokens(student, 2)
    for copy in (student, small):
        assert copy.class_names == model.class_names
        assert copy.preprocessing is model.preprocessing
    for copy in (student, small, with_token_maps(student)):
        assert copy.get_layer("own").activation is own_softmax
        assert copy.get_layer("block_1").mlp.activation is own_silu
