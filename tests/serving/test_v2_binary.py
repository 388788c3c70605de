"""Bodies of V2 requests (Open Inference Protocol), in JSON and with binary tensors."""

import base64
import json

import numpy as np
import pytest

pytest.importorskip("kserve", reason="the server is KServe")

from keras_tokenlearner.serving.payloads import _v2_column  # noqa: E402
from keras_tokenlearner.serving.v2_binary import read_v2  # noqa: E402

pytestmark = pytest.mark.once("tensorflow")

PIXELS = {"name": "images", "shape": [1, 1, 1, 3], "datatype": "UINT8", "data": [1, 2, 3]}


def binary(fields, content):
    """Return the body and the headers of a request with binary tensors."""
    head = json.dumps(fields).encode()
    return head + content, {"inference-header-content-length": str(len(head))}


def raw(size, **changes):
    field = {"name": "images", "shape": [1, 1, 1, 3], "datatype": "UINT8"}
    return field | {"parameters": {"binary_data_size": size}} | changes


def test_read_v2_of_json_keeps_every_field():
    body = {"id": "7", "inputs": [PIXELS], "parameters": {"signature_name": "images"}}
    found = read_v2(json.dumps(body | {"outputs": [{"name": "p"}]}).encode(), {}, "pico")
    assert (found.id, found.model_name) == ("7", "pico")
    assert found.inputs[0].as_numpy().ravel().tolist() == [1, 2, 3]
    assert [output.name for output in found.request_outputs] == ["p"]


def test_read_v2_of_binary_tensors_returns_their_values():
    body, headers = binary({"inputs": [raw(3), raw(3, name="other")]}, b"\x01\x02\x03\x04\x05\x06")
    first, second = read_v2(body, headers, "pico").inputs
    np.testing.assert_array_equal(first.as_numpy().ravel(), [1, 2, 3])
    np.testing.assert_array_equal(second.as_numpy().ravel(), [4, 5, 6])


def test_v2_column_of_nested_base64_has_bytes_in_the_shape_of_the_request():
    rows = [[b"a", b"\xff\x00", b"c"], [b"d", b"e", b"f"]]
    nested = [[base64.b64encode(content).decode() for content in row] for row in rows]
    for data in (nested, nested[0] + nested[1]):
        field = {"name": "encoded", "shape": [2, 3], "datatype": "BYTES", "data": data}
        found = read_v2(json.dumps({"inputs": [field]}).encode(), {}, "pico").inputs[0]
        column = _v2_column(found, None)
        assert (column.tolist(), column.dtype) == (rows, object)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"inputs": [PIXELS | {"shape": [-1]}]}, "-1"),
        ({"inputs": [PIXELS | {"shape": ["1"]}]}, "'1'"),
        ({"inputs": [PIXELS | {"shape": [True]}]}, "True"),
        ({"inputs": [PIXELS | {"shape": 3}]}, "shape"),
        ({"inputs": [PIXELS | {"datatype": 3}]}, "datatype"),
        ({"inputs": [PIXELS | {"data": 3}]}, "data"),
        ({"inputs": [PIXELS | {"name": 3}]}, "name"),
        ({"inputs": [PIXELS], "parameters": 5}, "parameters"),
        ({"inputs": [PIXELS | {"parameters": 5}]}, "parameters"),
        ({"inputs": [PIXELS], "parameters": {"a": [1]}}, "'a'"),
        ({"inputs": [PIXELS], "id": 5}, "id"),
        ({"inputs": [PIXELS], "id": "\ud800"}, "id .*surrogates"),
        ({"inputs": [PIXELS], "outputs": [{"name": "\ud800"}]}, "name .*surrogates"),
        ({"inputs": [PIXELS], "parameters": {"binary_data_output": "x"}}, "binary_data_output"),
        ({"inputs": [PIXELS], "outputs": [5]}, "output"),
        ({"inputs": [PIXELS], "outputs": [{"name": 5}]}, "output"),
        ({"inputs": {}}, "inputs"),
        ({}, "inputs"),
        ([], "request"),
        ({"inputs": [5]}, "input"),
    ],
)
def test_read_v2_of_json_with_wrong_types_raises(fields, reason):
    with pytest.raises(ValueError, match=reason):
        read_v2(json.dumps(fields).encode(), {}, "pico")


@pytest.mark.parametrize(
    ("fields", "content", "reason"),
    [
        ({"inputs": [raw(10**18)]}, b"abc", str(10**18)),
        ({"inputs": [raw(-1)]}, b"abc", "-1"),
        ({"inputs": [raw("3")]}, b"abc", "'3'"),
        ({"inputs": [raw(True)]}, b"abc", "True"),
        ({"inputs": [raw(3)]}, b"abcd", " 1 more bytes"),
        ({"inputs": [raw(3), raw(3)]}, b"abcd", " 1 bytes"),
        ({"inputs": [raw(3), PIXELS]}, b"abc", "binary_data_size"),
        ({"inputs": [raw(3, data=[1])]}, b"abc", "`data` or `binary_data_size`"),
    ],
)
def test_read_v2_of_binary_tensors_with_wrong_sizes_raises(fields, content, reason):
    with pytest.raises(ValueError, match=reason):
        read_v2(*binary(fields, content), "pico")


@pytest.mark.parametrize(
    "length", ["-1", "1e3", "99999", "²", "9" * 5000, ""], ids=lambda length: length[:9]
)
def test_read_v2_with_a_wrong_json_length_raises(length):
    with pytest.raises(ValueError, match="Inference-Header-Content-Length"):
        read_v2(b"{}", {"inference-header-content-length": length}, "pico")


def test_read_v2_of_deeply_nested_json_raises():
    body = b'{"inputs": ' + b"[" * 5000
    with pytest.raises(ValueError, match="5001 levels"):
        read_v2(body, {"inference-header-content-length": str(len(body))}, "pico")
