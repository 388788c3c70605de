"""The README's code runs as printed, and its numbers equal the package's."""

import re
import runpy
import tomllib
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_tokenlearner.analysis import catalog_costs
from keras_tokenlearner.applications import CATALOG, create_model

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
OFFLINE = [
    block for block in BLOCKS if "hf://" not in block
]  # tests/presets/test_hub.py runs the other blocks
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A working folder with random `photos`, and `vit.keras` with weights trained on CIFAR-10."""
    pillow = pytest.importorskip("PIL.Image", reason="the README reads images")
    pytest.importorskip("matplotlib", reason="the README draws attention maps")
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(16):
                pixels = random.integers(0, 256, (40, 48, 3), dtype="uint8")
                pillow.fromarray(pixels).save(folder / f"{number}.png")
    trained = create_model("tokenlearner_nano4_8at2", weights="cifar10")
    teacher = create_model("vit_nano4", classes=10, input_shape=(32, 32, 3))
    for layer in teacher.layers:
        layer.set_weights(trained.get_layer(layer.name).get_weights())
    teacher.save("vit.keras")
    keras.config.disable_interactive_logging()
    yield
    keras.config.enable_interactive_logging()


def test_readme_python_blocks_run_in_order(photos, capsys):
    names = {}
    for block in OFFLINE:
        exec(re.sub(r"epochs=\d+", "epochs=1", block), names)  # noqa: S102
    said = float(re.search(r"top-1 accuracy: ([\d.]+)%", README).group(1))
    printed = re.search(r"'accuracy': ([\d.]+)", capsys.readouterr().out).group(1)
    assert 100 * float(printed) == pytest.approx(said, abs=0.11)
    assert Path("tokens.png").stat().st_size > 1000
    assert keras.saving.load_model("photos.keras").output_shape == (None, 2)
    assert keras.saving.load_model("faster.keras").name == names["student"].name
    assert names["tokens"].shape == (None, 8, 256)


@pytest.mark.once("torch")
def test_readme_model_table_equals_the_catalogue():
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \| ([\d.]+) \| ([\d.]+) \|", README, re.MULTILINE)
    assert len(rows) == 5
    for name, shape, gflops, mparams in rows:
        found = catalog_costs(name)
        assert shape == "x".join(str(size) for size in CATALOG[name].input_shape)
        assert float(gflops) == pytest.approx(found.paper_gflops, rel=0.005)
        assert float(mparams) == pytest.approx(found.params / 1e6, abs=0.06)


@pytest.mark.once("torch")
def test_readme_relative_links_lead_to_files():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    files = [link for link in links if not link.startswith("http")]
    assert len(files) > 20
    assert [link for link in files if not (ROOT / link).exists()] == []


@pytest.mark.once("torch")
def test_readme_extras_exist():
    table = README.partition("| extra | adds |")[2].partition("\n\n")[0]
    named = re.findall(r"`([\w-]+)`", "".join(re.findall(r"^\| (.*?) \|", table, re.MULTILINE)))
    assert len(named) == 15
    assert set(named) <= set(PROJECT["optional-dependencies"])


@pytest.mark.once("torch")
def test_readme_badges_state_the_requirements():
    (keras_needed,) = (found for found in PROJECT["dependencies"] if found.startswith("keras"))
    for name, text in (
        ("python", PROJECT["requires-python"].removeprefix(">=") + "+"),
        ("keras", keras_needed.removeprefix("keras>=") + "+"),
        ("licence", PROJECT["license"]),
    ):
        assert f">{text}</text>" in (ROOT / f"docs/badges/{name}.svg").read_text()


@pytest.mark.once("torch")
def test_citation_file_authors_equal_the_project_authors():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^  - name: (.*)$", citation, re.MULTILINE) == [
        author["name"] for author in PROJECT["authors"]
    ]


@pytest.mark.once("torch")
def test_pypi_page_equals_the_readme_without_relative_links():
    made = runpy.run_path(str(ROOT / "docs/pypi.py"))["pypi_page"](README)
    assert (ROOT / "docs/pypi.md").read_text() == made, "run `python docs/pypi.py`"
    links = re.findall(r"\]\(([^)]+)\)", made)
    assert links
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    assert PROJECT["readme"]["file"] == "docs/pypi.md"
