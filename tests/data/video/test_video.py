"""Generated video files: the expected frames are read, and every failure raises or warns."""

import struct
import sys
from fractions import Fraction

import keras
import numpy as np
import pytest

from keras_tokenlearner.data import video
from keras_tokenlearner.data.decoding import MAX_PIXELS
from keras_tokenlearner.data.video import (
    VideoBatches,
    VideoError,
    VideoInfo,
    VideoList,
    probe,
    read_frames,
)
from tests.data.shuffled import Shuffled
from tests.data.video.files import write

pytestmark = pytest.mark.once("torch")

av = pytest.importorskip("av", reason="the extra `video`")


def levels_of(frames):
    """Return the grey level of the right half of each frame, to the nearest 5."""
    means = frames[:, :, frames.shape[2] * 3 // 4 :].mean((1, 2, 3))
    return (np.round(means / 5) * 5).astype(int).tolist()


@pytest.fixture
def ramp(tmp_path):
    """Forty frames at 10 per second, each 5 brighter than the last. Every 12th is a keyframe."""
    return write(tmp_path / "ramp.mp4", range(0, 200, 5))


def test_probe_returns_size_frame_rate_and_duration(ramp):
    info = probe(ramp)
    assert (info.height, info.width, info.frame_rate) == (32, 48, 10)
    assert info.duration == pytest.approx(4.0, abs=0.01)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0.0, 0.1, 0.2], [0, 5, 10]),
        ([0.05, 0.19], [0, 5]),  # the frame shown at that time
        ([3.9, 0.0, 2.5], [195, 0, 125]),  # any order, over keyframes
        ([1.3, 1.3, 1.4], [65, 65, 70]),
        ([3.99], [195]),
    ],
    ids=str,
)
def test_read_frames_returns_the_frames_shown_at_the_times(ramp, times, expected):
    frames = read_frames(ramp, times)
    assert frames.shape == (len(times), 32, 48, 3) and frames.dtype == np.uint8
    assert levels_of(frames) == expected


def test_read_frames_of_distant_times_skips_the_frames_between(tmp_path, monkeypatch):
    path = write(tmp_path / "long.mp4", [5 * (i % 40) for i in range(400)])
    decoded = []
    original = video.decoding._Reader._decode

    def counting(self):
        for item in original(self):
            decoded.append(item[0])
            yield item

    monkeypatch.setattr(video.decoding._Reader, "_decode", counting)
    assert levels_of(read_frames(path, [0.0, 20.5, 39.0])) == [0, 25, 150]
    assert len(decoded) < 60


def test_read_frames_of_a_variable_frame_rate_follows_the_timestamps(tmp_path):
    path = write(tmp_path / "vfr.mp4", [0, 50, 100, 150], times=[0, 10, 200, 210])
    assert levels_of(read_frames(path, [0.0, 0.05, 0.1, 1.0, 1.95, 2.0, 2.1])) == [
        0, 0, 50, 50, 50, 100, 150,
    ]  # fmt: skip


MATRICES = {  # display matrix (a, b, c, d), and how players change the stored frame
    "quarter turn clockwise": ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
    "quarter turn anticlockwise": ((0, -1, 1, 0), np.rot90),
    "half turn": ((-1, 0, 0, -1), lambda x: np.rot90(x, 2)),
    "mirrored": ((-1, 0, 0, 1), lambda x: x[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda x: x[::-1]),
    "mirrored, then turned clockwise": ((0, -1, -1, 0), lambda x: np.rot90(x[:, ::-1], -1)),
    "mirrored, then turned anticlockwise": ((0, 1, 1, 0), lambda x: np.rot90(x[:, ::-1])),
}


def with_matrix(path, numbers):
    """Write a copy of an MP4 file whose track header has another display matrix."""
    content = path.read_bytes()

    def matrix(a, b, c, d):
        return struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)

    place = content.index(matrix(1, 0, 0, 1), content.index(b"tkhd"))
    other = path.with_name("other.mp4")
    other.write_bytes(content[:place] + matrix(*numbers) + content[place + 36 :])
    return other


