import dataclasses

import h5py
import keras
import numpy as np
import pytest

from keras_tokenlearner import create_model
from keras_tokenlearner.weights import store
from keras_tokenlearner.weights.int8 import from_int8, to_int8
from keras_tokenlearner.weights.saving import sha256

pytestmark = pytest.mark.once("torch")


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Return a model with large kernels, its float32 file and its int8 file."""
    folder = tmp_path_factory.mktemp("int8")
    model = create_model("vit_pico8", classes=10, hidden_dim=256, num_layers=1)
    kernel = model.get_layer("block_0").mlp.hidden.kernel
    values = keras.ops.convert_to_numpy(kernel).copy()
    values[:, 3] = 0  # a channel of zeros
    kernel.assign(values)
    model.save_weights(folder / "a.weights.h5")
    to_int8(folder / "a.weights.h5", folder / "a.int8.h5")
    return model, folder / "a.weights.h5", folder / "a.int8.h5"


def loaded(path, row, monkeypatch):
    """Return a new model with the weights of a file, as `create_model` loads included weights."""
    monkeypatch.setattr(store, "fetch", lambda uri, digest: path)
    other = create_model("vit_pico8", classes=10, hidden_dim=256, num_layers=1)
    store.load_stored(other, row)
    return other


def row_of(path):
    row = next(iter(store.STORE.values()))
    return dataclasses.replace(row, sha256=sha256(path))


def test_int8_file_is_smaller_than_a_third_of_the_float32_file(wide):
    _, floats, integers = wide
    assert integers.stat().st_size < floats.stat().st_size / 3
    with h5py.File(integers) as file:
        kinds = []
        file.visititems(lambda _, item: kinds.append(getattr(item, "dtype", None)))
    assert {str(kind) for kind in kinds if kind is not None} >= {"int8", "float32"}


def test_int8_weights_are_within_half_a_step_of_the_originals(wide, tmp_path, monkeypatch):
    model, _, integers = wide
    other = loaded(integers, row_of(integers), monkeypatch)
    changed = 0
    for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
        if one.size < 1 << 16 or one.ndim < 2:
            np.testing.assert_array_equal(one, two)
            continue
        step = np.abs(one).max(axis=tuple(range(one.ndim - 1))) / 127
        assert (np.abs(one - two) <= 0.501 * step + 1e-12).all()
        changed += not np.array_equal(one, two)
    assert changed == 6  # four projections of the attention, two kernels of the MLP


def test_int8_weights_converted_to_float32_and_back_are_equal(wide, tmp_path):
    _, _, integers = wide
    from_int8(integers, tmp_path / "b.weights.h5")
    to_int8(tmp_path / "b.weights.h5", tmp_path / "b.int8.h5")
    from_int8(tmp_path / "b.int8.h5", tmp_path / "c.weights.h5")
    with h5py.File(tmp_path / "b.weights.h5") as one, h5py.File(tmp_path / "c.weights.h5") as two:

        def same(name, item):
            if isinstance(item, h5py.Dataset):
                np.testing.assert_allclose(item[()], two[name][()], rtol=1e-6)

        one.visititems(same)


def test_int8_file_with_a_wrong_hash_raises(wide, monkeypatch):
    _, _, integers = wide
    row = dataclasses.replace(row_of(integers), sha256="0" * 64)
    with pytest.raises(ValueError, match=rf"{integers.name}.*{'0' * 64}"):
        loaded(integers, row, monkeypatch)
