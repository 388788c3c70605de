"""Exported models of videos against the package's own clips."""

import keras
import numpy as np
import pytest

from keras_tokenlearner import create_model, export
from keras_tokenlearner.analysis import token_maps
from keras_tokenlearner.data import video
from keras_tokenlearner.serving.served_model import ServedModel
from tests.data.video.files import write

tf = pytest.importorskip("tensorflow", reason="SavedModels are TensorFlow's")

STEP = 2 / 10  # every other frame at 10 frames per second
RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model of videos with random weights, and its export."""
    keras.utils.set_random_seed(0)
    model = create_model("tokenlearner_x2plus1d_pico", classes=3)
    random = np.random.default_rng(0)
    model.set_weights([w + random.normal(0, 0.1, w.shape) ** 2 for w in model.get_weights()])
    folder = tmp_path_factory.mktemp("video")
    path = export(model, folder, return_maps=True, frame_step=STEP, check=False).path
    return model, tf.saved_model.load(str(path)), path


def expected(model, clips):
    """Return the model's outputs for clips of the model's length."""
    _, _, height, width, _ = model.input_shape
    return model.predict(np.stack([video.fit_clip(x, height, width) for x in clips]), verbose=0)


def test_signature_named_clips_at_rate_for_all_frames_equals_the_model_on_video_batches(
    exported, tmp_path
):
    """All frames and their rate give the same clip as `VideoBatches` on the file."""
    pytest.importorskip("av", reason="reads videos")
    model, served, _ = exported
    (tmp_path / "a").mkdir()
    file = write(tmp_path / "a" / "clip.mp4", RANDOM.integers(0, 220, 40), rate=10, size=(48, 64))
    videos = video.from_folder(tmp_path)
    batches = video.VideoBatches(
        videos, model.input_shape[1:], batch_size=1, stride=2, frame_rate=10, training=False
    )
    right = model.predict(batches[0][0], verbose=0)
    frames = video.read_frames(file, np.arange(40) / 10)
    answer = served.clips_at_rate(frames[None], tf.constant([10.0]))
    np.testing.assert_allclose(answer["probabilities"], right, atol=1e-3)


@pytest.mark.once("tensorflow")
@pytest.mark.parametrize("length", [1, 5, 17, 64, 90])
@pytest.mark.parametrize("rate", [10.0, 12.5, 24.0, 29.97])
def test_places_at_rate_select_the_frames_of_uniform_clips(length, rate):
    from keras_tokenlearner.serving.video_signatures import places_at_rate

    found = places_at_rate(length, 8, tf.constant([rate]), STEP).numpy()[0]
    rate = float(np.float32(rate))
    times = video.uniform_clips(length / rate, 8, STEP, count=1)[0]
    starts = np.arange(length) / rate
    shown = np.searchsorted(starts, times + 1e-6, side="right") - 1
    np.testing.assert_array_equal(found, shown)


@pytest.mark.once("tensorflow")
@pytest.mark.parametrize("length", [1, 5, 17, 64, 90])
def test_even_places_select_the_frames_of_a_clip_over_the_whole_video(length):
    from keras_tokenlearner.serving.video_signatures import even_places

    times = video.uniform_clips(length, 8, length / 8, count=1)[0]
    np.testing.assert_array_equal(even_places(length, 8), np.floor(times + 1e-6))


def test_signature_named_clips_equals_the_model_for_any_size_and_length(exported):
    model, served, _ = exported
    frames, height, width, _ = model.input_shape[1:]
    for length, size in ((frames, (height, width)), (2 * frames, (50, 33)), (3, (20, 90))):
        clips = RANDOM.integers(0, 256, (2, length, *size, 3)).astype("uint8")
        chosen = clips[:, np.arange(frames) * length // frames]
        answer = served.clips(clips)
        # Antialiased resizing differs a little between backends.
        np.testing.assert_allclose(answer["probabilities"], expected(model, chosen), atol=1e-3)


def test_exported_signature_with_encoded_video_frames_gives_the_outputs_of_the_model(exported):
    model, served, _ = exported
    frames = model.input_shape[1]
    clip = RANDOM.integers(0, 256, (2 * frames, 40, 30, 3)).astype("uint8")
    encoded = [[tf.io.encode_png(frame).numpy() for frame in clip]]
    answer = served.signatures["serving_default"](tf.constant(encoded))
    np.testing.assert_allclose(answer["probabilities"], expected(model, [clip[::2]]), atol=1e-3)


def test_exported_video_token_maps_equal_the_maps_of_the_model(exported):
    model, served, _ = exported
    clips = RANDOM.integers(0, 256, (2, *model.input_shape[1:])).astype("uint8")
    maps = token_maps(model, clips.astype("float32"))
    np.testing.assert_allclose(served.clips(clips)["token_maps"], maps, atol=1e-4)
    plain = served.serve(clips.astype("float32"))
    np.testing.assert_allclose(plain["outputs"], expected(model, clips), atol=1e-4)


def test_served_video_rows_share_batches_and_bad_frame_rates_raise(exported):
    _, _, path = exported
    model = ServedModel(path)
    clip = RANDOM.integers(0, 256, (20, 30, 40, 3)).astype("uint8")
    row = model.check_row("clips_at_rate", {"clips": clip.tolist(), "frame_rate": 25})
    key = model.batch_key("clips_at_rate", row)
    answers = model.answer(key, [row, row])
    np.testing.assert_allclose(answers[0]["probabilities"], answers[1]["probabilities"])
    frames = [tf.io.encode_png(frame).numpy() for frame in clip[:4]]
    row = model.check_row("encoded", {"encoded": frames})
    assert model.weight(row) == 4 * 30 * 40
    assert model.answer(model.batch_key("encoded", row), [row])[0]["probabilities"].shape == (3,)
    row = model.check_row("clips_at_rate", {"clips": clip, "frame_rate": 0})
    with pytest.raises(ValueError, match="`frame_rate`"):
        model.answer(key, [row])


def test_export_of_an_image_model_with_frame_step_raises(tmp_path):
    with pytest.raises(ValueError, match="export: .*frame_step=0.1"):
        export(create_model("vit_pico8", classes=2), tmp_path / "model", frame_step=0.1)


@pytest.mark.once("tensorflow")
def test_video_signatures_of_short_clips_resize_frames_before_they_repeat(monkeypatch):
    """All frames of one large image would need gigabytes."""
    from keras_tokenlearner.serving import video_signatures as module

    resized, fit_frames = [], module.fit_frames

    def counted(clips, *size):
        tf.py_function(lambda count: resized.append(int(count)), [tf.shape(clips)[1]], [])
        return fit_frames(clips, *size)

    monkeypatch.setattr(module, "fit_frames", counted)
    found = module.video_signatures(lambda x: x, (8, 6, 6, 3), lambda x: {"pixels": x}, STEP)
    for length in (1, 3, 11):
        clips = RANDOM.integers(0, 256, (2, length, 9, 14, 3)).astype("uint8")
        files = [[tf.io.encode_png(frame).numpy() for frame in clip] for clip in clips]
        rates, evenly = tf.constant([10.0, 3.0]), np.arange(8) * length // 8
        at_rate = module.places_at_rate(length, 8, rates, STEP).numpy()
        answers = {
            "clips": (found["clips"](clips), [evenly, evenly]),
            "encoded": (found["encoded"](tf.constant(files)), [evenly, evenly]),
            "clips_at_rate": (found["clips_at_rate"](clips, rates), at_rate),
        }
        for name, (answer, places) in answers.items():
            right = [video.fit_clip(clip[x], 6, 6) for clip, x in zip(clips, places, strict=True)]
            np.testing.assert_allclose(answer["pixels"], right, atol=1e-3, err_msg=name)
        assert set(resized) == {min(length, 8)}
        resized.clear()


@pytest.mark.once("tensorflow")
def test_served_narrow_clips_and_frames_raise_before_they_are_resized(exported):
    """Resized to the height of the model, the frame would have 100 million pixels."""
    model = ServedModel(exported[2])
    narrow = np.zeros((1, 1, 100_000, 3), "uint8")
    rows = {"clips": {"clips": narrow}, "clips_at_rate": {"clips": narrow, "frame_rate": 25}}
    for signature, row in rows.items():
        with pytest.raises(ValueError, match=" 16777216 .* 1 x 100000 "):
            model.check_rows(signature, [row])
    file = tf.io.encode_png(narrow[0]).numpy()
    row = model.check_row("encoded", {"encoded": [file]})
    with pytest.raises(ValueError, match=" 16777216 .* 1 x 100000 "):
        model.decode("encoded", [row])
    small = np.zeros((2, 4, 8, 3), "uint8")  # counts as resized, with all frames of the model
    frames, height, width, channels = exported[0].input_shape[1:]
    assert model.weight({"clips": small}) == frames * height * 2 * width * channels