@pytest.mark.parametrize("name", MATRICES)
def test_display_matrix_turns_and_mirrors_frames_like_video_players(name, tmp_path):
    numbers, change = MATRICES[name]
    corner = np.zeros((2, 32, 48, 3), "uint8")
    corner[:, :16, :12] = 200  # one corner, so that every change gives another picture
    upright = write(tmp_path / "upright.mp4", corner)
    shown = with_matrix(upright, numbers)
    expected = change(read_frames(upright, [0.0])[0])
    np.testing.assert_array_equal(read_frames(shown, [0.0])[0], expected)
    assert (probe(shown).height, probe(shown).width) == expected.shape[:2]


@pytest.mark.parametrize(("ratio", "width"), [((4, 3), 64), ((1, 2), 24), ((1, 1), 48)], ids=str)
def test_read_frames_of_non_square_pixels_returns_square_pixels(ratio, width, tmp_path):
    path = write(tmp_path / "wide.mp4", [100, 100], ratio=Fraction(*ratio))
    info, frame = probe(path), read_frames(path, [0.0])[0]
    assert (info.height, info.width) == frame.shape[:2] == (32, width)
    assert frame[:, : width // 2 - 3].mean() > frame[:, width // 2 + 3 :].mean() + 20
    turned = probe(with_matrix(path, (0, 1, -1, 0)))
    assert (turned.height, turned.width) == (width, 32)


def test_video_frames_stretched_to_too_many_pixels_raise(tmp_path):
    """The pixels of this small file are 32767 times wider than high."""
    path = write(tmp_path / "wide.mp4", [100, 100], size=(64, 96), ratio=Fraction(4, 3))
    content = path.read_bytes()
    place = content.index(b"pasp") + 4
    path.write_bytes(content[:place] + struct.pack(">II", 32_767, 1) + content[place + 8 :])
    with pytest.raises(VideoError, match=rf"wide\.mp4.* {MAX_PIXELS} pixels.* 3145632 x 64"):
        read_frames(path, [0.0])


def test_video_frames_of_too_many_pixels_raise_before_decoding(ramp, monkeypatch):
    monkeypatch.setattr(video.decoding, "MAX_PIXELS", 32 * 48 - 1)
    monkeypatch.setattr(video.decoding._Reader, "_decode", None)
    with pytest.raises(VideoError, match=r"ramp\.mp4.* 1535 pixels.* 48 x 32"):
        read_frames(ramp, [0.0])


def test_read_frames_of_a_one_frame_video_returns_the_frame(tmp_path):
    path = write(tmp_path / "one.mp4", [70])
    assert levels_of(read_frames(path, [0.0, 0.0])) == [70, 70]
    clip, _ = VideoBatches(
        video.VideoList((str(path),), np.array([0]), ("a",)), (4, 16, 16, 3), 1, training=False
    )[0]
    assert clip.shape == (1, 4, 16, 16, 3) and clip.mean() > 60


def _audio(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), "float32"), "fltp", "mono")
        frame.rate = 8000
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)


@pytest.fixture
def broken(tmp_path, ramp):
    """Paths of files from which no clip can be read."""
    content = ramp.read_bytes()
    header = content.index(b"mdat") + 4
    files = {
        "empty.mp4": b"",
        "text.mp4": b"no video" * 100,
        "headless.mp4": content[: len(content) // 2],
        "noise.mp4": (
            content[:header] + bytes(len(content[header : content.index(b"moov") - 4]))
            + content[content.index(b"moov") - 4 :]
        ),
    }  # fmt: skip
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    _audio(tmp_path / "audio.mp4")
    return [tmp_path / name for name in (*files, "audio.mp4", "gone.mp4")]


def test_read_frames_of_a_broken_file_raises_and_names_the_file(broken):
    for path in broken:
        with pytest.raises(VideoError, match=f"^{path}: "):
            read_frames(path, [0.0, 1.0])


def test_read_frames_of_a_truncated_file_raises_and_names_the_file(tmp_path):
    path = tmp_path / "cut.avi"
    write(path, [100] * 200, gop=1)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])
    with pytest.raises(VideoError, match=r"cut\.avi: "):
        read_frames(path, [0.0, 19.0])


