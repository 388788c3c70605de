"""The examples in the docstrings run and give the printed results."""

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_tokenlearner
from keras_tokenlearner import layers, models
from tests.data.video.files import write

Image = pytest.importorskip("PIL.Image", reason="examples read images")
pytest.importorskip("av", reason="examples read videos")
REFERENCE = (Path(__file__).parent.parent / "docs/api.md").read_text()
PUBLIC = re.findall(r"^   (keras_tokenlearner\S+)$", REFERENCE, re.MULTILINE)


def _modules(package):
    yield package
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        yield importlib.import_module(info.name)


def _documented():
    """Return public classes and functions by the path of their definition."""
    return {
        f"{module.__name__}.{name}": value
        for module in _modules(keras_tokenlearner)
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    }


def _examples(value):
    names = {"keras": keras, "np": np, **vars(layers), **vars(models)}
    names |= vars(keras_tokenlearner)
    names |= vars(inspect.getmodule(value))
    finder = doctest.DocTestFinder(recurse=False)
    return [test for test in finder.find(value, value.__name__, globs=names) if test.examples]


DOCUMENTED = _documented()

# Names without a runnable example. They need downloads, hours, keras-hub, TensorFlow or a server,
# or have nothing to show.
WITHOUT = {
    *("load_cifar10", "read_real_labels", "TfdsImages", "TfdsVideos", "from_tfds", "open_videos"),
    *("train", "Cifar10Recipe", "FashionMnistRecipe", "FewShotProtocol", "predict_videos"),
    *("hub_backbone", "export", "serve", "demo", "predict", "VideoError", "VideoInfo"),
    *("upload_preset", "PublishedCheckpoint", "Checkpoint", "Plan", "Statement", "LoadReport"),
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder with only the files that examples name."""
    monkeypatch.chdir(tmp_path)
    for place, name in enumerate(("dark", "light")):
        (tmp_path / "videos" / name).mkdir(parents=True)
        write(tmp_path / "videos" / name / "0.mp4", [50 + 100 * place] * 30)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("RGB", (32, 24)).save(tmp_path / "images" / name / "0.png")
    lines = ("file,label", "videos/dark/0.mp4,dark", "videos/light/0.mp4,light")
    (tmp_path / "videos.csv").write_text("\n".join(lines))
    (tmp_path / "avid.json").write_text('{"dark/0.mp4": "dark", "light/0.mp4": "light"}')
    (tmp_path / "charades.csv").write_text("id,actions\n0,c092 11.90 21.20;c147 0.00 12.60")


@pytest.mark.once("torch")
def test_public_names_have_docstrings():
    assert len(DOCUMENTED) > 30
    assert [name for name, value in DOCUMENTED.items() if not inspect.getdoc(value)] == []


@pytest.mark.once("torch")
def test_public_names_have_examples():
    public = [
        value
        for module in PUBLIC
        for value in vars(importlib.import_module(module)).values()
        if inspect.isclass(value) or inspect.isfunction(value)
    ]
    assert len(public) > 100
    assert {value.__name__ for value in public if not _examples(value)} == WITHOUT


# Examples of these modules compute numbers on the backend.
COMPUTING = ("layers.", "models.", "training.", "analysis.maps.")
COMPUTING = tuple(f"{keras_tokenlearner.__name__}.{part}" for part in COMPUTING)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name.startswith(COMPUTING) else pytest.mark.once("torch"))
        for name in DOCUMENTED
        if _examples(DOCUMENTED[name])
    ],
)
def test_docstring_examples_run(name, files):
    for test in _examples(DOCUMENTED[name]):
        output = []
        result = doctest.DocTestRunner().run(test, out=output.append)
        assert result.attempted and not result.failed, "".join(output)
