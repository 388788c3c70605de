"""The included weights: complete, and with the same outputs on every backend.

`tests/data/shipped_outputs.npz` holds outputs of one backend for the first images of the
Fashion-MNIST sample. Images are converted to colour and resized if the weights need it. The
command `KERAS_BACKEND=tensorflow python -m tests.weights.test_store` wrote the file.
"""

from pathlib import Path

import numpy as np
import pytest

from keras_tokenlearner import create_model, list_models
from keras_tokenlearner.data import load_fashion_mnist
from keras_tokenlearner.data.resizing import fit_image
from keras_tokenlearner.weights import STORE
from keras_tokenlearner.weights.saving import sha256
from keras_tokenlearner.weights.store import fetch

OUTPUTS_FILE = Path(__file__).parents[1] / "data" / "shipped_outputs.npz"
ROWS = list(STORE.items())


def outputs(model, name):
    images = load_fashion_mnist()[1][0][:24]
    built = create_model(model, weights=name)
    assert built.input_shape[1:] == STORE[model, name].input_shape
    fitted = [fit_image(image, built.input_shape[1:]) for image in images]
    return built.predict(np.stack(fitted).astype("float32"), verbose=0)


@pytest.mark.once("torch")
@pytest.mark.parametrize(("key", "row"), ROWS, ids=lambda value: str(value)[:60])
def test_included_weights_match_their_row_in_the_table(key, row):
    path = fetch(row.uri, row.sha256)
    assert key[0] == row.model and row.model in list_models(weights=True)
    assert sha256(path) == row.sha256
    assert path.stat().st_size == row.size <= 25e6
    assert len(row.class_names) == row.classes
    assert row.licence and row.metric and row.command


@pytest.mark.parametrize("key", [key for key, _ in ROWS], ids="-".join)
def test_included_weights_give_the_same_outputs_on_every_backend(key):
    with np.load(OUTPUTS_FILE) as file:
        np.testing.assert_allclose(outputs(*key), file["-".join(key)], atol=1e-5)


def test_included_weights_with_other_classes_get_a_new_head():
    with pytest.warns(UserWarning, match="fashion_mnist.* 10 .* 5 "):
        model = create_model("tokenlearner_nano4_8at2", weights="fashion_mnist", classes=5)
    body = create_model("tokenlearner_nano4_8at2", weights="fashion_mnist")
    assert model.output_shape == (None, 5) and model.class_names is None
    for one, other in zip(model.get_weights()[:-2], body.get_weights()[:-2], strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.any(model.head.get_weights()[0])


@pytest.mark.once("torch")
def test_included_weights_with_other_class_names_get_a_new_head():
    name = "tokenlearner_nano4_8at2"
    names = [*STORE[name, "cifar10"].class_names]
    with pytest.raises(ValueError, match="create_model.*`class_names`.*'cifar10'"):
        create_model(name, weights="cifar10", class_names=names[::-1])
    for classes in (None, 10):
        with pytest.raises(ValueError, match="create_model.*`class_names`.* 10 names.* 9 names"):
            create_model(name, weights="cifar10", class_names=names[:0:-1], classes=classes)
    with pytest.warns(UserWarning, match="cifar10.* 10 .* differ"):
        model = create_model(name, weights="cifar10", classes=10, class_names=names[::-1])
    assert model.class_names == (*names[::-1],) and not np.any(model.head.get_weights()[0])


def test_included_weights_without_top_accept_any_image_size():
    model = create_model(
        "tokenlearner_nano4_8at2",
        weights="fashion_mnist",
        include_top=False,
        input_shape=(40, 36, 1),
    )
    assert model.output_shape == (None, 8, 96)
    assert np.isfinite(model.predict(np.zeros((1, 40, 36, 1)), verbose=0)).all()


if __name__ == "__main__":
    np.savez_compressed(OUTPUTS_FILE, **{"-".join(key): outputs(*key) for key, _ in ROWS})
