"""Files of weights: whole, damaged, truncated and of another model."""

import hashlib

import numpy as np
import pytest

from keras_tokenlearner import create_model
from keras_tokenlearner.weights import load_weights, save_weights

PICO = "tokenlearner_pico8_4at1"


@pytest.fixture
def saved(tmp_path):
    model = create_model(PICO, classes=10)
    path = tmp_path / "pico.weights.h5"
    digest = save_weights(model, path)
    return model, path, digest


def _refused(model, path, message, **arguments):
    """Check that loading fails with a message and leaves the model as it was."""
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        load_weights(model, path, **arguments)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_round_trip(saved):
    model, path, digest = saved
    other = create_model(PICO, classes=10)
    load_weights(other, path, expected_sha256=digest)
    for ours, theirs in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_file_of_a_compiled_model_holds_its_optimizer_too(tmp_path):
    model = create_model(PICO, classes=10, dropout_rate=0.1)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(np.zeros((2, 32, 32, 3)), np.zeros(2), verbose=0)
    save_weights(model, tmp_path / "pico.weights.h5")
    other = create_model(PICO, classes=10, dropout_rate=0.1)
    load_weights(other, tmp_path / "pico.weights.h5")
    for ours, theirs in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_hash_is_that_of_the_file(saved):
    _, path, digest = saved
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    beside = path.with_name(path.name + ".sha256")
    assert beside.read_text() == f"{digest}  {path.name}\n"


def test_damaged_bytes_are_found_by_the_hash(saved):
    model, path, _ = saved
    content = bytearray(path.read_bytes())
    content[-40_000:-30_000] = b"\x00" * 10_000
    path.write_bytes(content)
    _refused(model, path, "is damaged or was changed; fetch or save it again")


def test_values_that_are_not_finite_are_found_without_a_hash(saved, tmp_path):
    model, _, _ = saved
    broken = create_model(PICO, classes=10)
    weights = broken.get_weights()
    weights[3][...] = np.nan
    broken.set_weights(weights)
    path = tmp_path / "broken.weights.h5"
    broken.save_weights(path)
    _refused(model, path, "not finite, so it is damaged")


def test_truncated(saved):
    model, path, _ = saved
    path.with_name(path.name + ".sha256").unlink()
    path.write_bytes(path.read_bytes()[:20_000])
    _refused(model, path, "is damaged or no HDF5 file")


def test_not_hdf5(tmp_path):
    path = tmp_path / "text.weights.h5"
    path.write_text("not weights")
    _refused(create_model(PICO, classes=10), path, "is damaged or no HDF5 file")


def test_another_number_of_classes(saved):
    _, path, _ = saved
    model = create_model(PICO, classes=7)
    _refused(model, path, "saved with 10 classes, the model has 7; build it with classes=10")


def test_another_architecture(saved):
    _, path, _ = saved
    _refused(create_model("vit_pico8", classes=10), path, "different architectures")
    _refused(create_model(PICO, classes=10, num_tokens=3), path, "does not fit the model")


@pytest.mark.parametrize("name", ["model.keras", "weights.npz"])
def test_another_kind_of_file(name):
    with pytest.raises(ValueError, match="must end in '.weights.h5'"):
        load_weights(create_model(PICO), name)
