"""The real server over the loopback: correct answers, and a reason for each refusal."""

import base64
import json
import re
import shutil
import socket
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from keras_tokenlearner.serving import predict, serve
from keras_tokenlearner.serving.serve import default_name
from keras_tokenlearner.serving.served_model import ServedModel
from tests.serving.answers import (
    JPEG,
    PIXELS,
    RANDOM,
    b64,
    binary,
    check,
    encode,
    expected,
    tensors,
)

tf = pytest.importorskip("tensorflow", reason="SavedModels are TensorFlow's")
pytest.importorskip("kserve", reason="the server is KServe")

pytestmark = pytest.mark.once("tensorflow")


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [b64(JPEG)]},
        {"instances": [{"encoded": b64(JPEG)}]},
        {"instances": [b64(JPEG)], "signature_name": "encoded"},
    ],
    ids=["bytes alone", "named input", "named signature"],
)
def test_v1_encoded_image_gets_the_prediction_of_the_model(served, body):
    model, server = served
    status, answer = server.v1(body)
    assert status == 200
    check(model, answer["predictions"][0])


@pytest.mark.parametrize("form", ["lines", "url", "bare"])
def test_v1_base64_with_line_breaks_url_alphabet_or_no_padding_is_read(served, form):
    """Base64 is read with line breaks, in the URL-safe alphabet, and without padding."""
    content = next(x for x in (JPEG + b"\0" * n for n in range(3)) if len(x) % 3)
    text = {
        "lines": base64.encodebytes(content).decode(),
        "url": base64.urlsafe_b64encode(content).decode().rstrip("="),
        "bare": base64.b64encode(content).decode().rstrip("="),
    }[form]
    model, server = served
    status, answer = server.v1({"instances": [{"b64": text}]})
    assert status == 200, answer
    check(model, answer["predictions"][0])


@pytest.mark.parametrize("named", [False, True])
def test_v1_columnar_request_gets_a_columnar_response(served, named):
    model, server = served
    column = [b64(JPEG), b64(encode(PIXELS[:9], "PNG"))]
    status, answer = server.v1({"inputs": {"encoded": column} if named else column})
    assert status == 200 and list(answer) == ["outputs"]
    rows = [{name: x[i] for name, x in answer["outputs"].items()} for i in range(2)]
    check(model, rows[0])
    check(model, rows[1], encode(PIXELS[:9], "PNG"))


def test_v1_columnar_response_of_one_output_omits_the_output_name(served):
    model, server = served
    pixels = RANDOM.uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    body = {"signature_name": "serve", "inputs": pixels.tolist()}
    answer = server.v1(body)[1]["outputs"]
    np.testing.assert_allclose(answer, model.predict(pixels, verbose=0), atol=1e-5)


def test_v1_request_without_json_content_type_gets_predictions(served):
    model, server = served
    body = json.dumps({"instances": [b64(JPEG)]}).encode()
    status, answer = server.v1(body)  # urllib's default content type is form data, as in curl
    assert status == 200
    check(model, answer["predictions"][0])


def test_v1_pixels_of_two_different_sizes_get_predictions(served):
    model, server = served
    images = [PIXELS[:2, :3], PIXELS]
    body = {"signature_name": "images", "instances": [image.tolist() for image in images]}
    status, answer = server.v1(body)
    assert status == 200
    for image, row in zip(images, answer["predictions"], strict=True):
        check(model, row, encode(image, "PNG"))


def test_v1_row_response_of_one_output_omits_the_output_name(served):
    model, server = served
    pixels = RANDOM.uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    status, answer = server.v1({"signature_name": "serve", "instances": pixels.tolist()})
    assert status == 200
    right = model.predict(pixels, verbose=0)
    np.testing.assert_allclose(answer["predictions"], right, atol=1e-5)


