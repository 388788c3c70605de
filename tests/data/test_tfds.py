"""Images of tensorflow-datasets: a small prepared set, and mocks of the paper's sets."""

import numpy as np
import pytest

from keras_tokenlearner.data.tfds import FEW_SHOT, TfdsImages, load_tfds

tfds = pytest.importorskip("tensorflow_datasets", reason="the extra `tfds`")

pytestmark = pytest.mark.once("torch")
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 9, 7, 3)).astype("uint8")


class ThreeColours(tfds.core.GeneratorBasedBuilder):
    """Six images of three classes."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "file_name": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.ClassLabel(names=["red", "green", "blue"]),
                }
            )
        )

    def _split_generators(self, _):
        return {"train": self._generate_examples(range(4)), "test": self._generate_examples([4, 5])}

    def _generate_examples(self, places):
        for place in places:
            example = {"file_name": f"{place}.png", "image": IMAGES[place], "label": place % 3}
            yield place, example


class Unprepared(ThreeColours):
    """The same data set, but never prepared."""


def test_tfds_images_equal_the_records_of_the_data_set(tmp_path):
    config = tfds.download.DownloadConfig(compute_stats=tfds.download.ComputeStatsMode.SKIP)
    builder = tfds.builder("three_colours", data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare(download_config=config)
    tfds.core.add_data_dir(tmp_path)
    train, test = load_tfds("three_colours")
    assert (len(train), len(test)) == (4, 2)
    assert train.class_names == ("red", "green", "blue")
    places = [int(name[0]) for name in train.names]  # tensorflow-datasets shuffles
    assert sorted(places) == [0, 1, 2, 3]
    assert train.labels.tolist() == [place % 3 for place in places]
    for (pixels, label), place in zip(train, places, strict=True):
        np.testing.assert_array_equal(pixels, IMAGES[place])
        assert label == place % 3
    first = TfdsImages("three_colours", "train[:1]")
    assert first.names == train.names[:1] and len(first) == 1


@pytest.mark.parametrize("name", [*FEW_SHOT, "imagenet2012", "cifar10", "fashion_mnist"])
def test_tfds_data_sets_of_the_paper_have_images_and_labels(name):
    with tfds.testing.mock_data(num_examples=5):
        train, test = load_tfds(name)
        assert len(train) == len(test) == 5
        if not set(train.builder.info.features) & {"bbox", "head_bbox"}:  # mocked boxes are invalid
            pixels, label = test[2]
            assert len(train.labels) == len(train.names) == 5
            assert pixels.dtype == np.uint8 and 0 <= label < len(train.class_names)
            assert pixels.shape[2] == (1 if name == "fashion_mnist" else 3)
    assert name.startswith("imagenet") is (len(train.class_names) == 1000)
    assert len(train.class_names) >= 8


def test_tfds_error_without_a_message_is_named_by_its_class(monkeypatch):
    def fails(*arguments, **options):
        raise FileNotFoundError

    monkeypatch.setattr(tfds, "builder", fails)
    with pytest.raises(ValueError, match="TfdsImages: `name`.*name='mine'.*FileNotFoundError"):
        TfdsImages("mine", "train")


@pytest.mark.parametrize("name", ["three_colors", "unprepared"])
def test_tfds_data_set_that_is_not_prepared_raises(name):
    with pytest.raises(ValueError, match=rf"tfds.builder\('{name}', file_format='array_record'\)"):
        TfdsImages(name, "train")
