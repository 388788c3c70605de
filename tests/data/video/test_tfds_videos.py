"""Videos of a small data set that the test prepares."""

import keras
import numpy as np
import pytest

from keras_tokenlearner.data import video
from keras_tokenlearner.data.video.tfds import from_tfds
from keras_tokenlearner.evaluation import predict_videos
from keras_tokenlearner.training.identity import identity_of

tfds = pytest.importorskip("tensorflow_datasets", reason="the extra `tfds`")

pytestmark = pytest.mark.once("torch")
# One video per number, with 5 + number frames. Video 9 has no label.
LEVELS = {"train": (0, 1, 2, 3), "test": (4, 5), "unlabelled": (9,)}


def frames(number):
    """Return the frames of a video: each is 10 brighter than the one before."""
    levels = 40 * (number % 2) + 10 * np.arange(5 + number)
    return np.broadcast_to(levels[:, None, None, None], (5 + number, 20, 24, 3)).astype("uint8")


class DarkAndLight(tfds.core.GeneratorBasedBuilder):
    """Six videos of two classes."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "video": tfds.features.Video((None, 20, 24, 3)),
            "label": tfds.features.ClassLabel(names=["dark", "light"]),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, _):
        return {split: self._generate_examples(numbers) for split, numbers in LEVELS.items()}

    def _generate_examples(self, numbers):
        for number in numbers:
            yield number, {"video": frames(number), "label": -1 if number == 9 else number % 2}


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    config = tfds.download.DownloadConfig(compute_stats=tfds.download.ComputeStatsMode.SKIP)
    builder = tfds.builder("dark_and_light", data_dir=folder, file_format="array_record")
    builder.download_and_prepare(download_config=config)
    tfds.core.add_data_dir(folder)
    return video.open_videos("tfds:dark_and_light")


def test_tfds_videos_read_frames_returns_the_frames_at_the_times(splits):
    train, test = splits
    assert (len(train), len(test)) == (4, 2) and train.class_names == ("dark", "light")
    # tensorflow-datasets shuffles.
    found = {round(train.probe(place).duration * 25): place for place in range(4)}
    assert sorted(found) == [5, 6, 7, 8]
    for count, place in found.items():
        number = count - 5
        assert train.labels[place] == number % 2
        pixels = train.read_frames(place, [0.0, 0.05, 0.16, 9.0, 0.04])
        np.testing.assert_array_equal(pixels, frames(number)[[0, 1, 4, -1, 1]])
    one = train.take([found[6]])
    assert len(one) == 1 and one.probe(0).duration == 6 / 25 and one.labels.tolist() == [1]
    assert (one.probe(0).height, one.probe(0).width) == (20, 24)


def test_video_batches_and_predict_videos_give_the_stored_frames_of_tfds_videos(splits):
    batches = video.VideoBatches(splits[0], (2, 16, 16, 3), 2, stride=1, training=False)
    clips, labels = (np.concatenate(part) for part in zip(batches[0], batches[1], strict=True))
    assert clips.shape == (4, 2, 16, 16, 3)
    np.testing.assert_allclose(clips[:, 1] - clips[:, 0], 10, atol=1e-4)
    np.testing.assert_array_equal(labels, splits[0].labels)
    inputs = keras.Input((2, 16, 16, 3))
    model = keras.Model(
        inputs, keras.layers.GlobalAveragePooling3D(data_format="channels_last")(inputs)
    )
    means, read = predict_videos(model, splits[1], stride=1, clips="segments", crops=1, verbose=0)
    lengths = [round(splits[1].probe(place).duration * 25) for place in range(2)]
    assert read.all() and sorted(lengths) == [9, 10]
    for mean, length in zip(means, lengths, strict=True):
        starts = np.minimum(np.arange(0, length, 2), length - 2)
        expected = np.mean([frames(length - 5)[start : start + 2].mean() for start in starts])
        np.testing.assert_allclose(mean, expected, atol=1e-3)


def test_identity_of_tfds_videos_changes_with_selection_and_rate_but_not_with_local_files(
    splits, tmp_path, monkeypatch
):
    """`files` of these videos holds numbers. A local file named `0` must have no effect."""
    train, _ = splits
    first, *others = (from_tfds("dark_and_light", f"train[{i}:{i + 1}]") for i in range(4))
    alike = next(one for one in others if one.labels == first.labels)
    slow = from_tfds("dark_and_light", "train[:1]", frame_rate=5)
    found = [identity_of(one) for one in (train, first, alike, slow, train.take([0, 1, 3, 2]))]
    assert len(set(found)) == len(found)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0").write_bytes(b"local")
    assert identity_of(from_tfds("dark_and_light", "train")) == found[0]


def test_tfds_videos_without_labels_raise(splits):
    with pytest.raises(ValueError, match="from_tfds: `labels`.*from -1 to -1"):
        from_tfds("dark_and_light", "unlabelled")


def test_tfds_videos_of_a_missing_data_set_raise():
    message = r"open_videos: .* videos.* tfds.builder\('dark_and_lite'"
    with pytest.raises(ValueError, match=message):
        video.open_videos("tfds:dark_and_lite")
