"""Weights of this package's models in models with other grids, other heads or video inputs."""

import keras
import numpy as np
import pytest

from keras_tokenlearner import create_model, from_preset
from keras_tokenlearner.layers.positions import resize_positions
from keras_tokenlearner.weights import Statement, load, load_weights, plan_of, save_weights
from tests.conformance import assign_weights
from tests.weights.foreign import close, outputs, pixels

pytestmark = pytest.mark.once("torch")

PICO = "tokenlearner_pico8_4at1"


@pytest.mark.parametrize("fuser", [None, "token_fuser"])
@pytest.mark.parametrize("embedding", ["central_frame", "inflate"])
def test_video_model_with_image_weights_gives_the_image_outputs_for_equal_frames(fuser, embedding):
    image_model = create_model(PICO, classes=5, fuser=fuser, num_layers=3)
    assign_weights(image_model)
    video = create_model(
        PICO, classes=5, fuser=fuser, num_layers=3, input_shape=(2, 32, 32, 3), patch_size=(2, 8, 8)
    )
    report = load(video, "keras_tokenlearner", image_model, embedding=embedding)
    assert not report.left and not report.unused
    assert report.resized["positions/table"] == "4x4 to 1x4x4, bilinear"
    images = pixels()
    clips = np.repeat(images[:, None], 2, 1)
    close(outputs(video, clips), outputs(image_model, images))


def test_video_model_with_image_weights_and_a_stem_equals_the_image_model_for_equal_frames():
    small = {"classes": 5, "num_layers": 2, "at": 1, "hidden_dim": 24}
    small["stem"] = ((8, 2), (8, 2))
    image_model = create_model("tokenlearner_nano4_8at2", **small)
    assign_weights(image_model)
    video = create_model(
        "tokenlearner_nano4_8at2", input_shape=(3, 28, 28, 1), patch_size=(1, 4, 4), **small
    )
    report = load(video, "keras_tokenlearner", image_model)
    assert not report.left and list(report.resized) == ["positions/table"]
    images = pixels((28, 28))[..., :1]
    close(outputs(video, np.repeat(images[:, None], 3, 1)), outputs(image_model, images))


def test_load_for_another_grid_and_classes_resizes_positions_and_resets_the_head():
    small = create_model(PICO, classes=5, input_shape=(16, 48, 3))
    assign_weights(small)
    large = create_model(PICO, classes=3, input_shape=(32, 96, 3))
    report = load(large, "keras_tokenlearner", small, head="reset")
    assert report.resized == {"positions/table": "2x6 to 4x12, bilinear"}
    assert report.reset == ("head/kernel", "head/bias")
    corners = [
        keras.ops.convert_to_numpy(model.get_layer("positions").table)[np.ix_([0, -1], [0, -1])]
        for model in (small, large)
    ]
    close(*corners)


STUDENT = {"token_attention": "mlp", "token_start": "grid", "proportional_attention": True}
VIDEO = {"patch_size": (2, 8, 8)}
LARGER = {
    "square": ((32, 32, 3), (64, 64, 3), {}),
    "rectangle": ((32, 32, 3), (64, 48, 3), {}),
    "video": ((4, 32, 32, 3), (6, 48, 64, 3), VIDEO),
    "space_time": ((4, 32, 32, 3), (6, 48, 64, 3), {**VIDEO, "over": "space_time"}),
    "fuser": ((32, 32, 3), (48, 64, 3), {"fuser": "token_fuser", "num_layers": 3}),
    # Proportional attention has a scalar weight in each block behind the TokenLearner.
    "prefix": ((32, 32, 3), (64, 48, 3), {"class_token": True, "register_tokens": 2}),
}


