"""The endpoint of the server with a substitute model: order of answers, time limit, errors."""

import asyncio
import importlib
import json
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from keras_tokenlearner.serving import guard
from keras_tokenlearner.serving.batching import Batcher
from keras_tokenlearner.serving.current_model import Loaded
from keras_tokenlearner.serving.payloads import V1Request
from tests.serving.answers import b64

kserve = pytest.importorskip("kserve", reason="the server is KServe")

serve = importlib.import_module("keras_tokenlearner.serving.serve")

pytestmark = pytest.mark.once("tensorflow")


class Model:
    """Answers with the length of an image. Large images wait for `release`."""

    max_pixels, inputs, outputs, folder = 10**9, {}, {}, Path("x/1")

    def __init__(self):
        self.release, self.decoded = threading.Event(), []

    def check_signature(self, name):
        return {"encoded": SimpleNamespace(dtype="string")}

    def check_count(self, count):
        assert count

    def check_rows(self, signature, rows):
        return rows

    def weight(self, row):
        return 10**8 if row.get("encoded") == b"large" else 1

    def decode(self, signature, rows):
        (row,) = rows
        if row["encoded"] == b"bad":
            raise ValueError("the image is damaged")
        if row["encoded"] == b"large":
            assert self.release.wait(60)
        self.decoded.append(row["encoded"])
        return "pixels", [{"pixels": len(row["encoded"])}]

    def batch_key(self, signature, row):
        return signature

    def answer(self, key, rows):
        return [{"length": np.array(row["pixels"])} for row in rows]


def loaded(model):
    return Loaded(model, Batcher(model.answer, 4))


def endpoint_of(model):
    return serve._endpoint("x", SimpleNamespace(now=loaded(model)))


def body(*contents, version=None):
    instances = [b64(content) for content in contents]
    return V1Request(json.dumps({"instances": instances}).encode(), version)


def test_endpoint_answers_small_images_while_large_images_are_decoded():
    model = Model()
    endpoint = endpoint_of(model)

    async def ask():
        large = [asyncio.ensure_future(endpoint.predict(body(b"large"))) for _ in range(8)]
        small = await asyncio.wait_for(endpoint.predict(body(b"a", b"bc")), 60)
        assert not any(one.done() for one in large)
        for one in large[4:]:
            one.cancel()  # their clients disconnect before a thread takes their images
        await asyncio.sleep(0.1)
        model.release.set()
        return small, await asyncio.gather(*large[:4])

    small, large = asyncio.run(ask())
    assert small == {"predictions": [1, 2]} and large == [{"predictions": [5]}] * 4
    assert len(model.decoded) < 10


def test_endpoint_with_a_damaged_image_raises_invalid_input_and_ends_the_request():
    model = Model()
    endpoint = endpoint_of(model)

    async def ask():
        with pytest.raises(kserve.errors.InvalidInput, match="damaged"):
            await endpoint.predict(body(b"bad", *[b"large"] * 20))
        await asyncio.sleep(0.1)
        model.release.set()
        return await endpoint.predict(body(b"abc"))

    assert asyncio.run(ask()) == {"predictions": [3]}
    assert len(model.decoded) < 10


def test_endpoint_with_a_late_prediction_raises_model_not_ready_and_states_the_limit(monkeypatch):
    monkeypatch.setattr(guard, "ANSWER_SECONDS", 0.05)
    model = Model()
    endpoint = endpoint_of(model)
    with pytest.raises(kserve.errors.ModelNotReady, match="within 0.05 s") as caught:
        try:
            asyncio.run(endpoint.predict(body(b"large")))
        finally:
            model.release.set()
    assert caught.value.reason == str(caught.value)


class Replaced:
    """A substitute for `CurrentModel`: each access to `now` returns the next version."""

    def __init__(self):
        self.count = 0

    @property
    def now(self):
        self.count += 1
        model = Model()
        model.folder = Path(f"x/{self.count}")
        model.answer = lambda key, rows, version=self.count: [{"version": np.array(version)}]
        return loaded(model)


def test_endpoint_request_for_a_version_is_never_answered_by_a_newer_version():
    current = Replaced()
    endpoint = serve._endpoint("x", current)
    asked = asyncio.run(endpoint.predict(body(b"a", version="1")))
    assert (asked, current.count) == ({"predictions": [1]}, 1)
    for request in (
        body(b"a", version="1"),
        kserve.InferRequest("x", [], model_version="1"),
    ):
        with pytest.raises(kserve.errors.ModelNotFound, match="version 1"):
            asyncio.run(endpoint.predict(request))
    # Version 4 answers, so this is the error of a request without inputs.
    with pytest.raises(kserve.errors.InvalidInput, match="inputs"):
        asyncio.run(endpoint.predict(kserve.InferRequest("x", [], model_version="4")))
    assert current.count == 4
