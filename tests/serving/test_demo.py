"""The demo page without a browser: its files, answers and errors."""

import asyncio
import base64
import re
import socket
import sys
import threading
import time
import urllib.request
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import keras_tokenlearner as kt
from keras_tokenlearner.analysis import token_maps
from keras_tokenlearner.data import decode_image, fit_image
from keras_tokenlearner.serving import demo, guard, serve
from keras_tokenlearner.serving.batching import Batcher
from keras_tokenlearner.serving.current_model import Loaded
from keras_tokenlearner.serving.kserve_server import page_app
from keras_tokenlearner.serving.local import _free_ports
from keras_tokenlearner.serving.page import answers
from keras_tokenlearner.serving.page.exported import ExportedPage, check_page
from keras_tokenlearner.serving.page.loaded import LoadedPage
from keras_tokenlearner.serving.page.routes import FILES
from keras_tokenlearner.serving.served_model import ServedModel
from tests.serving.answers import BOMB, JPEG, PIXELS, encode

pytest.importorskip("kserve", reason="the server is KServe")

on_torch = pytest.mark.once("torch")
on_tensorflow = pytest.mark.once("tensorflow")
IMAGE = {"Content-Type": "image/jpeg"}


def page_of(served, name):
    """Return the page of a `ServedModel`."""
    batcher = Batcher(getattr(served, "answer", None))
    return ExportedPage(SimpleNamespace(now=Loaded(served, batcher)), name)


def randomised(model):
    """Add noise to the weights of a model, so that its probabilities differ."""
    random = np.random.default_rng(0)
    model.set_weights([w + random.normal(0, 0.2, w.shape) for w in model.get_weights()])
    return model


def client(page):
    from starlette.testclient import TestClient

    return TestClient(page_app(page))


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = randomised(kt.create_model("tokenlearner_pico8_4at1", classes=10))
    model.class_names = [f"<b>class</b> {index}" for index in range(10)]
    return model


@pytest.fixture(scope="module")
def page(model):
    return LoadedPage(model, top_k=3)


@pytest.fixture(scope="module")
def asked(page):
    with client(page) as asked:
        yield asked


def check(answer, probabilities, maps):
    """Compare an answer with the probabilities (classes,) and the maps (H, W, S) of a model."""
    order = np.argsort(-probabilities)[: len(answer["classes"])]
    assert [row["class"] for row in answer["classes"]] == order.tolist()
    shares = [row["probability"] for row in answer["classes"]]
    np.testing.assert_allclose(shares, probabilities[order], atol=1e-3)
    (layer,) = answer["maps"]
    right = np.moveaxis(maps / maps.max((0, 1)), -1, 0)
    np.testing.assert_allclose(layer["tokens"], right, atol=2e-3)


@on_torch
def test_demo_page_response_has_the_classes_and_the_maps_of_the_model(model, asked):
    answer = asked.post("/page/answer", content=JPEG, headers=IMAGE)
    assert answer.status_code == 200
    found = answer.json()
    pixels = fit_image(decode_image(JPEG), (32, 32, 3))[None].astype("float32")
    check(found, model.predict(pixels, verbose=0)[0], token_maps(model, pixels)[0])
    assert found["classes"][0]["class_name"] == model.class_names[found["classes"][0]["class"]]
    np.testing.assert_allclose(found["box"], [10 / 60, 0, 40 / 60, 1])  # of 60 x 40 pixels
    assert all(value > 0 for value in found["milliseconds"].values())


@on_torch
def test_demo_page_response_for_fewer_tokens_equals_a_model_of_that_many_tokens():
    model = randomised(kt.retrofit(kt.create_model("vit_pico8", classes=5), at=1, num_tokens=6))
    pixels = fit_image(decode_image(JPEG), (32, 32, 3))[None].astype("float32")
    with client(LoadedPage(model)) as asked:
        assert asked.get("/page/about").json()["tokens"] == [1, 2, 4, 6]
        for count in (2, 6):
            answer = asked.post(f"/page/answer?tokens={count}", content=JPEG, headers=IMAGE)
            small = kt.with_tokens(model, count)
            maps = token_maps(small, pixels)[0]
            assert maps.shape[-1] == count
            check(answer.json(), small.predict(pixels, verbose=0)[0], maps)


@on_torch
def test_demo_page_of_token_learners_with_6_and_3_tokens_offers_1_to_3_and_6_tokens():
    inputs = keras.Input((8, 8, 3))
    tokens = [
        kt.layers.TokenLearner(count, "mlp", grid=(8, 8), position_bias=True)(inputs)
        for count in (6, 3)
    ]
    pooled = keras.layers.GlobalAveragePooling1D()(keras.layers.Concatenate(axis=1)(tokens))
    model = keras.Model(inputs, keras.layers.Dense(2, "softmax")(pooled))
    page = LoadedPage(model)
    assert page.about["tokens"] == [1, 2, 3, 6]
    assert page.models[6].output["outputs"].shape == (None, 2)