def test_v1_status_is_ready_for_the_model_and_404_for_other_names(served):
    _, server = served
    version = {
        "version": "1",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    right = {"name": "pico", "ready": True, "model_version_status": [version]}
    assert server.ask("/v1/models/pico") == (200, right)
    found = server.ask("/v1/models/pico/versions/1")
    assert found == (200, {"model_version_status": [version]})
    assert server.ask("/v1/models/tulip")[0] == 404
    assert server.ask("/v1/models/tulip/versions/1")[0] == 404
    assert server.ask("/v1/models/pico/versions/2")[0] == 404


def test_v1_request_for_the_current_version_gets_predictions_and_for_version_2_gets_404(served):
    model, server = served
    body = {"instances": [b64(JPEG)]}
    status, answer = server.ask("/v1/models/pico/versions/1:predict", body)
    assert status == 200
    check(model, answer["predictions"][0])
    status, answer = server.ask("/v1/models/pico/versions/2:predict", body)
    assert status == 404 and "version 2" in answer["error"]


@pytest.mark.parametrize(
    "path", ["/v1/models/pico/versions/2:predict", "/v2/models/pico/versions/2/infer"]
)
def test_request_for_another_version_with_a_malformed_body_gets_404(served, path):
    status, answer = served[1].ask(path, b"{")
    assert status == 404 and "version 2" in answer["error"]


def test_server_metrics_count_batches_queue_times_and_refusals(served):
    _, server = served
    names = [
        "keras_tokenlearner_batch_rows_sum",
        "keras_tokenlearner_queue_seconds_count",
        'keras_tokenlearner_refusals_total{status="400"}',
    ]
    before = [server.metric(name) for name in names]
    assert server.v1({"instances": [b64(JPEG)] * 3})[0] == 200
    assert server.v1({"instances": 1})[0] == 400
    assert [server.metric(name) for name in names] == [before[0] + 3, before[1] + 3, before[2] + 1]
    assert server.metric("keras_tokenlearner_queue_seconds_sum") >= 0


@pytest.mark.parametrize(
    ("backend", "sizes"),
    [
        ("tensorflow", {"pixels": [1, 2, 4, 5], "images": [1], "serve": [1]}),
        ("jax", dict.fromkeys(("pixels", "images", "serve"), [1, 2, 4, 8])),
    ],
)
def test_server_warm_up_runs_powers_of_two_and_the_largest_batch(
    exported_pico, monkeypatch, backend, sizes
):
    model = ServedModel(exported_pico[1])
    model.metadata["backend"] = backend
    ran = {name: [] for name in sizes}

    def answer(key, rows):
        for name, value in rows[0].items():
            model.check_row(key[0], {name: value})
        ran[key[0]].append(len(rows))

    monkeypatch.setattr(model, "answer", answer)
    model.warm_up(5)
    assert ran == sizes


def test_health_probes_of_the_deployment_files_get_status_200(served):
    folder = Path(__file__).parents[2] / "docs" / "deployment"
    texts = [(folder / name).read_text() for name in ("kubernetes.yaml", "inference_service.yaml")]
    paths = set(re.findall(r"path: (/\S+)", "".join(texts)))
    assert paths == {"/v2/health/ready", "/v2/health/live"}
    _, server = served
    assert [server.ask(path)[0] for path in sorted(paths)] == [200, 200]


def test_v2_metadata_lists_inputs_and_outputs(served):
    _, server = served
    status, answer = server.ask("/v2/models/pico")
    assert status == 200
    assert {"name": "encoded", "datatype": "BYTES", "shape": [-1]} in answer["inputs"]
    assert {"name": "images", "datatype": "UINT8", "shape": [-1, -1, -1, 3]} in answer["inputs"]
    assert {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]} in answer["outputs"]


def test_v2_base64_in_json_gets_the_predictions_of_the_model(served):
    model, server = served
    field = {"name": "encoded", "shape": [2], "datatype": "BYTES"}
    status, answer = server.v2({"id": "7", "inputs": [field | {"data": [b64(JPEG)["b64"]] * 2}]})
    assert (status, answer["id"]) == (200, "7")
    found = tensors(answer)
    for row in range(2):
        check(model, {name: column[row].tolist() for name, column in found.items()})


def test_v2_request_for_version_1_gets_status_200_and_for_version_2_status_404(served):
    _, server = served
    field = {"name": "encoded", "shape": [1], "datatype": "BYTES", "data": [b64(JPEG)["b64"]]}
    asked = [
        server.ask(f"/v2/models/pico/versions/{version}/infer", {"inputs": [field]})
        for version in (1, 2)
    ]
    assert [status for status, _ in asked] == [200, 404]
    assert "version 2" in asked[1][1]["error"]


def test_v2_flat_pixels_with_one_requested_output_return_only_that_output(served):
    model, server = served
    field = {"name": "images", "shape": [1, 40, 60, 3], "datatype": "UINT8"}
    body = {"inputs": [field | {"data": PIXELS.ravel().tolist()}]}
    status, answer = server.v2(body | {"outputs": [{"name": "probabilities"}]})
    assert status == 200 and list(tensors(answer)) == ["probabilities"]
    right = expected(model, encode(PIXELS, "PNG"))
    np.testing.assert_allclose(tensors(answer)["probabilities"][0], right, atol=1e-3)


def test_v2_binary_tensors_get_the_prediction_of_the_model(served):
    model, server = served
    body, headers = binary("encoded", [1], "BYTES", struct.pack("<I", len(JPEG)) + JPEG)
    status, answer = server.v2(body, **headers)
    assert status == 200
    check(model, {name: column[0].tolist() for name, column in tensors(answer).items()})
    body, headers = binary("images", [1, 40, 60, 3], "UINT8", PIXELS.tobytes())
    assert server.v2(body, **headers)[0] == 200


