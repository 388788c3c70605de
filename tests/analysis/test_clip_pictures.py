"""Figures and animations of clip maps, checked by their pixels."""

import numpy as np
import pytest

from keras_tokenlearner.analysis import (
    animate_clip_maps,
    draw_clip_maps,
    token_maps,
    token_similarity,
)
from keras_tokenlearner.applications import CATALOG, create_model, list_models
from keras_tokenlearner.data import video
from keras_tokenlearner.models import VisionTransformerConfig

pytestmark = pytest.mark.once("torch")

pytest.importorskip("matplotlib", reason="the extra `plot`")
CLIP = np.full((6, 32, 48, 1), 100.0)


@pytest.fixture
def maps():
    """Maps of two tokens at three times. The first attends left and fades, the second right."""
    found = np.zeros((3, 4, 6, 2))
    found[:, :, :3, 0] = np.array([1.0, 0.6, 0.2])[:, None, None]
    found[:, :, 3:, 1] = 0.5
    return found


@pytest.mark.every_backend  # a backend resizes the maps
def test_draw_clip_maps_figure_has_rows_for_the_clip_and_for_each_token(maps, tmp_path):
    figure = draw_clip_maps(CLIP, maps, columns=3, path=tmp_path / "strip.png")
    assert (tmp_path / "strip.png").stat().st_size > 5_000
    panels = np.array([axis.images[0].get_array() for axis in figure.axes])
    clip, first, second, strongest = panels.reshape(4, 3, 32, 48, 3)
    np.testing.assert_allclose(clip, 100 / 255)
    left, right = first[:, :, :20].mean((1, 2, 3)), first[:, :, 28:].mean((1, 2, 3))
    assert (left > right + 0.05).all() and left[0] > left[1] > left[2]  # one range for all frames
    assert np.ptp(second[:, :, 28:].mean((1, 2, 3))) < 1e-6
    colours = [strongest[0, 16, column] for column in (8, 40)]
    assert np.abs(colours[0] - colours[1]).max() > 0.1
    assert [axis.get_title() for axis in figure.axes[:3]] == ["frame 1", "frame 3", "frame 6"]


def test_animate_clip_maps_to_gif_keeps_frame_times_and_brightness(maps, tmp_path):
    image = pytest.importorskip("PIL.Image", reason="the extra `image`")
    figure = animate_clip_maps(CLIP, maps, tmp_path / "maps.gif", frame_rate=5)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["clip", "token 1", "token 2", "strongest"]
    with image.open(tmp_path / "maps.gif") as gif:
        durations, brightness = [], []
        for number in range(gif.n_frames):  # equal frames may be stored as one
            gif.seek(number)
            durations.append(gif.info["duration"])
            brightness.append(np.asarray(gif.convert("L")).mean())
    assert sum(durations) == 6 * 200
    assert brightness == sorted(brightness, reverse=True) and brightness[0] > brightness[-1]


def test_animate_clip_maps_to_mp4_keeps_frame_rate_and_brightness(maps, tmp_path):
    pytest.importorskip("av", reason="the extra `video`")
    animate_clip_maps(CLIP, maps, tmp_path / "maps.mp4", frame_rate=5)
    info = video.probe(tmp_path / "maps.mp4")
    assert info.duration == pytest.approx(6 / 5) and info.frame_rate == 5
    assert info.height % 2 == info.width % 2 == 0
    brightness = video.read_frames(tmp_path / "maps.mp4", [0, 0.5, 1]).mean((1, 2, 3))
    assert brightness[0] > brightness[1] > brightness[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in list_models("tokenlearner_*") if len(CATALOG[name].input_shape) == 4]
)
def test_draw_clip_maps_of_every_video_model_has_a_row_per_token(name):
    """The models have their full depth, but small clips and narrow transformers."""
    config, shape, narrow = CATALOG[name].config, (4, 64, 96, 3), {}
    if isinstance(config, VisionTransformerConfig):
        frames, height, width = config.patch_size
        shape = (2 * frames, 2 * height, 3 * width, 3)
        narrow = {"hidden_dim": 16, "num_heads": 1}
    model = create_model(name, classes=2, input_shape=shape, **narrow)
    clip = np.random.default_rng(0).integers(0, 256, shape)
    (maps,) = token_maps(model, clip[None])
    assert len(draw_clip_maps(clip, maps, columns=2).axes) == 2 * (config.num_tokens + 2)
    similarity = token_similarity(model, clip[None])
    assert similarity.shape[1:] == 2 * (len(maps) * config.num_tokens,)