@on_torch
def test_demo_page_of_a_quantized_model_has_the_classes_of_the_model_and_a_hint():
    model = randomised(kt.create_model("tokenlearner_pico8_4at1", classes=3))
    model.quantize("int8")
    with client(LoadedPage(model)) as asked:
        about = asked.get("/page/about").json()
        answer = asked.post("/page/answer", content=JPEG, headers=IMAGE).json()
    assert about["tokens"] == answer["maps"] == [] and "quantized" in about["hint"]
    pixels = fit_image(decode_image(JPEG), (32, 32, 3))[None].astype("float32")
    shares = {row["class"]: row["probability"] for row in answer["classes"]}
    right = dict(enumerate(model.predict(pixels, verbose=0)[0]))
    assert shares == pytest.approx(right, abs=1e-5)
    with pytest.raises(ValueError, match="quantized"):
        LoadedPage(model, tokens=[4])


@on_torch
def test_demo_page_of_a_nested_model_shows_the_class_names_and_name_of_the_inner_model():
    images = keras.layers.RandomFlip()(keras.Input((32, 32, 3)))
    options = {"classes": 2, "class_names": ["cat", "dog"], "input_tensor": images}
    model = kt.create_model("tokenlearner_pico8_4at1", name="inside", **options)
    page = LoadedPage(model)
    assert list(page.class_names) == ["cat", "dog"]
    assert page.about["tokens"] == [] and "inside" in page.about["hint"]
    with pytest.raises(ValueError, match="contains the model 'inside'"):
        token_maps(model, np.zeros((1, 32, 32, 3)))


@on_torch
def test_demo_page_of_a_model_whose_output_is_in_a_dictionary_answers_as_the_plain_model(model):
    page = LoadedPage(keras.Model(model.inputs, {"scores": model.output}))
    pixels = np.full((32, 32, 3), 99, "float32")
    ((scores, maps, _),) = page._answer(4, [pixels])
    np.testing.assert_allclose(scores, model.predict(pixels[None], verbose=0)[0], atol=1e-6)
    assert [found.shape for found in maps.values()] == [(4, 4, 4)]


@on_torch
def test_demo_page_of_a_student_with_token_fusers_offers_only_its_own_number_of_tokens():
    plain = kt.create_model("vit_pico8", classes=5)
    student = kt.retrofit(plain, at=1, num_tokens=4, fuser="token_fuser")
    with client(LoadedPage(student)) as asked:
        assert asked.get("/page/about").json()["tokens"] == [4]
        answer = asked.post("/page/answer", content=JPEG, headers=IMAGE)
    assert len(answer.json()["maps"]) == 1


@on_torch
def test_demo_page_of_a_model_without_token_learner_has_classes_and_no_maps():
    with client(LoadedPage(kt.create_model("vit_pico8", classes=3))) as asked:
        about = asked.get("/page/about").json()
        answer = asked.post("/page/answer", content=JPEG, headers=IMAGE).json()
    assert (about["tokens"], answer["maps"], len(answer["classes"])) == ([], [], 3)
    assert "no TokenLearner" in about["hint"]


@on_torch
def test_demo_page_with_a_number_of_tokens_for_a_model_without_token_learner_raises():
    with pytest.raises(ValueError, match="TokenLearner"):
        LoadedPage(kt.create_model("vit_pico8", classes=3), tokens=[4])


