"""The code of docs/serving.md gets the printed answers from a real server."""

import re
from pathlib import Path

import numpy as np
import pytest

from keras_tokenlearner import create_model, export
from tests.serving.server import serving

tf = pytest.importorskip("tensorflow", reason="SavedModels are TensorFlow's")
pytest.importorskip("kserve", reason="the server is KServe")

pytestmark = pytest.mark.once("tensorflow")
PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()


def test_serving_docs_python_blocks_get_the_class_names_of_the_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = create_model("tokenlearner_pico8_4at1", classes=3)
    random = np.random.default_rng(0)
    model.set_weights([random.normal(0, 0.2, w.shape) for w in model.get_weights()])
    path = export(model, tmp_path / "flowers", class_names=["rose", "tulip", "daisy"]).path
    image = random.integers(0, 256, (40, 30, 3)).astype("uint8")
    Path("flower.jpg").write_bytes(tf.io.encode_jpeg(image).numpy())
    content = tf.constant([Path("flower.jpg").read_bytes()])
    served = tf.saved_model.load(str(path))
    right = served.encoded(content)["top_class_names"].numpy()[0]
    names = {}
    monkeypatch.chdir(Path(__file__).parents[2])
    with serving(tmp_path / "flowers") as server:
        monkeypatch.chdir(tmp_path)
        for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
            block = block.replace(":8080", f":{server.port}")
            exec(block.replace(":8081", f":{server.grpc_port}"), names)  # noqa: S102
    assert names["best"] == right[0].decode()
    assert names["outputs"]["top_class_names"] == [name.decode() for name in right]
    assert names["names"].ravel().tolist() == right.tolist()
