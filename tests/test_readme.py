"""The README's code runs as printed, and its numbers are those of the package."""

import re
from pathlib import Path

import numpy as np
import pytest

from keras_tokenlearner.analysis import catalog_costs
from keras_tokenlearner.applications import CATALOG
from tests.data.video.files import write

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_python_blocks_run_in_order(tmp_path, monkeypatch, capsys):
    """On a small part of the data."""
    pytest.importorskip("tensorflow", reason="the README exports a SavedModel")
    pytest.importorskip("av", reason="the README reads videos")
    monkeypatch.chdir(tmp_path)
    for name in ("videos/a", "videos/b"):
        (tmp_path / name).mkdir(parents=True)
        write(tmp_path / name / "clip.mp4", [0, 50, 100])
    import keras_tokenlearner.data

    (x, y), (test_x, test_y) = keras_tokenlearner.data.load_fashion_mnist()
    few = (x[::50], y[::50]), (test_x[::20], test_y[::20])
    monkeypatch.setattr(keras_tokenlearner.data, "load_fashion_mnist", lambda: few)
    names = {}
    for block in BLOCKS:
        exec(block, names)  # noqa: S102
    assert "'accuracy': " in capsys.readouterr().out
    assert (tmp_path / "served/1/saved_model.pb").is_file()
    assert names["features"].output_shape == (None, 384)
    assert names["tokens"].shape == (None, 8, 256)
    assert len(names["videos"]) == 2


def test_the_table_of_models_is_that_of_the_catalogue():
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \| ([\d.]+) \| ([\d.]+) \|", README, re.MULTILINE)
    assert {row[0] for row in rows} == {
        name for name, entry in CATALOG.items() if len(entry.input_shape) == 3
    }
    for name, shape, gflops, mparams in rows:
        found = catalog_costs(name)
        assert shape == "x".join(str(size) for size in CATALOG[name].input_shape)
        assert float(gflops) == pytest.approx(found.paper_gflops, rel=0.005)
        assert float(mparams) == pytest.approx(found.params / 1e6, abs=0.06)


def test_links_to_files_work():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    files = [link for link in links if not link.startswith("http")]
    assert files
    assert [link for link in files if not (Path(__file__).parent.parent / link).exists()] == []


def test_shipped_weights_score_what_the_readme_says():
    from keras_tokenlearner import create_model
    from keras_tokenlearner.data import load_fashion_mnist

    model = create_model("tokenlearner_nano4_8at2", weights="fashion_mnist")
    _, (images, labels) = load_fashion_mnist()
    right = model.predict(images, batch_size=200, verbose=0).argmax(-1) == labels
    said = float(re.search(r"on the sample's 2,000 test images: ([\d.]+)%", README).group(1))
    assert 100 * np.mean(right) == pytest.approx(said, abs=0.11)
