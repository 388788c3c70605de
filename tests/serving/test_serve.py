"""The real server, asked over the loopback: right answers, and a reason where there is none."""

import base64
import concurrent.futures
import io
import json
import re
import socket
import struct
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from keras_tokenlearner import create_model, export
from keras_tokenlearner.data import resizing
from keras_tokenlearner.serving import serve
from keras_tokenlearner.serving.served_model import ServedModel
from tests.serving.server import serving

tf = pytest.importorskip("tensorflow", reason="SavedModels are TensorFlow's")
pytest.importorskip("kserve", reason="the server is KServe")
pillow = pytest.importorskip("PIL.Image", reason="writes the image files")

LABELS = [f"class {index}" for index in range(10)]
RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (40, 60, 3)).astype("uint8")


def encode(pixels, kind="JPEG"):
    stream = io.BytesIO()
    pillow.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def b64(content):
    return {"b64": base64.b64encode(content).decode()}


JPEG = encode(PIXELS)
BOMB = encode(np.zeros((10_000, 10_000), "uint8"), "PNG")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A model with random weights, and the server of what it was exported to."""
    folder = tmp_path_factory.mktemp("serve")
    keras.utils.set_random_seed(0)
    model = create_model("tokenlearner_pico8_4at1", classes=10)
    random = np.random.default_rng(0)
    model.set_weights([random.normal(0, 0.2, w.shape) for w in model.get_weights()])
    export(model, folder / "pico", labels=LABELS, top_k=3)
    with serving(folder / "pico", folder / "log.txt") as server:
        yield model, server


def expected(model, content):
    pixels = np.asarray(pillow.open(io.BytesIO(content)).convert("RGB"), "float32")
    fitted = keras.ops.convert_to_numpy(resizing(32, 32)(pixels[None]))
    return model.predict(fitted, verbose=0)[0]


def check(model, row, content=JPEG):
    right = expected(model, content)
    # Antialiased resizing differs a little between backends.
    np.testing.assert_allclose(row["probabilities"], right, atol=1e-3)
    assert row["top_classes"][0] == np.argmax(row["probabilities"])
    assert row["top_labels"] == [LABELS[k] for k in row["top_classes"]]


def tensors(answer):
    return {found["name"]: np.reshape(found["data"], found["shape"]) for found in answer["outputs"]}


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [b64(JPEG)]},
        {"instances": [{"encoded": b64(JPEG)}]},
        {"instances": [b64(JPEG)], "signature_name": "encoded"},
    ],
)
def test_v1_encoded(served, body):
    model, server = served
    status, answer = server.v1(body)
    assert status == 200
    check(model, answer["predictions"][0])


def test_v1_without_a_content_type_that_says_json(served):
    model, server = served
    body = json.dumps({"instances": [b64(JPEG)]}).encode()
    status, answer = server.v1(body)  # urllib says form data, as curl does
    assert status == 200
    check(model, answer["predictions"][0])


def test_v1_pixels_of_two_sizes(served):
    model, server = served
    images = [PIXELS[:2, :3], PIXELS]
    body = {"signature_name": "images", "instances": [image.tolist() for image in images]}
    status, answer = server.v1(body)
    assert status == 200
    for image, row in zip(images, answer["predictions"], strict=True):
        check(model, row, encode(image, "PNG"))


def test_v1_one_output_has_no_name(served):
    model, server = served
    pixels = RANDOM.uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    status, answer = server.v1({"signature_name": "serve", "instances": pixels.tolist()})
    assert status == 200
    right = model.predict(pixels, verbose=0)
    np.testing.assert_allclose(answer["predictions"], right, atol=1e-5)


def test_v1_status(served):
    _, server = served
    assert server.ask("/v1/models/pico") == (200, {"name": "pico", "ready": True})
    assert server.ask("/v1/models/tulip")[0] == 404


def test_v2_metadata(served):
    _, server = served
    status, answer = server.ask("/v2/models/pico")
    assert status == 200
    assert {"name": "encoded", "datatype": "BYTES", "shape": [-1]} in answer["inputs"]
    assert {"name": "images", "datatype": "UINT8", "shape": [-1, -1, -1, 3]} in answer["inputs"]
    assert {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]} in answer["outputs"]


def test_v2_base64_in_json(served):
    model, server = served
    field = {"name": "encoded", "shape": [2], "datatype": "BYTES"}
    status, answer = server.v2({"id": "7", "inputs": [field | {"data": [b64(JPEG)["b64"]] * 2}]})
    assert (status, answer["id"]) == (200, "7")
    found = tensors(answer)
    for row in range(2):
        check(model, {name: column[row].tolist() for name, column in found.items()})


def test_v2_flat_pixels_and_one_of_the_outputs(served):
    model, server = served
    field = {"name": "images", "shape": [1, 40, 60, 3], "datatype": "UINT8"}
    body = {"inputs": [field | {"data": PIXELS.ravel().tolist()}]}
    status, answer = server.v2(body | {"outputs": [{"name": "probabilities"}]})
    assert status == 200 and list(tensors(answer)) == ["probabilities"]
    right = expected(model, encode(PIXELS, "PNG"))
    np.testing.assert_allclose(tensors(answer)["probabilities"][0], right, atol=1e-3)


def binary(name, shape, datatype, content):
    field = {"name": name, "shape": shape, "datatype": datatype}
    field["parameters"] = {"binary_data_size": len(content)}
    head = json.dumps({"inputs": [field]}).encode()
    headers = {"Content-Type": "application/octet-stream"}
    return head + content, headers | {"Inference-Header-Content-Length": str(len(head))}


def test_v2_binary_tensors(served):
    model, server = served
    body, headers = binary("encoded", [1], "BYTES", struct.pack("<I", len(JPEG)) + JPEG)
    status, answer = server.v2(body, **headers)
    assert status == 200
    check(model, {name: column[0].tolist() for name, column in tensors(answer).items()})
    body, headers = binary("images", [1, 40, 60, 3], "UINT8", PIXELS.tobytes())
    assert server.v2(body, **headers)[0] == 200


@pytest.fixture(scope="module")
def ask_grpc(served):
    """A function from (inputs, raw contents) of a gRPC request to arrays or an error."""
    import grpc
    from kserve import InferResponse
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
    from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as protocol

    server = served[1]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub = protocol.GRPCInferenceServiceStub(channel)

        def ask(inputs, raw=()):
            request = messages.ModelInferRequest(
                model_name=server.name, inputs=inputs, raw_input_contents=raw
            )
            answer = InferResponse.from_grpc(stub.ModelInfer(request, timeout=60))
            return {found.name: found.as_numpy() for found in answer.outputs}

        yield ask


def test_grpc(served, ask_grpc):
    model, _ = served
    field = {"name": "encoded", "shape": [1], "datatype": "BYTES"}
    typed = ask_grpc([field | {"contents": {"bytes_contents": [JPEG]}}])
    raw = ask_grpc([field], [struct.pack("<I", len(JPEG)) + JPEG])
    for found in (typed, raw):
        row = {name: column[0].tolist() for name, column in found.items()}
        check(model, row | {"top_labels": [label.decode() for label in row["top_labels"]]})


def test_grpc_pixels(served, ask_grpc):
    model, _ = served
    field = {"name": "images", "shape": [1, 40, 60, 3], "datatype": "UINT8"}
    found = ask_grpc([field], [PIXELS.tobytes()])
    right = expected(model, encode(PIXELS, "PNG"))
    np.testing.assert_allclose(found["probabilities"][0], right, atol=1e-3)


def test_grpc_refuses(ask_grpc):
    import grpc

    field = {"name": "encoded", "shape": [1], "datatype": "BYTES"}
    for content, reason in ((b"text", "an image must be one of"), (BOMB, "100000000")):
        with pytest.raises(grpc.RpcError, match=reason) as caught:
            ask_grpc([field | {"contents": {"bytes_contents": [content]}}])
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


FLOATS = np.zeros((32, 32, 3)).tolist()
NAN = json.dumps({"signature_name": "serve", "instances": [[[[float("nan")] * 3] * 32] * 32]})
BAD_V1 = {
    "no rows": ({"instances": []}, "1 to 256 rows"),
    "no instances": ({}, "instances"),
    "no JSON": (b"{", "JSON"),
    "deep JSON": (b"[" * 100_000, "JSON"),
    "no image": ({"instances": [b64(b"a text")]}, "an image must be one of JPEG"),
    "no bytes": ({"instances": [b64(b"")]}, "got 0 bytes"),
    "truncated": ({"instances": [b64(JPEG[: len(JPEG) // 2])]}, "cannot be decoded: jpeg"),
    "bomb": ({"instances": [b64(BOMB)]}, "at most 32000000 pixels.*got 100000000"),
    "no base64": ({"instances": [{"b64": "%"}]}, "base64"),
    "text": ({"instances": ["flower.jpg"]}, "b64"),
    "many": ({"instances": [b64(JPEG)] * 257}, "1 to 256 rows; got 257"),
    "large": (b" " * (64 * 2**20 + 1), "at most 67108864 bytes"),
    "signature": ({"instances": [b64(JPEG)], "signature_name": "x"}, "one of .*'images'.*got 'x'"),
    "other input": ({"instances": [{"image": b64(JPEG)}]}, "takes \\['encoded'\\]"),
    "fractions": ({"signature_name": "images", "instances": [[[[0.5] * 3]]]}, "integers from 0"),
    "range": ({"signature_name": "images", "instances": [[[[256] * 3]]]}, "integers from 0 to 255"),
    "rank": ({"signature_name": "images", "instances": [[[1, 2, 3]]]}, "must have shape"),
    "ragged": ({"signature_name": "images", "instances": [[[[1] * 3], []]]}, "equal length"),
    "no pixels": ({"signature_name": "images", "instances": [[]]}, "must have shape"),
    "size": (
        {"signature_name": "serve", "instances": [FLOATS[:9]]},
        "\\(32, 32, 3\\).*\\(9, 32, 3\\)",
    ),
    "words": ({"signature_name": "serve", "instances": [[[["a"] * 3] * 32] * 32]}, "finite"),
    "infinite": ({"signature_name": "serve", "instances": [[[[1e99] * 3] * 32] * 32]}, "finite"),
    "NaN": (NAN.encode(), "finite|JSON"),
}


@pytest.mark.parametrize("case", BAD_V1)
def test_v1_refuses(served, case):
    model, server = served
    body, reason = BAD_V1[case]
    status, answer = server.v1(body)
    assert 400 <= status < 500
    assert re.search(reason, answer["error"]), answer
    check(model, server.v1({"instances": [b64(JPEG)]})[1]["predictions"][0])


def field(**changes):
    pixels = {"name": "images", "shape": [1, 1, 1, 3], "datatype": "UINT8", "data": [1, 2, 3]}
    return {"inputs": [pixels | changes]}


BAD_V2 = {
    "no inputs": ({"inputs": []}, "must have inputs"),
    "input": (field(name="x"), "got \\['x'\\]"),
    "datatype": (field(datatype="FP32"), "datatype UINT8; got FP32"),
    "shape": (field(shape=[1, 2, 1, 3]), "does not fit its shape"),
    "fractions": (field(data=[1, 2, 3.5]), "integers from 0 to 255"),
    "range": (field(data=[1, 2, -1]), "integers from 0 to 255"),
    "no rows": (field(shape=[0, 1, 1, 3], data=[]), "rows|shape"),
    "no shape": ({"inputs": [{"name": "images"}]}, "Field required"),
    "signature": (field() | {"parameters": {"signature_name": "x"}}, "one of .*got 'x'"),
    "no image": (field(name="encoded", shape=[1], datatype="BYTES", data=["YQ=="]), "must be one"),
    "no lengths": (binary("encoded", [1], "BYTES", b"abcdefg"), "does not fit its shape"),
    "no header": ((b"{}", {"Content-Type": "application/octet-stream"}), "cannot be read"),
}


@pytest.mark.parametrize("case", BAD_V2)
def test_v2_refuses(served, case):
    _, server = served
    body, reason = BAD_V2[case]
    status, answer = server.v2(body[0], **body[1]) if isinstance(body, tuple) else server.v2(body)
    assert status == 400
    assert re.search(reason, answer["error"]), answer


def test_bad_requests_among_good_ones(served):
    """Many clients at once: right answers are right, and the bombs are never decoded."""
    model, server = served
    images = [RANDOM.integers(0, 256, (32, 32, 3)).astype("uint8") for _ in range(8)]
    good = [encode(image, "PNG") for image in images]
    right = [expected(model, content) for content in good]
    peak = server.peak_memory()
    contents = [*good, BOMB, JPEG[:400], b"text"] * 6
    with concurrent.futures.ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(lambda one: server.v1({"instances": [b64(one)]}), contents))
    for place, (status, answer) in enumerate(answers):
        if place % 11 < 8:
            found = answer["predictions"][0]["probabilities"]
            np.testing.assert_allclose(found, right[place % 11], atol=1e-5)
        else:
            assert (status, list(answer)) == (400, ["error"])
    if peak is not None:  # a decoded bomb would be 1.2 GB of floats
        assert server.peak_memory() - peak < 300


def test_clients_do_not_stop_it(served):
    _, server = served
    assert server.ask("/v2/repository/models/pico/unload", {})[0] == 404
    assert server.ask("/v2/models/pico/ready")[0] == 200


def test_it_listens_to_this_machine_alone(served):
    _, server = served
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; says which address would be used
        except OSError:
            pytest.skip("the machine has no other address than the loopback")
        address = probe.getsockname()[0]
    for port in (server.port, server.grpc_port):
        with socket.socket() as client:
            assert client.connect_ex((address, port)) != 0
            assert socket.create_connection(("127.0.0.1", port)).close() is None


def test_an_image_of_many_frames_counts_them_all(served, tmp_path):
    """WebP: all of its frames are decoded."""
    frames = [pillow.new("RGB", (64, 64), colour) for colour in ("red", "green", "blue")]
    stream = io.BytesIO()
    frames[0].save(stream, "WEBP", save_all=True, append_images=frames[1:])
    model, _ = served
    model = ServedModel(export(model, tmp_path / "pico"), max_pixels=3 * 64 * 64 - 1)
    with pytest.raises(ValueError, match="at most 12287 pixels, resize it before; got 12288"):
        model.check_row("encoded", {"encoded": stream.getvalue()})


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_rows_together_are_answered_as_alone(served, tmp_path, backend):
    """Batches for what JAX wrote are filled up to sizes that are compiled already."""
    model = ServedModel(export(served[0], tmp_path / "pico"))
    model.metadata["backend"] = backend
    sizes = []
    run = model.model.signatures["images"]
    model.model = SimpleNamespace(
        signatures={"images": lambda images: [sizes.append(len(images)), run(images)][1]}
    )
    images = RANDOM.integers(0, 256, (5, 32, 32, 3)).astype("uint8")
    rows = [model.check_row("images", {"images": image}) for image in images]
    answers = model.answer(model.batch_key("images", rows[0]), rows)
    assert (len(answers), sizes) == (5, [8 if backend == "jax" else 5])
    right = served[0].predict(images.astype("float32"), verbose=0)
    np.testing.assert_allclose([x["probabilities"] for x in answers], right, atol=1e-5)


def test_there_must_be_a_model(tmp_path):
    with pytest.raises(ValueError, match="`path` must be the folder of an exported model"):
        serve(tmp_path)