def test_clip_times_of_each_kind_of_clip_stay_within_the_video():
    random = np.random.default_rng(0)
    for _ in range(20):
        times = video.random_clip(10, 8, 0.5, random)
        assert times[0] >= 0 and times[-1] < 10
        np.testing.assert_allclose(np.diff(times), 0.5)
    short = video.random_clip(1.0, 8, 0.5, random)
    np.testing.assert_allclose(short, [0, 0.5, *[0.999] * 6])
    np.testing.assert_allclose(video.uniform_clips(9, 2, 0.5, 1), [[4.0, 4.5]])
    covered = video.segments(10, 4, 1)
    assert sorted({int(t) for t in covered.ravel()}) == list(range(10))
    assert video.segments(3, 4, 1).shape == (1, 4)


def test_fit_clip_and_augment_clip_change_all_frames_equally():
    frame = np.random.default_rng(0).integers(0, 256, (40, 60, 3))
    clip = np.stack([frame] * 5).astype("uint8")
    for seed in range(4):
        found = video.augment_clip(clip, 16, 24, np.random.default_rng(seed))
        assert found.shape == (5, 16, 24, 3)
        for other in found[1:]:
            np.testing.assert_allclose(other, found[0], atol=1e-4)
    first, second = (video.augment_clip(clip, 16, 24, np.random.default_rng(s)) for s in (0, 1))
    assert np.abs(first - second).max() > 1
    left, right = (video.fit_clip(clip, 40, 40, place) for place in (0, 1))
    np.testing.assert_allclose(left, clip[:, :, :40])
    np.testing.assert_allclose(right, clip[:, :, 20:])


def test_fit_clip_of_very_narrow_frames_raises_before_they_are_resized():
    with pytest.raises(ValueError, match=" 16777216 .* 2 frames of 1 x 90000 .* 224 x 20160000"):
        video.fit_clip(np.zeros((2, 1, 90_000, 3), "uint8"), 224, 224)
    with pytest.raises(ValueError, match=f" {4 * 90 * 448**2} .* 90 frames of 1 x 90 "):
        video.augment.covering_size((90, 1, 90), (448, 448))
    # A frame that becomes smaller, and common aspect ratios, have no limit.
    assert video.augment.covering_size((1, 64, 2**20), (32, 32)) == (32, 2**19)
    assert video.augment.covering_size((99, 240, 426), (448, 448)) == (448, 795)


@pytest.fixture
def folder(tmp_path):
    for label, name in enumerate(("dark", "light")):
        (tmp_path / "videos" / name).mkdir(parents=True)
        for index in range(3):
            write(tmp_path / "videos" / name / f"{index}.mp4", [40 + 120 * label] * 12)
    return tmp_path / "videos"


