"""Figures show the given arrays. Arrays of wrong shapes or types raise an error."""

import csv
import re

import keras
import numpy as np
import pytest

from keras_tokenlearner.analysis import (
    draw_costs,
    draw_token_entropy,
    draw_token_maps,
    draw_token_similarity,
    token_maps,
    token_similarity,
)
from keras_tokenlearner.applications import CATALOG, create_model, list_models
from tests.data.shuffled import Shuffled

pytestmark = [
    pytest.mark.once("torch"),
    pytest.mark.skipif(
        keras.backend.backend() == "tensorflow",
        reason="only on jax and torch: the figures do not depend on the backend",
    ),
]


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3)).astype("float32")


@pytest.fixture
def maps():
    return np.random.default_rng(1).uniform(0, 1, (5, 4, 6, 4))


def _panels(figure):
    return [axis.images[0].get_array() for axis in figure.axes]


def test_draw_token_maps_figure_has_image_rows_and_token_columns(images, maps, tmp_path):
    figure = draw_token_maps(images, maps, titles=list("abcde"), path=tmp_path / "maps.png")
    assert [axis.get_ylabel() for axis in figure.axes[::6]] == list("abcde")
    assert (tmp_path / "maps.png").stat().st_size > 10_000
    assert len(figure.axes) == 5 * (1 + 4 + 1)
    assert {panel.shape for panel in _panels(figure)} == {(32, 48, 3)}
    np.testing.assert_allclose(_panels(figure)[0], images[0] / 255)


def test_draw_token_maps_with_titles_in_a_shuffled_pandas_series_keeps_their_order(images, maps):
    figure = draw_token_maps(images, maps, titles=Shuffled("abcde", [4, 3, 2, 1, 0]))
    assert [axis.get_ylabel() for axis in figure.axes[::6]] == list("abcde")


def test_token_maps_figure_is_bright_at_large_values():
    maps = np.zeros((1, 4, 6, 4))
    maps[0, 2, 1, 3] = 1
    overlay = _panels(draw_token_maps(np.zeros((1, 32, 48, 1)), maps, tokens=[3]))[1].sum(-1)
    row, column = np.unravel_index(overlay.argmax(), overlay.shape)
    assert (row // 8, column // 8) == (2, 1)


def test_draw_token_maps_of_chosen_tokens_keeps_titles_and_colours(images, maps):
    chosen, full = draw_token_maps(images, maps, tokens=[3, 0]), draw_token_maps(images, maps)
    titles = [axis.get_title() for axis in chosen.axes[:4]]
    assert titles == ["image", "token 4", "token 1", "strongest"]
    assert list(chosen.axes[1].title.get_color()) == list(full.axes[4].title.get_color())
    np.testing.assert_array_equal(_panels(chosen)[1], _panels(full)[4])
    np.testing.assert_array_equal(_panels(chosen)[3], _panels(full)[5])


def test_entropy_figure_is_dark_where_one_token_attends_and_bright_where_all_attend():
    maps = np.ones((1, 2, 2, 4))
    maps[0, 0, 0] = [1, 0, 0, 0]
    entropy = _panels(draw_token_entropy(np.zeros((1, 8, 8, 3)), maps))[2].sum(-1)
    assert entropy[0, 0] < entropy[-1, -1] / 2


@pytest.mark.every_backend
@pytest.mark.parametrize("name", ["tokenlearner_pico8_4at1", "tokenlearner_pico8_4at1_fuser"])
def test_token_maps_figure_of_a_saved_and_loaded_model_is_unchanged(name, tmp_path, images):
    model = create_model(name, classes=3, input_shape=(32, 48, 3))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    figure = draw_token_maps(images, token_maps(loaded, images))
    expected = draw_token_maps(images, token_maps(model, images))
    np.testing.assert_allclose(_panels(figure)[1], _panels(expected)[1], atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in list_models("tokenlearner_*") if len(CATALOG[name].input_shape) == 3]
)
def test_token_maps_of_every_image_model_can_be_drawn(name):
    """The model has its full depth, but narrow layers."""
    config = CATALOG[name].config
    shape = (4 * config.patch_size[0], 6 * config.patch_size[1], CATALOG[name].input_shape[-1])
    model = create_model(name, classes=2, input_shape=shape, hidden_dim=16, num_heads=1)
    images = np.random.default_rng(0).integers(0, 256, (2, *shape))
    maps = token_maps(model, images)
    assert len(draw_token_maps(images, maps).axes) == 2 * (config.num_tokens + 2)
    assert len(draw_token_entropy(images, maps).axes) == 2 * 3
    similarity = token_similarity(model, images)
    assert len(draw_token_similarity(similarity).axes[0].get_yticks()) == config.num_tokens


def test_token_similarity_figure_prints_the_mean_over_images_in_each_cell(tmp_path):
    cosines = np.array([[[1, 0.25], [0.25, 1]], [[1, 0.75], [0.75, 1]]])
    figure = draw_token_similarity(cosines, path=tmp_path / "similarity.png")
    assert [text.get_text() for text in figure.axes[0].texts] == ["1.00", "0.50", "0.50", "1.00"]
    assert (tmp_path / "similarity.png").is_file()


ROWS = [
    {"model": "small", "accuracy": 0.7, "gmacs": 1.0},
    {"model": "beaten", "accuracy": 0.6, "gmacs": 2.0},
    {"model": "large", "accuracy": 0.9, "gmacs": 4.0},
    {"model": "unknown", "accuracy": None, "gmacs": 4.0},
]