@pytest.mark.parametrize("form", LARGER)
@pytest.mark.parametrize(
    "route", ["load", "load_weights", "create_model", "preset", "named preset"]
)
def test_position_bias_is_resized_for_another_grid_by_every_loading_function(tmp_path, form, route):
    old, new, changes = LARGER[form]
    given = {**STUDENT, **changes}
    student = create_model(PICO, classes=5, input_shape=old, **given)
    assign_weights(student)
    for learner in student.token_learners:
        learner.parents = (0, 0, 1, 2)
    save_weights(student, tmp_path / "a.weights.h5")
    student.save_to_preset(tmp_path / "preset")
    if route == "preset":
        model = from_preset(tmp_path / "preset", input_shape=new)
    elif route in ("create_model", "named preset"):
        weights = tmp_path / ("a.weights.h5" if route == "create_model" else "preset")
        model = create_model(PICO, weights=weights, input_shape=new, **given)
    else:
        model = create_model(PICO, classes=5, input_shape=new, **given)
    if route == "load_weights":
        load_weights(model, tmp_path / "a.weights.h5")
    elif route == "load":
        report = load(model, "keras_tokenlearner", student)
        paths = [one.bias.path for one in model.token_learners]
        assert list(report.resized) == ["positions/table", *paths] and not report.left
    loaded = {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}
    for weight in student.weights:
        wanted = keras.ops.convert_to_numpy(weight)
        if weight.path.endswith(("/table", "/position_bias")):
            wanted = resize_positions(wanted, loaded[weight.path].shape[:-1])
        close(loaded[weight.path], wanted)
    assert {learner.parents for learner in model.token_learners} == {(0, 0, 1, 2)}


