"""Requests to the served model of the tests, and the expected answers."""

import base64
import functools
import io
import json

import keras
import numpy as np
import pytest

from keras_tokenlearner.data import resizing

pillow = pytest.importorskip("PIL.Image", reason="writes and reads the image files")

CLASS_NAMES = [f"class {index}" for index in range(10)]
RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (40, 60, 3)).astype("uint8")


def encode(pixels, kind="JPEG", **options):
    stream = io.BytesIO()
    pillow.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def b64(content):
    return {"b64": base64.b64encode(content).decode()}


JPEG = encode(PIXELS)
BOMB = encode(np.zeros((10_000, 10_000), bool), "PNG")


@functools.lru_cache(maxsize=64)  # most tests send the same file to the same model
def expected(model, content):
    pixels = np.asarray(pillow.open(io.BytesIO(content)).convert("RGB"), "float32")
    fitted = keras.ops.convert_to_numpy(resizing(32, 32)(pixels[None]))
    return model.predict(fitted, verbose=0)[0]


def check(model, row, content=JPEG):
    right = expected(model, content)
    # Antialiased resizing differs a little between backends.
    np.testing.assert_allclose(row["probabilities"], right, atol=1e-3)
    assert row["top_classes"][0] == np.argmax(row["probabilities"])
    assert row["top_class_names"] == [CLASS_NAMES[k] for k in row["top_classes"]]


def tensors(answer):
    return {found["name"]: np.reshape(found["data"], found["shape"]) for found in answer["outputs"]}


def binary(name, shape, datatype, content, size=None):
    field = {"name": name, "shape": shape, "datatype": datatype}
    field["parameters"] = {"binary_data_size": len(content) if size is None else size}
    head = json.dumps({"inputs": [field]}).encode()
    headers = {"Content-Type": "application/octet-stream"}
    return head + content, headers | {"Inference-Header-Content-Length": str(len(head))}
