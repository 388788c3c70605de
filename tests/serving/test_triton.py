"""The exported model behind NVIDIA Triton. PyTriton includes the C++ server.

These tests run in a separate environment: docs/serving.md has the commands.
"""

import concurrent.futures
import io
import socket

import keras
import numpy as np
import pytest

from keras_tokenlearner import create_model, export

tf = pytest.importorskip("tensorflow", reason="SavedModels are TensorFlow's")
pytest.importorskip("pytriton", reason="Triton's server comes with nvidia-pytriton")
pillow = pytest.importorskip("PIL.Image", reason="writes the image files")

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = create_model("tokenlearner_pico8_4at1", classes=5)
    model.set_weights([RANDOM.normal(0, 0.2, w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def ports(model, tmp_path_factory):
    """Ports of a Triton server that serves each signature as a model of the same name."""
    from pytriton.triton import Triton, TritonConfig

    path = export(model, tmp_path_factory.mktemp("triton"), class_names=list("abcde")).path
    served = tf.saved_model.load(str(path))
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        sockets = (one, two, three)
        for found in sockets:
            found.bind(("127.0.0.1", 0))
        http, grpc, metrics = (found.getsockname()[1] for found in sockets)
    addresses = {f"{kind}_address": "127.0.0.1" for kind in ("http", "grpc", "metrics")}
    config = TritonConfig(http_port=http, grpc_port=grpc, metrics_port=metrics, **addresses)
    with Triton(config=config) as triton:
        for name in ("encoded", "images"):
            bind(triton, name, served.signatures[name])
        triton.run()
        yield {"http": http, "grpc": grpc}


def bind(triton, name, signature):
    from pytriton.decorators import batch
    from pytriton.model_config import ModelConfig

    (spec,) = signature.structured_input_signature[1].values()

    @batch
    def answer(**inputs):
        value = inputs[spec.name]
        value = value[:, 0] if spec.shape.rank == 1 else value  # Triton has no scalars
        found = signature(**{spec.name: tf.constant(value)})
        return {key: value.numpy() for key, value in found.items()}

    outputs = [tensor(key, spec) for key, spec in signature.structured_outputs.items()]
    config = ModelConfig(max_batch_size=16)
    triton.bind(name, answer, [tensor(spec.name, spec)], outputs, config=config)


def tensor(name, spec):
    from pytriton.model_config import Tensor

    shape = tuple(-1 if size is None else size for size in spec.shape[1:])
    kind = bytes if spec.dtype == tf.string else spec.dtype.as_numpy_dtype
    return Tensor(name=name, shape=shape or (1,), dtype=kind)


def ask(ports, protocol, name, value):
    from pytriton.client import ModelClient

    with ModelClient(f"{protocol}://127.0.0.1:{ports[protocol]}", name) as client:
        return client.infer_batch(value)


def check(model, answer, images):
    right = model.predict(images.astype("float32"), verbose=0)
    np.testing.assert_allclose(answer["probabilities"], right, atol=1e-5)
    labels = [b"abcde"[k : k + 1] for k in right.argmax(1)]
    assert answer["top_class_names"][:, 0].tolist() == labels


def jpeg(pixels):
    stream = io.BytesIO()
    pillow.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue(), np.asarray(pillow.open(stream))


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_triton_jpegs_get_the_predictions_of_the_model(model, ports, protocol):
    files = [jpeg(pixels) for pixels in RANDOM.integers(0, 256, (3, 32, 32, 3)).astype("uint8")]
    contents = np.array([[content] for content, _ in files], object)
    answer = ask(ports, protocol, "encoded", contents)
    check(model, answer, np.stack([decoded for _, decoded in files]))


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_triton_pixels_get_the_predictions_of_the_model(model, ports, protocol):
    images = RANDOM.integers(0, 256, (2, 32, 32, 3)).astype("uint8")
    check(model, ask(ports, protocol, "images", images), images)


def test_triton_simultaneous_clients_get_their_own_predictions(model, ports):
    images = RANDOM.integers(0, 256, (16, 1, 32, 32, 3)).astype("uint8")
    with concurrent.futures.ThreadPoolExecutor(8) as clients:
        answers = clients.map(lambda image: ask(ports, "http", "images", image), images)
        for image, answer in zip(images, answers, strict=True):
            check(model, answer, image)


def test_triton_text_instead_of_an_image_gets_an_error(model, ports):
    from pytriton.client.exceptions import PyTritonClientInferenceServerError

    with pytest.raises(PyTritonClientInferenceServerError, match="Unknown image file format"):
        ask(ports, "http", "encoded", np.array([[b"a text"]], object))
    test_triton_pixels_get_the_predictions_of_the_model(model, ports, "http")