def test_video_list_from_each_source_has_the_files_and_labels_of_that_source(folder, tmp_path):
    found = video.from_folder(folder)
    assert found.class_names == ("dark", "light") and found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    (folder / "list.csv").write_text("file,label\nlight/0.mp4,b\ndark/1.mp4,a\n")
    rows = video.from_csv(folder / "list.csv")
    assert rows.labels.tolist() == [1, 0] and rows.files[0] == str(folder / "light/0.mp4")
    (tmp_path / "charades.csv").write_text('id,actions\nAB,"c092 1.0 2.0;c001 0 3; "\nCD,\n')
    actions = video.from_charades(tmp_path / "charades.csv", "videos")
    assert np.flatnonzero(actions.labels[0]).tolist() == [1, 92] and not actions.labels[1].any()
    assert actions.files == ("videos/AB.mp4", "videos/CD.mp4")
    assert actions.take([1]).protocol == actions.protocol and actions.protocol["frame_rate"] == 12
    half_a_minute = [len(video.segments(30, 64, 1 / rate)) for rate in (6, 12)]
    assert half_a_minute == [3, 6]
    (tmp_path / "avid.json").write_text('{"x.mp4": "tap dancing", "y.mp4": "none"}')
    avid = video.from_avid(tmp_path / "avid.json", "videos")
    assert avid.class_names == ("none", "tap dancing") and avid.labels.tolist() == [1, 0]
    assert avid.files == ("videos/x.mp4", "videos/y.mp4")
    named = video.from_csv(folder / "list.csv", class_names=("b", "c", "a"))
    assert named.labels.tolist() == [0, 2] and named.class_names == ("b", "c", "a")
    with pytest.raises(ValueError, match="`class_names`.*'tap dancing'"):
        video.from_avid(tmp_path / "avid.json", "videos", class_names=["none"])
    with pytest.raises(ValueError, match=r"from_avid: .*list\.csv"):
        video.from_avid(folder / "list.csv", "videos")
    with pytest.raises(ValueError, match=r"list\.csv .*'path'"):
        video.from_csv(folder / "list.csv", file_column="path")
    with pytest.raises(ValueError, match="from_folder: .*path=.*dark"):
        video.from_folder(tmp_path / "videos" / "dark")


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, -1], "from -1 to 0"),
        ([0, 2], "from 0 to 2"),
        ([0], r"labels of shape \(1,\) for 2 examples"),
        ([0.0, 1.0], "type float64"),
        (np.zeros((2, 3)), r"labels of shape \(2, 3\)"),
    ],
    ids=str,
)
def test_video_list_with_labels_that_are_no_classes_raises(labels, words):
    with pytest.raises(ValueError, match=f"VideoList: `labels`.*{words}"):
        VideoList(("a.mp4", "b.mp4"), labels, ("d", "l"))


def test_video_list_of_a_shuffled_pandas_series_keeps_files_and_labels_together():
    files, labels = Shuffled(["a.mp4", "b.mp4"], [1, 0]), Shuffled([1, 0], [1, 0])
    videos = VideoList(files, labels, Shuffled("dl", [1, 0]))
    assert videos.files == ("a.mp4", "b.mp4") and videos.labels.tolist() == [1, 0]
    assert videos.class_names == ("d", "l")
    first = videos.take([0])
    assert first.files == ("a.mp4",) and first.labels.tolist() == [1]


@pytest.mark.parametrize("kind", [tuple, list, np.array, range])
def test_video_list_take_accepts_every_kind_of_sequence(kind):
    videos = VideoList(("a.mp4", "b.mp4"), np.array([0, 1]), ("d", "l"))
    some = videos.take(range(1, -1, -1) if kind is range else kind([1, 0]))
    assert some.files == ("b.mp4", "a.mp4") and some.labels.tolist() == [1, 0]


@pytest.mark.parametrize("name", ["from_csv", "from_charades", "from_avid"])
@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"], ids=["missing", "damaged"])
def test_video_lists_of_a_missing_or_damaged_file_raise(name, content, tmp_path):
    path = tmp_path / "none.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        getattr(video, name)(path, "videos")
    assert str(caught.value).startswith(f"{name}: `path`")
    assert f"Received: path={str(path)!r}" in str(caught.value)


def test_video_lists_of_rows_with_too_few_columns_raise(tmp_path):
    path = tmp_path / "short.csv"
    for name, text in (("from_csv", "file,label\na,x\nb\n"), ("from_charades", "id,actions\nb\n")):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"{name}: .*short\.csv.*'b'"):
            getattr(video, name)(path, "videos")


