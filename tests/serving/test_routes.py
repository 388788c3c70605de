"""The same image files give the same answers by every interface of the package."""

import json

import keras
import numpy as np
import pytest

pillow = pytest.importorskip("PIL.Image", reason="writes and reads the image files")

from keras_tokenlearner import create_model, export  # noqa: E402
from keras_tokenlearner.applications import CATALOG  # noqa: E402
from keras_tokenlearner.data import (  # noqa: E402
    FileImages,
    ImageBatches,
    decode_image,
    open_named,
    preprocess_image,
)
from keras_tokenlearner.evaluation import evaluate, top_k_accuracy  # noqa: E402
from keras_tokenlearner.models import Preprocessing, VisionTransformer  # noqa: E402
from keras_tokenlearner.serving import predict  # noqa: E402
from keras_tokenlearner.serving.served_model import ServedModel  # noqa: E402
from tests.data.odd_images import ODD  # noqa: E402
from tests.serving.answers import b64  # noqa: E402


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    for name, (content, _) in ODD.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in ODD]


@pytest.fixture(scope="module")
def model():
    """A model whose outputs differ strongly between images."""
    keras.utils.set_random_seed(0)
    made = create_model("tokenlearner_pico8_4at1", classes=10)
    random = np.random.default_rng(0)
    made.set_weights([random.normal(0, 0.2, w.shape) for w in made.get_weights()])
    return made


def trained_on(model, files):
    """Return the outputs of a model for the pixels that training and evaluation read."""
    images = FileImages(files, [0] * len(files), ["any"])
    batches = ImageBatches(images, model.input_shape[1:], 8, training=False)
    answers = model.predict(batches, verbose=0)
    assert np.abs(answers - answers[:1]).max(1).min(initial=1, where=np.arange(len(files)) > 0) > 0
    return answers


def in_order(found, classes=10):
    """Return the probabilities of `predict` by class."""
    rows = [{row["class"]: row["probability"] for row in one["classes"]} for one in found]
    return np.array([[row[label] for label in range(classes)] for row in rows])


def test_predict_uses_the_preprocessing_of_training(model, files, tmp_path):
    model.save(tmp_path / "model.keras")
    found = predict(tmp_path / "model.keras", files, top_k=10)
    np.testing.assert_allclose(in_order(found), trained_on(model, files), atol=1e-6)


def test_server_uses_the_preprocessing_of_training(served, files):
    model, server = served
    status, answer = server.v1({"instances": [b64(file.read_bytes()) for file in files]})
    assert status == 200, answer
    found = [row["probabilities"] for row in answer["predictions"]]
    np.testing.assert_allclose(found, trained_on(model, files), atol=1e-5)


@pytest.mark.skipif(
    keras.backend.backend() == "torch",
    reason="only on tensorflow and jax: torch exports in another process",
)
def test_exported_model_uses_the_preprocessing_of_training(model, files, tmp_path):
    tf = pytest.importorskip("tensorflow", reason="SavedModels are TensorFlow's")
    folder = export(model, tmp_path / "model", check=False).path
    right = trained_on(model, files)
    found = in_order(predict(folder, files, top_k=10))
    # TensorFlow resizes in float32, Pillow to integers.
    np.testing.assert_allclose(found, right, atol=3e-3)
    loaded = tf.saved_model.load(str(folder))  # a signature does not keep its variables alive
    answer = loaded.pixels(
        ImageBatches(FileImages(files[:3], [0] * 3, ["any"]), (32, 32, 3), 3, training=False)[0][0]
    )
    np.testing.assert_allclose(answer["probabilities"], right[:3], atol=1e-5)
    assert json.loads((folder / "assets.extra/keras_tokenlearner.json").read_text())


RULE = Preprocessing(resize_mode="shortest", interpolation="bicubic", crop_fraction=0.8)


@pytest.fixture(scope="module")
def published():
    """A model with the resizing method of its checkpoint."""
    keras.utils.set_random_seed(0)
    config = CATALOG["tokenlearner_pico8_4at1"].config
    made = VisionTransformer(config, input_shape=(32, 32, 3), classes=10, preprocessing=RULE)
    random = np.random.default_rng(0)
    made.set_weights([random.normal(0, 0.2, w.shape) for w in made.get_weights()])
    return made


def test_checkpoint_preprocessing_is_applied_by_predict_export_and_server(
    published, files, tmp_path
):
    pixels = [preprocess_image(decode_image(file), (32, 32, 3), RULE) for file in files]
    right = published.predict(np.stack(pixels).astype("float32"), verbose=0)
    assert np.abs(right - trained_on(published, files)).max() > 0.01  # the resize matters
    published.save(tmp_path / "model.keras")
    found = predict(tmp_path / "model.keras", files, top_k=10)
    np.testing.assert_allclose(in_order(found), right, atol=1e-5)
    pytest.importorskip("tensorflow", reason="SavedModels are TensorFlow's")
    folder = export(published, tmp_path / "served", check=False).path
    found = in_order(predict(folder, files, top_k=10))
    np.testing.assert_allclose(found, right, atol=2e-2)  # TensorFlow resizes in one pass
    served = ServedModel(folder)
    rows = [{"encoded": np.array(file.read_bytes(), object)} for file in files]
    _, rows = served.decode("encoded", rows)
    np.testing.assert_array_equal([row["pixels"] for row in rows], np.stack(pixels))


def test_evaluate_applies_the_preprocessing_of_the_checkpoint(published, tmp_path):
    random = np.random.default_rng(1)
    for split in ("train", "test"):
        for name in map(str, range(10)):
            (tmp_path / split / name).mkdir(parents=True)
            noise = random.integers(0, 256, (48, 70, 3)).astype("uint8")
            pillow.fromarray(noise).save(tmp_path / split / name / "0.png")
    _, test = open_named(tmp_path)
    fitted = np.stack([preprocess_image(image, (32, 32, 3), RULE) for image, _ in test])
    scores = published.predict(fitted.astype("float32"), verbose=0)
    (row,) = evaluate(published, [str(tmp_path)], ["top5"])
    assert row["top5"] == top_k_accuracy(test.labels, scores, k=5)