@pytest.mark.parametrize("frame_rate", [0, -1, 2.5, "6", float("nan"), 1001])
@pytest.mark.parametrize("ending", ["gif", "mp4"])
def test_animate_clip_maps_with_a_wrong_frame_rate_raises_and_writes_nothing(
    frame_rate, ending, maps, tmp_path
):
    with pytest.raises(ValueError, match="animate_clip_maps: `frame_rate`") as caught:
        animate_clip_maps(CLIP, maps, tmp_path / f"maps.{ending}", frame_rate)
    assert f"frame_rate={frame_rate!r}" in str(caught.value) and not list(tmp_path.iterdir())


def test_animate_clip_maps_to_gif_accepts_100_frames_per_second_and_refuses_101(maps, tmp_path):
    image = pytest.importorskip("PIL.Image", reason="the extra `image`")
    with pytest.raises(ValueError, match="frame_rate=101"):
        animate_clip_maps(CLIP, maps, tmp_path / "maps.gif", frame_rate=101)
    animate_clip_maps(CLIP, maps, tmp_path / "maps.gif", frame_rate=100)
    with image.open(tmp_path / "maps.gif") as gif:
        durations = []
        for number in range(gif.n_frames):  # equal frames may be stored as one
            gif.seek(number)
            durations.append(gif.info["duration"])
    assert sum(durations) == 6 * 10


@pytest.mark.parametrize("columns", [0, -1, 2.5])
def test_draw_clip_maps_with_wrong_columns_raises(columns, maps):
    with pytest.raises(ValueError, match=f"draw_clip_maps: `columns`.*columns={columns}"):
        draw_clip_maps(CLIP, maps, columns)


@pytest.mark.parametrize("shape", [(7, 4, 6, 2), (4, 6, 2)], ids=str)
def test_draw_and_animate_clip_maps_of_wrong_shapes_or_types_raise(shape, tmp_path):
    for draw in (draw_clip_maps, lambda *a: animate_clip_maps(*a, tmp_path / "a.gif")):
        with pytest.raises(ValueError, match=r"_clip_maps: `clip` .*\(6, 32, 48, [13]\)"):
            draw(CLIP, np.ones(shape))
        with pytest.raises(ValueError, match=r"`clip` .*\(6, 32, 48, 4\)"):
            draw(np.repeat(CLIP, 4, axis=-1), np.ones((6, 4, 6, 2)))
        with pytest.raises(ValueError, match="`clip` and `maps` .* function and ndarray"):
            draw(draw_clip_maps, CLIP)
    with pytest.raises(ValueError, match=r"`path` .*a\.png"):
        animate_clip_maps(CLIP, np.ones((6, 4, 6, 2)), tmp_path / "a.png")


def test_clip_maps_path_in_the_home_folder_is_expanded_and_in_a_missing_folder_raises(
    maps, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # Windows
    draw_clip_maps(CLIP, maps, columns=1, path="~/strip.png")
    animate_clip_maps(CLIP[:2], maps[:2], "~/maps.gif")
    assert {file.name for file in tmp_path.iterdir()} == {"strip.png", "maps.gif"}
    with pytest.raises(ValueError, match="draw_clip_maps: .*`path`.*none.*a.png"):
        draw_clip_maps(None, None, path="none/a.png")
    with pytest.raises(ValueError, match="animate_clip_maps: .*`path`.*none.*a.gif"):
        animate_clip_maps(None, None, "none/a.gif")