def test_draw_costs_of_rows_and_of_a_csv_file_draws_equal_points(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text(
        "# a command\nmodel,accuracy,gmacs\nlarge,0.9,4\nsmall,0.7,1\nbeaten,0.6,2\nunknown,,4\n"
    )
    for figure in (draw_costs(ROWS), draw_costs(file)):
        axis = figure.axes[0]
        drawn = axis.collections[0].get_offsets().tolist()
        assert drawn == [[1.0, 0.7], [2.0, 0.6], [4.0, 0.9]]
        assert [text.get_text() for text in axis.texts] == ["small", "beaten", "large"]
        assert axis.lines[0].get_xydata().tolist() == [[1.0, 0.7], [4.0, 0.9]]


def test_draw_token_maps_and_draw_costs_with_wrong_arguments_raise(images, maps):
    with pytest.raises(ValueError, match=r"shapes \(5, 32, 48, 3\) and \(4, 4, 6, 4\)"):
        draw_token_maps(images, maps[:4])
    with pytest.raises(ValueError, match="`images` and `maps` .* VisionTransformer and ndarray"):
        draw_token_maps(create_model("tokenlearner_pico8_4at1"), images)
    with pytest.raises(ValueError, match=r"draw_token_maps: .*tokens=\[0, 4\]"):
        draw_token_maps(images, maps, tokens=[0, 4])
    with pytest.raises(ValueError, match="draw_costs: .*'gflops'"):
        draw_costs(ROWS, cost="gflops")
    with pytest.raises(ValueError, match=r"draw_costs: `rows`.*rows='none\.csv'"):
        draw_costs("none.csv")
    with pytest.raises(ValueError, match="cost=.gmacs"):
        draw_costs(ROWS[3:])


def test_figure_path_in_the_home_folder_is_expanded(images, maps, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # Windows
    (tmp_path / "rows.csv").write_text("model,accuracy,gmacs\nlarge,0.9,4\n")
    draw_token_maps(images[:1], maps[:1], path="~/maps.png")
    draw_token_entropy(images[:1], maps[:1], path="~/entropy.png")
    draw_token_similarity(np.eye(3)[None], path="~/similarity.png")
    draw_costs("~/rows.csv", path="~/costs.png")
    found = {file.stem for file in tmp_path.glob("*.png")}
    assert found == {"maps", "entropy", "similarity", "costs"}


@pytest.mark.parametrize(
    "draw",
    [
        lambda path: draw_token_maps(None, None, path=path),
        lambda path: draw_token_entropy(None, None, path=path),
        lambda path: draw_token_similarity(None, path=path),
        lambda path: draw_costs(None, path=path),
    ],
)
def test_figure_path_in_a_missing_folder_raises_before_other_arguments_are_read(draw, tmp_path):
    with pytest.raises(ValueError, match="draw_.*: .*`path`.*figure.png"):
        draw(tmp_path / "missing" / "figure.png")
    with pytest.raises(ValueError, match="draw_.*: `path` .*path=3"):
        draw(3)


@pytest.mark.parametrize("draw", [draw_token_maps, draw_token_entropy])
@pytest.mark.parametrize("shape", [(5, 32, 48, 4), (5, 32, 48, 2), (0, 32, 48, 3)], ids=str)
def test_draw_token_maps_and_entropy_of_no_images_or_wrong_channels_raise(draw, shape, maps):
    message = rf"{draw.__name__}: `images` .*shapes {re.escape(str(shape))}"
    with pytest.raises(ValueError, match=message):
        draw(np.zeros(shape), maps[: shape[0]])


@pytest.mark.parametrize("draw", [draw_token_maps, draw_token_entropy])
@pytest.mark.parametrize("titles", [["cat"], list("abcdef"), "abcde", [1, 2, 3, 4, 5]], ids=str)
def test_draw_token_maps_and_entropy_with_wrong_titles_raise(draw, titles, images, maps):
    received = re.escape(f"titles={titles}")
    with pytest.raises(ValueError, match=f"{draw.__name__}: `titles` .*{received}"):
        draw(images, maps, titles)


@pytest.mark.parametrize("shape", [(3, 3), (0, 3, 3), (2, 3, 4)], ids=str)
def test_draw_token_similarity_of_a_wrong_shape_raises(shape):
    message = f"draw_token_similarity: `similarity` .*{re.escape(str(shape))}"
    with pytest.raises(ValueError, match=message):
        draw_token_similarity(np.zeros(shape))


@pytest.mark.parametrize("cell", ["n/a", "1,5", "inf"])
@pytest.mark.parametrize("column", ["gmacs", "accuracy"])
def test_draw_costs_of_a_cell_that_is_no_number_raises(cell, column, tmp_path):
    row = {"model": "large", "accuracy": "0.9", "gmacs": "4", column: cell}
    file = tmp_path / "rows.csv"
    with open(file, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(row))
        writer.writeheader()
        writer.writerows([dict.fromkeys(row, "1"), row])
    for rows in (file, [*ROWS, row]):
        with pytest.raises(ValueError) as caught:
            draw_costs(rows)
        for word in ("draw_costs: ", "`rows`", repr(column), f"{column}={cell!r}", "'large'"):
            assert word in str(caught.value)


def test_draw_costs_with_missing_values_omits_their_points():
    missing = [
        {"model": "a", "accuracy": 0.5, "gmacs": value} for value in (float("nan"), None, "")
    ]
    figure = draw_costs([*ROWS[:1], *missing, {"model": "b", "accuracy": 0.5}])
    assert figure.axes[0].collections[0].get_offsets().tolist() == [[1.0, 0.7]]


def test_draw_token_maps_and_entropy_without_matplotlib_raise_and_name_the_extra(
    images, maps, monkeypatch
):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    for draw in (draw_token_maps, draw_token_entropy):
        with pytest.raises(ImportError, match="extra `plot`"):
            draw(images, maps)