def test_position_bias_loaded_from_a_mapping_has_the_cell_tree_of_the_grid_in_the_mapping():
    given = {**STUDENT, "classes": 5, "num_tokens": 6}
    square, wide = (create_model(PICO, input_shape=(32, n, 3), **given) for n in (32, 48))
    trees = [model.token_learners[0].parents for model in (square, wide)]
    assert trees[0] != trees[1]
    load(wide, "keras_tokenlearner", {weight.path: weight for weight in square.weights})
    assert wide.token_learners[0].parents == trees[0]


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_position_bias_over_space_time_loaded_into_a_model_over_frames_raises(tmp_path):
    given = {**STUDENT, **VIDEO, "classes": 5, "input_shape": (4, 32, 32, 3)}
    volume, frames = (create_model(PICO, over=over, **given) for over in ("space_time", "frame"))
    save_weights(volume, tmp_path / "a.weights.h5")
    before = frames.get_weights()
    with pytest.raises(ValueError, match=r"token_learner/position_bias.*\(2, 4, 4, 4\)"):
        load(frames, "keras_tokenlearner", volume)
    with pytest.raises(ValueError, match=r"load_weights: .*a\.weights\.h5.*token_learner"):
        load_weights(frames, tmp_path / "a.weights.h5")
    for one, two in zip(before, frames.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_load_of_a_plain_vit_into_a_student_keeps_the_bias_of_proportional_attention():
    plain = create_model("vit_pico8", classes=5, class_token=True)
    student = create_model(PICO, classes=5, class_token=True, **STUDENT)
    for model in (plain, student):
        assign_weights(model)
    bias = student.get_layer("block_1").patch_bias
    before = float(keras.ops.convert_to_numpy(bias))
    report = load(student, "keras_tokenlearner", plain)
    assert "block_1/patch_bias" in report.left and report.added == ("token_learner",)
    assert keras.ops.convert_to_numpy(bias) == before


@pytest.mark.parametrize(
    "reducer", [STUDENT, {"reducer": "spatial_pooling", "num_tokens": 8}], ids=str
)
def test_load_of_weights_with_another_proportional_attention_setting_raises(reducer):
    """Attention counts the replaced patches in only one of the models: their outputs differ."""
    given = {**reducer, "classes": 5, "class_token": True}
    with_counts, without = (
        create_model(PICO, **{**given, "proportional_attention": is_on}) for is_on in (True, False)
    )
    for one, other in ((with_counts, without), (without, with_counts)):
        with pytest.raises(ValueError, match="proportional_attention"):
            load(one, "keras_tokenlearner", other)
        load(one, "keras_tokenlearner", one)


def test_weights_with_another_number_of_learned_tokens_raise(tmp_path):
    student, other = (create_model(PICO, classes=5, num_tokens=n, **STUDENT) for n in (4, 6))
    save_weights(student, tmp_path / "a.weights.h5")
    with pytest.raises(ValueError, match="token_learner/position_bias"):
        load(other, "keras_tokenlearner", student)
    with pytest.raises(ValueError, match=r"a\.weights\.h5"):
        load_weights(other, tmp_path / "a.weights.h5")


def test_load_with_head_reset_of_a_head_without_bias_resets_its_kernel():
    small, other = (create_model(PICO, classes=n, head_bias=False) for n in (5, 3))
    for model in (small, other):
        assign_weights(model)
    report = load(other, "keras_tokenlearner", small, head="reset")
    assert report.reset == ("head/kernel",)
    assert not np.any(other.head.get_weights()[0])  # the initial value
    np.testing.assert_array_equal(*(m.get_layer("norm").get_weights()[0] for m in (small, other)))


@pytest.mark.parametrize("kind", ["prelu", "lora"])
def test_load_with_head_reset_of_a_head_that_is_no_plain_dense_layer_raises(kind):
    model = create_model(PICO, classes=5)
    if kind == "lora":
        model.head.enable_lora(2)
    else:
        body = create_model(PICO, include_top=False, pooling="avg")
        model = keras.Model(body.input, keras.layers.PReLU(name="head")(body.output))
    before = model.get_weights()
    with pytest.raises(ValueError, match="head='reset'.*head/"):
        load(model, "keras_tokenlearner", create_model(PICO, classes=5), head="reset")
    for one, two in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_plan_of_weights_without_head_bias_has_head_bias_false_and_the_classes():
    model = create_model("vit_pico8", classes=5, head_bias=False)
    arrays = {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}
    for checkpoint in (model, arrays):
        plan = plan_of(checkpoint, "keras_tokenlearner")
        assert plan.classes == 5 and plan.fields["head_bias"] is False


def test_load_of_another_architecture_raises_and_keeps_the_weights():
    model, other = create_model(PICO, classes=5), create_model("vit_pico8", classes=5, num_layers=3)
    before = model.get_weights()
    with pytest.raises(ValueError, match="block_2/attention_norm/gamma"):
        load(model, "keras_tokenlearner", other)
    for one, two in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("source", [None, "keras_tokenlearner"])
def test_weights_h5_file_passed_as_a_checkpoint_raises_and_names_load_weights(tmp_path, source):
    model, path = create_model(PICO, classes=5), tmp_path / "a.weights.h5"
    save_weights(model, path)
    calls = (
        lambda: load(model, source, path),
        lambda: plan_of(path, source),
        lambda: from_preset(f"{source}:{path}" if source else path),
    )
    for call in calls:
        with pytest.raises(ValueError, match=rf"create_model\(.*load_weights\(.*source={source!r}"):
            call()


def test_plan_load_with_stated_pooling_num_heads_unlike_the_model_raises():
    model = create_model("vit_pico8", classes=5, head_reads="attention")
    arrays = {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}
    plan = plan_of(arrays, statement=Statement(fields={"pooling_num_heads": 4}))
    with pytest.raises(ValueError, match=r"pooling_num_heads.* 2.* 4"):
        plan.load(model)
    assert not plan_of(arrays).load(model).left


def with_own_head(model, layer, name="head"):
    """Return a model whose head reads the output of a layer of `model`."""
    head = keras.layers.Dense(5, name=name)
    return keras.Model(model.input, head(model.get_layer(layer).output))


@pytest.mark.parametrize("pool_prefix", [True, False])
@pytest.mark.parametrize("reads", ["average", "max", "attention"])
def test_load_into_a_custom_head_compares_pool_prefix_only_if_it_loads_the_head(reads, pool_prefix):
    given = {"classes": 5, "class_token": True, "head_reads": reads}
    teacher, other = (
        create_model("vit_pico8", pool_prefix=value, **given)
        for value in (pool_prefix, not pool_prefix)
    )
    assert not load(with_own_head(teacher, "pooling"), None, teacher).left
    with pytest.raises(ValueError, match="pool_prefix"):
        load(with_own_head(other, "pooling"), None, teacher)
    for name in ("head", "mine"):
        load(with_own_head(other, "pooling", name), None, teacher, head="drop")


@pytest.mark.parametrize("reads", ["average", "attention"])
def test_load_without_head_compares_pool_prefix_only_of_a_pooling_in_the_file(reads):
    given = {"class_token": True, "head_reads": reads}
    backbone = create_model("vit_pico8", include_top=False, pooling="head", **given)
    arrays = {weight.path: keras.ops.convert_to_numpy(weight) for weight in backbone.weights}
    plan = plan_of(arrays, statement=Statement(is_config=True))
    model = create_model("vit_pico8", classes=5, pool_prefix=True, **given)
    if reads == "average":
        assert plan.load(model).left == ("head/kernel", "head/bias")
    else:
        with pytest.raises(ValueError, match="pool_prefix is True"):
            plan.load(model)


def test_load_treats_an_unset_final_norm_epsilon_as_its_default_value():
    plain, stated = (
        create_model("vit_pico8", classes=5, final_norm_epsilon=e) for e in (None, 1e-6)
    )
    assert plain.config.layer_norm_epsilon == 1e-6
    for one, two in ((plain, stated), (stated, plain)):
        assert not load(one, None, two).left
        assert not load(with_own_head(one, "pooling"), None, two).left
    other = create_model("vit_pico8", classes=5, final_norm_epsilon=1e-5)
    with pytest.raises(ValueError, match="final_norm_epsilon is 1e-05.* 1e-06"):
        load(other, None, plain)


@pytest.mark.parametrize("pooling", ["avg", "max"])
@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("form", ["model", "arrays"])
def test_load_of_a_custom_head_into_a_custom_head_loads_all_weights(form, class_token, pooling):
    body = create_model("vit_pico8", class_token=class_token, include_top=False, pooling=pooling)
    assign_weights(body)
    one, other = (with_own_head(body, "pooling") for _ in range(2))
    assign_weights(one)
    arrays = {weight.path: keras.ops.convert_to_numpy(weight) for weight in one.weights}
    report = load(other, None, one if form == "model" else arrays)
    assert not report.left and not report.unused
    np.testing.assert_array_equal(*(m.get_layer("head").get_weights()[0] for m in (one, other)))


@pytest.mark.parametrize("wrong", ["bicubc", 3], ids=str)
def test_plan_of_a_model_with_an_unknown_position_resize_raises(wrong):
    model = create_model("vit_pico8", classes=5)
    model.position_resize = wrong
    for call in (lambda: plan_of(model), lambda: load(model, None, model)):
        with pytest.raises(ValueError, match=f"position_resize={wrong!r}"):
            call()


def test_plan_of_with_a_statement_of_an_unknown_position_resize_raises():
    arrays = {w.path: w for w in create_model("vit_pico8", classes=5).weights}
    with pytest.raises(ValueError, match="plan_of: .*position_resize='bicubc'"):
        plan_of(arrays, statement=Statement(resize="bicubc"))


def test_plan_of_a_torch_module_with_the_class_name_of_a_keras_hub_backbone_reads_its_entries():
    torch = pytest.importorskip("torch")

    class ViTBackbone(torch.nn.Module):
        def state_dict(self):
            return {w.path: torch.as_tensor(w.numpy()) for w in model.weights}

    model = create_model("vit_pico8", classes=5)
    assert plan_of(ViTBackbone()).classes == 5