@on_torch
def test_demo_page_with_a_late_prediction_returns_status_503_and_states_the_time_limit(
    page, asked, monkeypatch
):
    def answer_late(count, rows):
        time.sleep(0.5)
        return LoadedPage._answer(page, count, rows)

    monkeypatch.setattr(guard, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(page.batcher, "function", answer_late)
    answer = asked.post("/page/answer", content=JPEG, headers=IMAGE)
    assert answer.status_code == 503
    assert "0.05 s" in answer.json()["error"]


@on_torch
def test_demo_page_answers_image_bytes_that_look_like_deep_json(asked):
    content = encode(PIXELS, "PNG") + b"[" * 1000
    assert asked.post("/page/answer", content=content, headers=IMAGE).status_code == 200


@on_torch
@pytest.mark.parametrize(
    ("content", "query", "kind", "status", "reason"),
    [
        (b"no image", "", "image/jpeg", 400, "formats JPEG, PNG"),
        (JPEG[:200], "", "image/jpeg", 400, ""),
        (BOMB, "", "image/png", 400, "32000000 pixels"),
        (JPEG, "?tokens=3", "image/jpeg", 400, r"one of \[4\]. Received: tokens=3"),
        (JPEG, "?tokens=1e9", "image/jpeg", 400, "tokens=.1e9."),
        (JPEG, "", "text/plain", 415, "'text/plain'"),
    ],
    ids=["no image", "truncated", "image bomb", "wrong tokens", "float tokens", "content type"],
)
def test_demo_page_bad_request_gets_a_status_and_a_reason(
    asked, content, query, kind, status, reason
):
    answer = asked.post(f"/page/answer{query}", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert re.search(reason, answer.json()["error"])


@on_torch
def test_demo_page_decodes_pictures_outside_the_thread_of_the_model(page, asked, monkeypatch):
    threads = []

    def picture(*arguments):
        threads.append(threading.current_thread().name)
        return whole(*arguments)

    def answer(*arguments):
        threads.append(threading.current_thread().name)
        return LoadedPage._answer(page, *arguments)

    whole = answers.Picture
    monkeypatch.setattr(answers, "Picture", picture)
    monkeypatch.setattr(page.batcher, "function", answer)
    asked.post("/page/answer", content=JPEG, headers=IMAGE)
    assert len(threads) == 2
    assert [name.partition("_")[0] for name in threads] == ["small", "model"]


@on_torch
def test_demo_page_files_are_served_and_refer_to_no_other_server(asked):
    html = asked.get("/").text
    named = {f"/{path}" for path in re.findall(r'(?:src|href)="([^"]+)"', html)}
    assert named <= set(FILES) and len(named) == 3
    for path, (_, kind) in FILES.items():
        answer = asked.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
        text = answer.text.replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert "//" not in re.sub(r"^ *//.*|; //.*", "", text, flags=re.MULTILINE)
        assert not re.search("innerHTML|outerHTML|insertAdjacent|document.write|eval", text)


@on_torch
@pytest.mark.parametrize("path", ["/", "/page/page.js", "/page/about", "/page/answer"])
def test_demo_page_headers_forbid_inline_scripts_frames_and_other_sources(asked, path):
    post = path.endswith("answer")
    headers = asked.request("POST" if post else "GET", path).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
    assert {policy[f"{kind}-src"] for kind in ("script", "style", "img", "connect")} == {"'self'"}
    assert headers["x-content-type-options"] == "nosniff"


def _luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    parts = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return np.dot([0.2126, 0.7152, 0.0722], parts)


@on_torch
def test_demo_page_text_colours_have_the_contrast_that_wcag_requires(asked):
    """WCAG 2.2 needs 4.5 for text and 3 for the focus, in the light and the dark scheme."""
    blocks = re.findall(r":root \{(.*?)\}", asked.get("/page/page.css").text, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        colours = dict(re.findall(r"--([\w-]+): (#\w{6});", block))
        pairs = [(ink, ground, 4.5) for ink in ("ink", "quiet") for ground in ("ground", "card")]
        pairs += [("quiet", "well", 4.5), ("error", "ground", 4.5), ("on-accent", "accent", 4.5)]
        pairs += [("accent", "ground", 3), ("accent", "card", 3)]
        for ink, ground, least in pairs:
            low, high = sorted(_luminance(colours[name]) for name in (ink, ground))
            assert (high + 0.05) / (low + 0.05) >= least, (ink, ground)


@on_torch
@pytest.mark.parametrize(
    ("options", "arguments", "reason"),
    [
        ({"classifier_activation": None}, {}, "ends in logits"),
        ({"include_top": False, "pooling": "avg"}, {}, "returns features"),
        ({"include_preprocessing": False}, {}, "include_preprocessing=False"),
        ({}, {"tokens": [2]}, "with token_learner"),
        ({}, {"top_k": 0}, "`top_k`"),
    ],
)
def test_demo_page_of_an_unsuitable_model_or_argument_raises(options, arguments, reason):
    model = kt.create_model("tokenlearner_pico8_4at1", **{"classes": 10, **options})
    with pytest.raises(ValueError, match=reason):
        LoadedPage(model, **arguments)


@on_torch
def test_demo_of_exported_model_raises_and_states_the_serve_command(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").touch()
    with pytest.raises(ValueError, match="serve --page"):
        demo(tmp_path)


@on_torch
def test_demo_of_a_name_ignores_an_exported_model_in_a_folder_of_this_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vit_pico8" / "1").mkdir(parents=True)
    (tmp_path / "vit_pico8" / "1" / "saved_model.pb").touch()
    pages = []

    async def run_page(page, host, port):
        pages.append((page, port))

    monkeypatch.setattr(sys.modules[demo.__module__], "run_page", run_page)
    (free,) = _free_ports(1)
    demo("vit_pico8", weights="random", port=np.int64(free))
    ((page, port),) = pages
    assert (page.about["model"], port, type(port)) == ("vit_pico8", free, int)
    with pytest.raises(ValueError, match=r"model='\./vit_pico8'"):
        demo("./vit_pico8")


@on_torch
@pytest.mark.parametrize(
    ("argument", "value"),
    [("port", 70_000), ("tokens", [0]), ("top_k", 0), ("classifier_activation", "relu")],
)
def test_demo_with_a_wrong_argument_raises_before_it_loads_the_model(argument, value):
    with pytest.raises(ValueError, match=f"demo: `{argument}`.*{argument}="):
        demo("no_such_model", **{argument: value})


@on_torch
@pytest.mark.parametrize("start", [demo, serve])
def test_server_on_a_taken_port_or_a_wrong_host_raises_before_it_loads_the_model(start, tmp_path):
    model = "no_such_model"
    if start is serve:
        model = tmp_path
        (tmp_path / "saved_model.pb").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port, (free,) = taken.getsockname()[1], _free_ports(1)
        ports = [{"port": port}]
        if start is serve:
            ports += [{"port": free, "grpc_port": port}, {"port": free, "grpc_port": free}]
        for wrong in ports:
            name, number = list(wrong.items())[-1]
            with pytest.raises(OSError, match=f"{start.__name__}: .*`{name}`.* {name}={number}"):
                start(model, **wrong)
    for host in ("192.0.2.1", "a..b"):  # neither needs a name server
        with pytest.raises(OSError, match=f"{start.__name__}: .*host='{host}'"):
            start(model, host=host, port=free)
    for host in (5, "", None):
        with pytest.raises(ValueError, match=f"{start.__name__}: `host`.*host={host!r}"):
            start(model, host=host)


@on_torch
@pytest.mark.parametrize("name", [5, "", "pets/1"])
def test_serve_with_a_wrong_name_raises_before_it_loads_the_model(name):
    with pytest.raises(ValueError, match=f"serve: `name` .*name={name!r}"):
        serve("no_such_model", name=name)


@on_torch
@pytest.mark.parametrize("start", [demo, serve])
def test_server_in_an_event_loop_raises_before_it_loads_the_model(start):
    async def run():
        start("no_such_model")

    with pytest.raises(RuntimeError, match=f"{start.__name__}: .*in a terminal"):
        asyncio.run(run())


@on_tensorflow
def test_demo_page_of_an_exported_model_with_maps_answers_as_the_model(model, tmp_path):
    pytest.importorskip("tensorflow", reason="SavedModels are TensorFlow's")
    kt.export(model, tmp_path, return_maps=True)
    served = ServedModel(tmp_path)
    with client(page_of(served, "pico")) as asked:
        about = asked.get("/page/about").json()
        # The number of an older version.
        found = asked.post("/page/answer?tokens=9", content=JPEG, headers=IMAGE).json()
    assert (about["model"], about["tokens"], about["classes"]) == ("pico", [4], 10)
    pixels = fit_image(decode_image(JPEG), (32, 32, 3))[None].astype("float32")
    check(found, model.predict(pixels, verbose=0)[0], token_maps(model, pixels)[0])


@on_tensorflow
def test_serve_has_no_demo_page_by_default_and_a_demo_page_with_page_true(
    exported_pico, monkeypatch
):
    pages = []

    async def run(endpoint, current, host, port, grpc_port, page):
        pages.append(page)
        assert type(current.max_batch) is type(port) is int

    monkeypatch.setattr(sys.modules[serve.__module__], "run", run)
    port, grpc_port = _free_ports(2)
    serve(exported_pico[1], port=port, grpc_port=grpc_port)
    numbers = {"port": np.int64(port), "grpc_port": np.int64(grpc_port), "max_batch": np.int64(4)}
    serve(exported_pico[1], page=True, **numbers)
    assert pages[0] is None
    assert "export --return-maps" in pages[1].about["hint"]


@on_tensorflow
def test_server_with_demo_page_answers_pictures_and_v1_requests(served):
    _, server = served
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/", timeout=60) as answer:
        assert b"<!doctype html>" in answer.read()
    status, found = server.ask("/page/answer", JPEG, **IMAGE)
    assert (status, found["maps"]) == (200, [])
    instance = {"b64": base64.b64encode(JPEG).decode()}
    probabilities = server.v1({"instances": [instance]})[1]["predictions"][0]
    best = found["classes"][0]
    assert best["class"] == probabilities["top_classes"][0]
    assert best["probability"] == pytest.approx(probabilities["top_probabilities"][0], abs=1e-5)


@on_torch
def test_demo_page_of_an_exported_model_without_classifier_raises():
    served = SimpleNamespace(metadata={"input_shape": [32, 32, 3]}, outputs={}, folder="x")
    with pytest.raises(ValueError, match="serve: .*`keras-tokenlearner export`"):
        check_page(served)
