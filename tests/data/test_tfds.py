"""Images of tensorflow-datasets: a small prepared set, and mocks of the paper's sets."""

import numpy as np
import pytest

from keras_tokenlearner.data import open_named
from keras_tokenlearner.data.tfds import FEW_SHOT, TfdsImages, load_tfds, splits_of

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


class Validated(ThreeColours):
    """The same data set with the splits of `food101`."""

    def _split_generators(self, _):
        return {"train": self._generate_examples([0]), "validation": self._generate_examples([4])}


class OneSplit(ThreeColours):
    """The same data set, without test images."""

    def _split_generators(self, _):
        return {"train": self._generate_examples([0])}


class Unlabelled(ThreeColours):
    """The same data set, with a number instead of a class."""

    def _info(self):
        features = {"image": tfds.features.Image(), "label": tfds.features.Scalar(np.int64)}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _generate_examples(self, places):
        for place in places:
            yield place, {"image": IMAGES[place], "label": place}


@pytest.fixture(scope="module", autouse=True)
def prepared(tmp_path_factory):
    """Prepare the data sets of this file, except for `unprepared`."""
    folder = tmp_path_factory.mktemp("tfds")
    config = tfds.download.DownloadConfig(compute_stats=tfds.download.ComputeStatsMode.SKIP)
    for name in ("three_colours", "validated", "one_split", "unlabelled"):
        builder = tfds.builder(name, data_dir=folder, file_format="array_record")
        builder.download_and_prepare(download_config=config)
    tfds.core.add_data_dir(folder)


def test_tfds_images_equal_the_records_of_the_data_set():
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


@pytest.mark.parametrize("name", ["validated", "validated:1.0.0"])
def test_load_tfds_without_a_test_split_returns_the_validation_split(name):
    train, test = load_tfds(name)
    np.testing.assert_array_equal(train[0][0], IMAGES[0])
    np.testing.assert_array_equal(test[0][0], IMAGES[4])


@pytest.mark.parametrize(("name", "said"), [("one_split", "splits train"), ("unlabelled", "label")])
def test_tfds_data_set_without_test_images_or_classes_raises(name, said):
    with pytest.raises(ValueError, match=f"open_named: `name`.*name='{name}' with the .*{said}$"):
        open_named(f"tfds:{name}")


def test_tfds_name_with_a_version_has_the_same_splits_as_without_a_version():
    assert splits_of("TfdsImages", "imagenet2012:5.1.0", "images") == ("train", "validation")
    found = splits_of("TfdsImages", "uc_merced:2.0.0", "images")
    assert found == ("train[:1000]", "train[1000:]")


@pytest.mark.parametrize(
    ("name", "test"),
    [
        ("i_naturalist2017", "validation"),
        ("i_naturalist2018:1.0.0", "validation"),
        ("i_naturalist2021", "val"),
        ("places365_small", "validation"),
        ("visual_domain_decathlon/aircraft:1.2.0", "validation"),
    ],
)
def test_splits_of_a_data_set_without_test_labels_returns_the_validation_split(name, test):
    assert splits_of("TfdsImages", name, "images") == ("train", test)


@pytest.mark.parametrize("name", [*FEW_SHOT, "imagenet2012", "cifar10", "fashion_mnist"])
def test_tfds_few_shot_sets_imagenet_cifar10_and_fashion_mnist_have_images_and_labels(name):
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