@pytest.mark.parametrize(
    "action",
    ["c²", "c٣", "c157", "c-01", "092", "c", "c1.0", "c" + "9" * 5000],
    ids=lambda action: action[:9],
)
def test_charades_list_of_an_unknown_action_raises(action, tmp_path):
    (tmp_path / "list.csv").write_text(f"id,actions\nAB,c001 0 3;{action} 1 2\n")
    with pytest.raises(ValueError) as caught:
        video.from_charades(tmp_path / "list.csv", "videos")
    assert str(caught.value).startswith("from_charades: ")
    assert repr(f"{action} 1 2") in str(caught.value) and "'AB'" in str(caught.value)


def test_open_videos_without_test_videos_raises(tmp_path):
    (tmp_path / "train.csv").write_text("file,label\na.mp4,x\n")
    with pytest.raises(ValueError, match=r"open_videos: `path`.*test\.csv"):
        video.open_videos(tmp_path)


def test_video_batches_with_on_error_skip_report_number_and_names_of_broken_files(folder, broken):
    files = video.from_folder(folder)
    bad = broken[0]
    videos = video.VideoList((*files.files, str(bad)), np.append(files.labels, 0), ("d", "l"))
    batches = VideoBatches(videos, (3, 16, 16, 3), batch_size=4, training=False)
    clips, labels = zip(*(batches[index] for index in range(len(batches))), strict=True)
    with pytest.warns(UserWarning, match=f"1 of 7.*{bad}"):
        batches.on_epoch_end()
    assert [len(clip) for clip in clips] == [4, 3]
    assert list(batches.skipped) == [str(bad)] and str(bad) in batches.skipped[str(bad)]
    for clip, label in zip(np.concatenate(clips), np.concatenate(labels), strict=True):
        assert (clip[:, :, 10:].mean() > 100) == label  # broken files leave no black clips
    strict = VideoBatches(videos, (3, 16, 16, 3), 4, training=False, on_error="raise")
    with pytest.raises(VideoError, match=str(bad)):
        [strict[index] for index in range(len(strict))]
    only_bad = video.VideoList((str(bad),), np.array([0]), ("d", "l"))
    with pytest.raises(ValueError, match=f"VideoBatches: .*{bad}"):
        VideoBatches(only_bad, (3, 16, 16, 3), 4)[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"input_shape": (None, 3, 16, 16, 3)}, r"input_shape=\(None, 3, 16, 16, 3\)"),
        ({"input_shape": (16, 16, 3)}, r"input_shape=\(16, 16, 3\)"),
        ({"input_shape": (3, 16, 16, 4)}, r"input_shape=\(3, 16, 16, 4\)"),
        ({"stride": 0}, "stride=0"),
        ({"seed": -1}, "seed=-1"),
        ({"frame_rate": -5.0}, "frame_rate=-5.0"),
        ({"videos": ["a.mp4"]}, "videos="),
        ({"videos": VideoList((), np.array([], int), ("d", "l"))}, "0 rows"),
    ],
    ids=str,
)
def test_video_batches_with_wrong_arguments_raise(arguments, words):
    videos = VideoList(("a.mp4", "b.mp4"), np.array([0, 1]), ("d", "l"))
    arguments = {"videos": videos, "input_shape": (3, 16, 16, 3), "batch_size": 2, **arguments}
    with pytest.raises(ValueError, match=f"VideoBatches: .*{words}"):
        VideoBatches(**arguments)


@pytest.mark.parametrize("training", [True, False])
def test_video_batches_with_one_channel_are_grey(folder, training):
    videos = video.from_folder(folder).take([0, 5])
    colour, grey = (
        VideoBatches(videos, (3, 16, 16, channels), 2, training=training)[0][0]
        for channels in (3, 1)
    )
    assert grey.shape == (2, 3, 16, 16, 1)
    np.testing.assert_allclose(grey[..., 0], colour.mean(-1), atol=2)  # the files are grey


class FromLeftToRight(VideoList):
    """Videos that are dark on the left and bright on the right."""

    def probe(self, place):
        return VideoInfo(3.0, 10.0, 32, 48)

    def read_frames(self, place, times):
        row = np.linspace(0, 255, 48).astype("uint8")
        return np.broadcast_to(row[:, None], (len(times), 32, 48, 3))


