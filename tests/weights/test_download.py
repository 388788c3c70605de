"""Downloads from a correct and from a faulty server on loopback."""

import dataclasses
import hashlib
import http.server
import os
import re
import tempfile
import threading

import keras
import numpy as np
import pytest

from keras_tokenlearner import create_model, from_preset
from keras_tokenlearner.presets.addresses import parse_address
from keras_tokenlearner.presets.hub import fetch_files
from keras_tokenlearner.weights import STORE, save_weights, store
from keras_tokenlearner.weights.store import download, fetch

pytestmark = pytest.mark.once("torch")

CONTENT = np.random.default_rng(0).bytes(100_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        content, how = self.server.content, self.server.how
        if how == "refused":
            self.send_error(403)
            return
        if how == "wrong":
            content = content[:-1] + b"?"
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if how == "truncated" else content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.content, server.how, server.requests = CONTENT, "right", []
        server.uri = f"http://127.0.0.1:{server.server_port}/a/b.weights.h5"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_fetch_called_twice_downloads_once(server, tmp_path):
    for _ in range(2):
        path = fetch(server.uri, SHA256, tmp_path)
        assert path.read_bytes() == CONTENT
    assert path.is_relative_to(tmp_path) and path.name == f"{SHA256[:8]}-b.weights.h5"
    assert server.requests == ["/a/b.weights.h5"]


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("wrong", ValueError, SHA256),
        ("truncated", ConnectionError, "50000 .* 100000"),
        ("refused", ConnectionError, "403"),
    ],
)
def test_fetch_after_a_failed_download_downloads_again(server, tmp_path, how, error, message):
    server.how = how
    with pytest.raises(error, match=message):
        fetch(server.uri, SHA256, tmp_path)
    server.how = "right"
    assert fetch(server.uri, SHA256, tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("end", "path"),
    [
        ("é/ü.npz", "/a/%C3%A9/%C3%BC.npz"),
        ("a b.npz?x=é", "/a/a%20b.npz?x=%C3%A9"),
        ("%C3%A9.npz", "/a/%C3%A9.npz"),
        ("c+d@e,(f)~g;h=1.npz?download=true&x=/", None),
    ],
)
@pytest.mark.parametrize("digest", [None, SHA256])
def test_download_of_an_address_with_special_characters_requests_its_path(
    server, tmp_path, end, path, digest
):
    for _ in range(2):
        found = download(server.uri.replace("b.weights.h5", end), digest, tmp_path)
        assert found.read_bytes() == CONTENT
    assert server.requests == [path or f"/a/{end}"]


@pytest.mark.parametrize(
    "uri", ["https://[::1/a.npz", "https://127.0.0.1:x/a.npz", "https://é..b/a.npz"]
)
@pytest.mark.parametrize("digest", [None, SHA256])
def test_download_of_an_invalid_address_raises_and_names_the_address(tmp_path, uri, digest):
    with pytest.raises(ValueError, match=rf"download: `uri` .*uri='{re.escape(uri)}'"):
        download(uri, digest, tmp_path)
    with pytest.raises(ValueError, match=rf"from_preset.*{re.escape(uri)}"):
        from_preset(uri)


def test_fetch_offline_returns_the_cached_file_or_raises(server, tmp_path):
    path = fetch(server.uri, SHA256, tmp_path)
    gone = "http://127.0.0.1:9/a/b.weights.h5"  # nothing listens on the discard port
    assert fetch(gone, SHA256, tmp_path) == path
    path.write_bytes(b"damaged since")
    with pytest.raises(ConnectionError, match=gone):
        fetch(gone, SHA256, tmp_path)
    assert fetch(server.uri, SHA256, tmp_path).read_bytes() == CONTENT


def test_create_model_with_a_name_of_stored_weights_loads_the_downloaded_file(
    server, tmp_path, monkeypatch
):
    model = create_model("vit_pico8", classes=10, input_shape=(28, 28, 1))
    model.get_layer("head").bias.assign(np.arange(10.0))
    digest = save_weights(model, tmp_path / "mine.weights.h5")
    server.content = (tmp_path / "mine.weights.h5").read_bytes()
    row = dataclasses.replace(
        next(iter(STORE.values())), model="vit_pico8", uri=server.uri, sha256=digest
    )
    monkeypatch.setitem(STORE, ("vit_pico8", "mine"), row)
    monkeypatch.setattr(store, "fetch", lambda *arguments: fetch(*arguments, tmp_path))
    loaded = create_model("vit_pico8", weights="mine")  # the input shape comes from the weights
    for array, expected in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(array, expected)


def test_create_model_with_the_url_of_a_weights_h5_file_downloads_once_and_loads(
    server, tmp_path, monkeypatch
):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    model = create_model("vit_pico8", classes=10)
    model.get_layer("head").bias.assign(np.arange(10.0))
    save_weights(model, tmp_path / "mine.weights.h5")
    server.content = (tmp_path / "mine.weights.h5").read_bytes()
    for _ in range(2):
        loaded = create_model("vit_pico8", weights=server.uri)
        for array, expected in zip(loaded.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(array, expected)
    assert server.requests == ["/a/b.weights.h5"]


def test_download_without_write_access_to_the_cache_is_kept_in_a_temporary_folder(
    server, tmp_path, monkeypatch
):
    """Keras downloads to `/tmp/.keras` or, without `/tmp`, to the folder for temporary files."""
    is_folder = os.path.isdir
    monkeypatch.setattr(os.path, "isdir", lambda path: path != "/tmp" and is_folder(path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for _ in range(2):
        path = download(server.uri, None, tmp_path / "missing")
        assert path.read_bytes() == CONTENT
    assert path.is_relative_to(tmp_path / ".keras") and list(path.parent.iterdir()) == [path]
    assert server.requests == ["/a/b.weights.h5"]


def test_download_while_another_process_downloads_the_same_file_returns_the_file(
    server, tmp_path, monkeypatch
):
    get_file, others = keras.utils.get_file, []

    def slow(*arguments, **options):
        path = get_file(*arguments, **options)
        if len(server.requests) == 1:  # the other process finishes first
            others.append(download(server.uri, None, tmp_path))
        return path

    monkeypatch.setattr(keras.utils, "get_file", slow)
    path = download(server.uri, None, tmp_path)
    assert others == [path] and path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "count"),
    [("vit-20240131.npz", 1), (f"vit-{SHA256[:16]}.npz", 1), (f"vit-{'ab' * 8}.npz", 0)],
)
def test_hash_in_the_name_of_a_download_is_checked_and_a_date_is_no_hash(
    server, tmp_path, monkeypatch, name, count
):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    address = parse_address("test", server.uri.replace("b.weights.h5", name))
    if count:
        assert fetch_files("test", address).weights.read_bytes() == CONTENT
    else:
        with pytest.raises(ValueError, match=f"test: .*{name}"):
            fetch_files("test", address)
    assert len(list(tmp_path.rglob("*.npz"))) == count