def test_grpc_encoded_image_gets_the_prediction_of_the_model(served, ask_grpc):
    model, _ = served
    field = {"name": "encoded", "shape": [1], "datatype": "BYTES"}
    typed = ask_grpc([field | {"contents": {"bytes_contents": [JPEG]}}])
    raw = ask_grpc([field], [struct.pack("<I", len(JPEG)) + JPEG])
    for found in (typed, raw):
        row = {name: column[0].tolist() for name, column in found.items()}
        check(
            model, row | {"top_class_names": [label.decode() for label in row["top_class_names"]]}
        )


def test_grpc_pixels_get_the_prediction_of_the_model(served, ask_grpc):
    model, _ = served
    field = {"name": "images", "shape": [1, 40, 60, 3], "datatype": "UINT8"}
    found = ask_grpc([field], [PIXELS.tobytes()])
    right = expected(model, encode(PIXELS, "PNG"))
    np.testing.assert_allclose(found["probabilities"][0], right, atol=1e-3)


def test_v2_requests_to_load_or_unload_models_get_404(served):
    _, server = served
    assert server.ask("/v2/repository/models/pico/unload", {})[0] == 404
    assert server.ask("/v2/repository/models/pico/load", {})[0] == 404
    assert server.ask("/v2/models/pico/ready")[0] == 200


def test_server_by_default_listens_to_this_machine_only(served):
    _, server = served
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # A UDP connection sends nothing, but shows the machine's address in the network.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("the machine has no other address than the loopback")
        address = probe.getsockname()[0]
    for port in (server.port, server.grpc_port):
        with socket.socket() as client:
            assert client.connect_ex((address, port)) != 0
            assert socket.create_connection(("127.0.0.1", port)).close() is None


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_served_rows_in_one_batch_get_the_predictions_of_the_model(exported_pico, backend):
    """Exports from JAX pad each batch to a size that is already compiled."""
    model = ServedModel(exported_pico[1])
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
    right = exported_pico[0].predict(images.astype("float32"), verbose=0)
    np.testing.assert_allclose([x["probabilities"] for x in answers], right, atol=1e-5)


PLANTED = ("h5py", "json", "kserve", "keras", "uvicorn")


def test_predict_served_from_an_unusual_path_runs_no_code_from_the_current_folder(
    exported_pico, tmp_path, monkeypatch
):
    """The name has a space and a digit that is no decimal. Version 9 is incomplete."""
    model, folder = exported_pico
    shutil.copytree(folder, tmp_path / "my ² model")
    (tmp_path / "my ² model" / "9").mkdir()
    for name in PLANTED:
        text = "open('planted', 'w').close()\nraise ImportError"
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "a.jpg").write_bytes(JPEG)
    monkeypatch.chdir(tmp_path)
    (found,) = predict("my ² model", "a.jpg", served=True)
    right = expected(model, JPEG)
    assert found["classes"][0]["class"] == right.argmax()
    assert found["classes"][0]["probability"] == pytest.approx(right.max(), abs=1e-3)
    assert not (tmp_path / "planted").exists()


def test_quickstart_server_runs_no_code_from_the_current_folder(
    exported_pico, tmp_path, monkeypatch
):
    from keras_tokenlearner.quickstart import _served_difference

    model, folder = exported_pico
    for name in ("numpy", "tensorflow", "json", "keras"):
        text = "open('planted', 'w').close()\nraise ImportError"
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    images = RANDOM.integers(0, 256, (6, 32, 32, 3)).astype("uint8")
    answers = model.predict(images.astype("float32"), verbose=0)
    difference = _served_difference(folder / "1", images, answers, tmp_path)
    assert difference < 1e-4 and not (tmp_path / "planted").exists()


def test_serve_of_a_folder_without_a_model_raises(tmp_path):
    with pytest.raises(ValueError, match="serve: `path` .*path="):
        serve(tmp_path)


def test_served_model_without_the_signature_serving_default_raises(tmp_path):
    module = tf.Module()
    double = tf.function(lambda x: 2 * x, [tf.TensorSpec([None])])
    tf.saved_model.save(module, str(tmp_path), {"double": double.get_concrete_function()})
    with pytest.raises(ValueError, match=r"serve: `path` .*path=.*\['double'\]"):
        ServedModel(tmp_path)


def test_served_model_name_defaults_to_its_folder(tmp_path, monkeypatch):
    assert default_name(tmp_path / "flowers") == default_name("flowers/12") == "flowers"
    assert default_name(tmp_path / "²") == default_name(tmp_path / "²" / "1") == "²"
    monkeypatch.chdir(tmp_path)
    assert default_name(".") == tmp_path.name