@pytest.mark.every_backend
@pytest.mark.parametrize("size", [(20, 25), (64, 80)], ids=str)
def test_fit_clip_resizes_frames_as_keras_does(size):
    clip = np.random.default_rng(0).integers(0, 256, (2, 40, 50, 3), dtype="uint8")
    found = video.fit_clip(clip, *size)
    wanted = keras.ops.image.resize(clip.astype("float32"), size, antialias=True)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, keras.ops.convert_to_numpy(wanted), atol=1e-2)


@pytest.mark.parametrize(("flip", "ways"), [(True, {False, True}), (False, {False})])
def test_video_batches_mirror_some_clips_with_flip_and_no_clips_without_flip(flip, ways):
    videos = FromLeftToRight(("a",) * 20, np.zeros(20, int), ("x",))
    batches = VideoBatches(videos, (4, 16, 16, 3), batch_size=20, flip=flip)
    clips, _ = batches[0]
    assert {clip[..., 0, 0].mean() > clip[..., -1, 0].mean() for clip in clips} == ways


def test_video_batches_repeat_for_a_seed_and_change_each_epoch(folder):
    videos = video.from_folder(folder)
    one, other = (VideoBatches(videos, (3, 16, 16, 3), 4, seed=5) for _ in range(2))
    np.testing.assert_array_equal(other[1][0], other[1][0])
    for index in (1, 0):  # in any order
        np.testing.assert_array_equal(one[index][0], other[index][0])
    before = one[0][0]
    one.on_epoch_end()
    assert np.abs(one[0][0] - before).max() > 1


@pytest.mark.every_backend
def test_video_model_learns_from_a_folder(folder):
    import keras

    from keras_tokenlearner.models import VisionTransformer, VisionTransformerConfig

    config = VisionTransformerConfig(
        hidden_dim=16, num_layers=2, num_heads=2, patch_size=(2, 8, 8), reducer="token_learner",
        num_tokens=2, positions="sincos",
    )  # fmt: skip
    model = VisionTransformer(config, input_shape=(4, 16, 16, 3), classes=2)
    model.compile(
        keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    videos = video.from_folder(folder)
    model.fit(VideoBatches(videos, (4, 16, 16, 3), 3), epochs=8, verbose=0)
    test = VideoBatches(videos, (4, 16, 16, 3), 3, training=False)
    assert model.evaluate(test, verbose=0)[1] == 1.0


def test_probe_without_pyav_raises_and_names_the_extra(ramp, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match="extra `video`"):
        probe(ramp)


def test_video_batches_with_several_labels_per_video_replace_a_broken_file_and_its_labels(tmp_path):
    """No other video has the same two labels as the broken file."""
    files = [write(tmp_path / f"{level}.mp4", [level] * 4) for level in (20, 200)]
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    labels = np.array([[1, 0], [0, 1], [1, 1]], "float32")
    paths = tuple(str(file) for file in (*files, tmp_path / "broken.mp4"))
    batches = VideoBatches(VideoList(paths, labels, ("d", "l")), (2, 16, 16, 3), 3, seed=1)
    clips, found = batches[0]
    assert found.dtype == np.float32 and sorted(found.sum(1)) == [1, 1, 1]
    np.testing.assert_array_equal(clips[:, :, :, 10:].mean((1, 2, 3, 4)) > 100, found[:, 1] == 1)
    with pytest.warns(UserWarning, match="1 of 3.*broken"):
        batches.on_epoch_end()


def test_clip_conversion_to_four_channels_raises():
    clip = np.zeros((2, 4, 4, 3))
    assert video.in_channels(clip, 3) is clip and video.in_channels(clip, 1).shape == (2, 4, 4, 1)
    with pytest.raises(ValueError, match="in_channels: `channels`.*channels=4"):
        video.in_channels(clip, 4)
