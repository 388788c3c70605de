"""The checks of `tests/conformance.py` fail on faulty layers."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tests import conformance
from tests.conformance import LayerCase


class Faulty(layers.Layer):
    """A dense layer that has one fault, or none."""

    def __init__(self, units=4, fault=None, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.fault = fault

    def build(self, inputs_shape):
        policy = None if self.fault == "precision" else self.dtype_policy
        self.inner = [layers.Dense(self.units, dtype=policy, name="dense")]
        if self.fault != "unbuilt":
            self.inner[0].build(inputs_shape)
        self.unread = self.add_weight(shape=(2,), trainable=self.fault == "unread", name="unread")
        self.draw = np.random.rand()

    def call(self, inputs):
        x = self.inner[0](inputs)
        if self.fault == "batch":
            x = x - ops.mean(x, axis=0, keepdims=True)
        if self.fault == "state":
            x = x + self.draw
        return x

    def compute_output_shape(self, inputs_shape):
        return (*inputs_shape[:-1], self.units + (self.fault == "shape"))

    def get_config(self):
        config = {**super().get_config(), "units": self.units, "fault": self.fault}
        if self.fault == "config":
            config.pop("units")
        return config


keras.saving.register_keras_serializable(package="tests")(Faulty)


def faulty(fault=None, name="faulty"):
    kwargs = {"units": 3, "fault": fault}
    return LayerCase(name, Faulty, kwargs, ((5, 8),), dynamic=((None, 8),), other=((6, 8),))


@pytest.mark.parametrize(
    "check", (*conformance.LAYER_CHECKS, *conformance.MODEL_CHECKS), ids=lambda f: f.__name__
)
def test_conformance_of_correct_layer_passes(check, monkeypatch, tmp_path):
    path = tmp_path / "outputs.npz"
    np.savez(path, faulty=conformance.sample_outputs(faulty()))
    monkeypatch.setattr(conformance, "OUTPUTS_FILE", path)
    assert check(faulty()) is None


@pytest.mark.parametrize(
    "check, fault",
    [
        (conformance.check_config, "config"),
        (conformance.check_build, "unbuilt"),
        (conformance.check_shapes, "shape"),
        (conformance.check_dynamic_shapes, "state"),
        (conformance.check_layer_precision, "precision"),
        (conformance.check_model_config, "config"),
        (conformance.check_batches, "batch"),
        (conformance.check_training_step, "unread"),
        (conformance.check_saving, "state"),
    ],
)
def test_conformance_of_faulty_layer_fails(check, fault):
    with pytest.raises(AssertionError):
        check(faulty(fault))


def test_precision_check_of_a_layer_that_stays_in_float32_fails():
    case = conformance.ModelCase(
        "float32",
        lambda: keras.Sequential([keras.Input((8,)), layers.Dense(2, dtype="float32")]),
    )
    with pytest.raises(AssertionError, match="float32"):
        conformance.check_precision(case)


def test_agreement_check_of_different_or_missing_numbers_fails(monkeypatch, tmp_path):
    path = tmp_path / "outputs.npz"
    np.savez(path, faulty=conformance.sample_outputs(faulty()) + 1e-4)
    monkeypatch.setattr(conformance, "OUTPUTS_FILE", path)
    with pytest.raises(AssertionError, match="Mismatched"):
        conformance.check_backends_agree(faulty())
    with pytest.raises(AssertionError, match="--write"):
        conformance.check_backends_agree(faulty(name="another"))


def test_dynamic_shape_check_of_a_layer_without_the_required_error_fails():
    case = LayerCase("lax", Faulty, {}, ((5, 8),), dynamic=((None, 8),))
    with pytest.raises(pytest.fail.Exception):
        conformance.check_dynamic_shapes(case)
