"""Files of safetensors, and of any kind in several parts."""

import json
import sys

import numpy as np
import pytest

from keras_tokenlearner.weights.read import read


def test_safetensors(tmp_path):
    files = pytest.importorskip(
        "safetensors.numpy", reason="reads safetensors: pip install safetensors"
    )
    files.save_file({"a": np.arange(6, dtype=np.float16)}, tmp_path / "a.safetensors")
    np.testing.assert_array_equal(read(tmp_path / "a.safetensors")["a"], np.arange(6))
    content = (tmp_path / "a.safetensors").read_bytes()
    for broken in (content[:-3], content[:20], b"", b"\xff" * 64):
        (tmp_path / "b.safetensors").write_bytes(broken)
        with pytest.raises(ValueError, match="damaged or no safetensors file"):
            read(tmp_path / "b.safetensors")


def safetensors_file(path, dtype, shape, content):
    """Write a file of one tensor, `x`, by hand."""
    pytest.importorskip("safetensors", reason="reads safetensors: pip install safetensors")
    tensor = {"dtype": dtype, "shape": shape, "data_offsets": [0, len(content)]}
    header = json.dumps({"x": tensor, "__metadata__": {"format": "pt"}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + content)
    return path


def test_bfloat16_in_safetensors(tmp_path, monkeypatch):
    """Every bfloat16 there is, without the libraries that know the type."""
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    halves = np.arange(1 << 16, dtype="<u2")
    path = safetensors_file(tmp_path / "a.safetensors", "BF16", [256, 256], halves.tobytes())
    found = read(path)["x"]
    assert found.dtype == np.float32 and found.shape == (256, 256)
    np.testing.assert_array_equal(found.ravel().view(np.uint32) >> 16, halves)
    assert found[0x3F, 0x80] == 1.0 and found[0xC0, 0x20] == -2.5 and np.isnan(found[-1, -1])


@pytest.mark.parametrize(
    ("dtype", "shape", "size", "message"),
    [
        ("F8_E4M3", [8], 8, "F8_E4M3.*which numpy lacks"),
        ("BF16", [8], 8, "damaged or no safetensors file"),
        ("BF16", [1 << 62, 1 << 62], 8, "damaged or no safetensors file"),
        ("F33", [8], 8, "damaged or no safetensors file"),
    ],
)
def test_headers_that_lie(tmp_path, dtype, shape, size, message):
    path = safetensors_file(tmp_path / "a.safetensors", dtype, shape, bytes(size))
    with pytest.raises(ValueError, match=message):
        read(path)


def test_files_in_parts(tmp_path):
    np.savez(tmp_path / "one.npz", a=np.arange(3))
    np.savez(tmp_path / "two.npz", b=np.arange(4))
    index = tmp_path / "model.npz.index.json"
    index.write_text('{"weight_map": {"a": "one.npz", "b": "two.npz"}}')
    entries = read(index)
    assert set(entries) == {"a", "b"} and entries.origin == str(index)
    np.testing.assert_array_equal(entries["b"], np.arange(4))
    for text, message in (
        ('{"weight_map": {"a": "../one.npz"}}', "'../one.npz' is no file beside it"),
        ('{"weight_map": {"a": "model.npz.index.json"}}', "is no file beside it"),
        ('{"weight_map": {"a": "three.npz"}}', "there is no such file"),
        (json.dumps({"weight_map": {"a": str(tmp_path / "one.npz")}}), "is no file beside it"),
        ('{"weight_map": {"a": ".."}}', "is no file beside it"),
        ('{"weight_map": {"a": ""}}', "is no file beside it"),
        ('{"weight_map": {"a": 3}}', "there is no such file"),
        ('{"weight_map": {"a": "one.npz", "c": "one.npz"}}', "do not belong together.* has c"),
        ('{"weight_map": {"b": "one.npz"}}', "do not belong together.* has a, b"),
        ('{"weight_map": 3}', "no index of parts"),
        ("[" * 100_000, "no index of parts"),
        ("{}", "no index of parts"),
    ):
        index.write_text(text)
        with pytest.raises(ValueError, match=message):
            read(index)
