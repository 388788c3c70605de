"""Logits and metrics of generated videos, compared with manual averages."""

import importlib

import keras
import ml_dtypes
import numpy as np
import pytest

from keras_tokenlearner import create_model
from keras_tokenlearner.data import video
from keras_tokenlearner.evaluation import evaluate_videos, predict_videos
from tests.data.video.files import write

pytest.importorskip("av", reason="the extra `video`")

evaluation_videos = importlib.import_module("keras_tokenlearner.evaluation.videos")


@pytest.fixture(scope="module")
def model():
    """A model of clips of four frames whose logits are plus and minus the mean grey level."""
    inputs = keras.Input((4, 16, 16, 3))
    x = keras.layers.GlobalAveragePooling3D(data_format="channels_last")(inputs)
    head = keras.layers.Dense(2, name="head")
    outputs = keras.layers.Softmax()(head(x))
    head.set_weights([np.array([[1, -1]] * 3) / 3, np.zeros(2)])
    return keras.Model(inputs, outputs)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Three videos: one brightens over 40 frames at 10 per second, one is dark, one is damaged."""
    folder = tmp_path_factory.mktemp("videos")
    files = [
        write(folder / "ramp.mp4", range(0, 200, 5), size=(16, 16)),
        write(folder / "dark.mp4", [20] * 40, size=(16, 16)),
        folder / "broken.mp4",
    ]
    files[2].write_bytes(b"no video")
    return video.VideoList(tuple(str(f) for f in files), np.array([0, 1, 0]), ("light", "dark"))


def grey(frames, level=lambda frame: 5 * frame):
    """Return the mean grey level of frames. The left half of each is brighter by 30."""
    return np.mean([level(frame) for frame in frames]) + 15


@pytest.mark.parametrize(
    "protocol, clips",
    [
        ({"clips": 1}, [range(16, 24, 2)]),  # from the middle
        ({"clips": 2}, [range(0, 8, 2), range(32, 40, 2)]),
        ({"clips": 2, "merge": "max"}, [range(32, 40, 2)]),
        ({"clips": "segments"}, [range(k, k + 8, 2) for k in range(0, 40, 8)]),
        ({"clips": 1, "stride": 1, "frame_rate": 5}, [range(16, 24, 2)]),
    ],
    ids=str,
)
def test_predict_videos_of_each_protocol_merges_the_logits_of_clips(model, videos, protocol, clips):
    with pytest.warns(UserWarning, match=r"broken\.mp4"):
        logits, read = predict_videos(model, videos, crops=1, **protocol)
    expected = np.mean([grey(clip) for clip in clips])
    assert read.tolist() == [True, True, False] and np.isnan(logits[2]).all()
    np.testing.assert_allclose(logits[0, 0], expected, atol=2)  # the files are compressed
    np.testing.assert_allclose(logits[1, 0], 35, atol=2)


def test_predict_videos_with_a_renamed_last_layer_merges_logits(model, videos):
    head = keras.layers.Dense(2, activation="softmax", name="mine")
    other = keras.Model(model.input, head(model.get_layer("head").input))
    head.set_weights(model.get_layer("head").get_weights())
    some = videos.take([0, 1])
    found, wanted = (predict_videos(each, some, clips=2)[0] for each in (other, model))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert np.abs(found).max() > 10  # no probabilities


def test_predict_videos_with_three_crops_merges_three_views(model, tmp_path):
    wide = write(tmp_path / "wide.mp4", [40] * 10, size=(16, 48))  # its left half is brighter
    one = video.VideoList((str(wide),), np.array([0]), ("light", "dark"))
    found = {crops: predict_videos(model, one, crops=crops)[0][0, 0] for crops in (1, 3)}
    np.testing.assert_allclose(found[1], 55, atol=3)
    np.testing.assert_allclose(found[3], np.mean([70, 55, 40]), atol=3)
    largest = predict_videos(model, one, crops=3, merge="max")[0][0, 0]
    np.testing.assert_allclose(largest, 70, atol=3)


@pytest.mark.filterwarnings("ignore:skipped")
def test_evaluate_videos_returns_metrics_and_counts_skipped_videos(model, videos):
    row = evaluate_videos(model, videos, clips=2)
    assert row == {"videos": 2, "skipped": 1, "top1": 0.5, "top5": 1.0, "mean_class": 0.5}
    several = video.VideoList(videos.files, np.array([[1, 0], [0, 1], [1, 1]]), videos.class_names)
    assert evaluate_videos(model, several, clips=1) == {"videos": 2, "skipped": 1, "map": 1.0}


@pytest.mark.filterwarnings("ignore:skipped")
def test_evaluate_videos_of_a_model_with_nan_logits_counts_them_as_wrong(videos):
    """Only the damaged video is skipped. The logits of the other two videos are NaN."""
    inputs = keras.Input((4, 16, 16, 3))
    head = keras.layers.Dense(2, bias_initializer=keras.initializers.Constant(np.nan), name="head")
    x = keras.layers.GlobalAveragePooling3D(data_format="channels_last")(inputs)
    broken = keras.Model(inputs, head(x))
    logits, read = predict_videos(broken, videos, clips=1, crops=1)
    assert read.tolist() == [True, True, False] and np.isnan(logits).all()
    row = evaluate_videos(broken, videos, clips=1, crops=1)
    assert row == {"videos": 2, "skipped": 1, "top1": 0.0, "top5": 0.0, "mean_class": 0.0}


@pytest.mark.once("torch")
def test_predict_and_evaluate_videos_with_wrong_arguments_raise(model, videos):
    with pytest.raises(video.VideoError, match=r"broken\.mp4"):
        predict_videos(model, videos, on_error="raise")
    for protocol in ({"crops": 2}, {"merge": "sum"}, {"clips": 0}, {"on_error": "stop"}):
        with pytest.raises(ValueError, match="predict_videos"):
            predict_videos(model, videos, **protocol)
    other = video.VideoList(videos.files, videos.labels, ("a", "b", "c"))
    with pytest.raises(ValueError, match="evaluate_videos: .* 3 .* 2 classes"):
        evaluate_videos(model, other)
    named = create_model(
        "tokenlearner_x2plus1d_pico",
        classes=2,
        input_shape=(2, 16, 16, 3),
        class_names=["dark", "light"],
    )
    with pytest.raises(ValueError, match="evaluate_videos: .*'dark' as class 0 .* class 1 of "):
        evaluate_videos(named, videos)
    broken = videos.take([2])
    with (
        pytest.warns(UserWarning),
        pytest.raises(ValueError, match=r"evaluate_videos: .*broken\.mp4"),
    ):
        evaluate_videos(model, broken)


def test_predict_videos_of_a_model_whose_head_was_called_before_uses_the_call_in_the_model(
    model, videos
):
    """`head.output` is the output of the first call, on black clips."""
    inputs, head = keras.Input((4, 16, 16, 3)), keras.layers.Dense(2, activation="softmax")
    pooling = keras.layers.GlobalAveragePooling3D(data_format="channels_last")
    head(pooling(keras.layers.Rescaling(0.0)(inputs)))
    other = keras.Model(inputs, head(pooling(inputs)))
    head.set_weights(model.get_layer("head").get_weights())
    some = videos.take([0, 1])
    found, wanted = (predict_videos(each, some, clips=1, crops=1)[0] for each in (other, model))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_predict_videos_of_bfloat16_logits_averages_the_views_in_float32(
    model, videos, monkeypatch
):
    view = np.full((1, 2), 1 + 2**-7, ml_dtypes.bfloat16)  # four of these need one more bit
    monkeypatch.setattr(evaluation_videos, "_logits_model", lambda model: model)
    monkeypatch.setattr(model, "predict_on_batch", lambda batch: np.repeat(view, len(batch), 0))
    logits, _ = predict_videos(model, videos.take([0]), clips=5, crops=1)
    assert logits.dtype == np.float32 and (logits == 1 + 2**-7).all()


@pytest.mark.once("torch")
def test_predict_and_evaluate_videos_with_models_of_unsuitable_inputs_or_outputs_raise(videos):
    inputs = {"known": keras.Input((4, 16, 16, 3)), "unknown": keras.Input((None, 16, 16, 3))}
    inputs["four channels"] = keras.Input((4, 16, 16, 4))
    pooling = keras.layers.GlobalAveragePooling3D(data_format="channels_last")
    named = "tokenlearner_x2plus1d_pico"
    models = {
        r"\(None, None, 16, 16, 3\)": keras.Model(inputs["unknown"], pooling(inputs["unknown"])),
        r"\(None, 4, 16, 16, 4\)": keras.Model(
            inputs["four channels"], pooling(inputs["four channels"])
        ),
        r"\(None, 64, 48\)": keras.Model(
            inputs["known"], keras.layers.Reshape((64, 48))(inputs["known"])
        ),
        "include_preprocessing=False": create_model(named, classes=2, include_preprocessing=False),
    }
    for words, model in models.items():
        for function in (predict_videos, evaluate_videos):
            with pytest.raises(ValueError, match=f"{function.__name__}: `model`.*{words}"):
                function(model, videos)


@pytest.mark.once("torch")
def test_predict_videos_skips_a_video_of_very_narrow_frames(model, tmp_path, monkeypatch):
    monkeypatch.setattr(video.augment, "MAX_RESIZED", 100)
    sizes = {"narrow.mp4": (8, 160), "square.mp4": (16, 16)}
    files = tuple(str(write(tmp_path / name, [20] * 40, size=sizes[name])) for name in sizes)
    clips = video.VideoList(files, np.array([0, 1]), ("light", "dark"))
    with pytest.warns(UserWarning, match=r"narrow\.mp4.* 8 x 160 "):
        _, read = predict_videos(model, clips, clips=1, crops=1, verbose=0)
    assert read.tolist() == [False, True]
