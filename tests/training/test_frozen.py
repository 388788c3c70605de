"""Frozen layers stay frozen after saving and loading, and the optimizer keeps its state."""

import keras
import numpy as np
import pytest

from keras_tokenlearner import create_model
from keras_tokenlearner.layers.composite import set_trainable_flags, trainable_flags
from keras_tokenlearner.models import retrofit

IMAGES = np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 3)).astype("float32")
LABELS = np.arange(4) % 3
SHAPE = {"input_shape": (16, 16, 3)}


def _freeze_all(base):
    base.trainable = False


def _freeze_blocks(base):
    for layer in base.layers:
        layer.trainable = layer.name in ("block_1", "norm")


def _freeze_parts(base):
    base.get_layer("block_0").mlp.trainable = False
    base.get_layer("block_1").self_attention.trainable = False
    base.get_layer("token_learner").norm.trainable = False


def _thaw_a_part(base):
    for layer in base.layers:
        layer.trainable = False
    base.get_layer("block_1").trainable = True
    base.get_layer("block_1").mlp.hidden.trainable = False


def _paths(model):
    return [v.path.removeprefix(f"{model.name}/") for v in model.trainable_variables]


@pytest.mark.parametrize("freeze", [_freeze_all, _freeze_blocks, _freeze_parts, _thaw_a_part])
def test_frozen_backbone_loaded_from_a_file_keeps_its_trainable_variables(freeze, tmp_path):
    base = create_model("tokenlearner_pico8_4at1", include_top=False, pooling="avg", **SHAPE)
    whole = len(base.trainable_variables)
    freeze(base)
    model = keras.Sequential([base, keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss, jit_compile=False)
    model.fit(IMAGES, LABELS, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert _paths(loaded) == _paths(model)
    assert len(_paths(loaded)) == 2 if freeze is _freeze_all else 2 < len(_paths(loaded)) < whole
    found, expected = loaded.optimizer.variables, model.optimizer.variables
    assert [v.shape for v in found] == [v.shape for v in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(v) for v in (one, other)))
    before = {v.path: keras.ops.convert_to_numpy(v).copy() for v in loaded.variables}
    loaded.fit(IMAGES, LABELS, verbose=0)
    for variable in loaded.layers[0].variables:
        if variable.path not in _paths(loaded) and "seed" not in variable.path:
            after = keras.ops.convert_to_numpy(variable)
            np.testing.assert_array_equal(after, before[variable.path], err_msg=variable.path)


def test_student_of_a_frozen_teacher_is_trainable():
    teacher = create_model("vit_pico8", classes=3, **SHAPE)
    expected = len(retrofit(teacher, at=1, num_tokens=2).trainable_variables)
    teacher.trainable = False
    student = retrofit(teacher, at=1, num_tokens=2)
    assert len(student.trainable_variables) == expected
    assert trainable_flags(student) == {}
    assert not teacher.trainable_variables


def test_set_trainable_flags_of_an_unknown_layer_has_no_effect():
    """Files of earlier versions list parts whose names differ after loading: `softmax_12`."""
    model = create_model("vit_pico8", classes=3, **SHAPE)
    set_trainable_flags(model, {"block_0/mlp": False, "block_0/self_attention/softmax_99": False})
    assert trainable_flags(model) == {"block_0/mlp": False}
