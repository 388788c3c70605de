"""keras-cv's augmentation in our batches, and our clips and backbones in its classifiers."""

import numpy as np
import pytest

from keras_tokenlearner import create_model
from keras_tokenlearner.data import ArrayImages, ImageBatches
from keras_tokenlearner.data.video import VideoBatches, from_folder
from tests.data.video.files import write
from tests.skips import peer

pytestmark = pytest.mark.peers
keras_cv = peer("keras_cv")


@pytest.mark.parametrize("name", ["RandomFlip", "RandAugment", "MixUp", "CutMix"])
def test_keras_cv_layer_augments_image_batches(name):
    random = np.random.default_rng(0)
    images = ArrayImages(random.integers(0, 256, (8, 16, 16, 3)).astype("uint8"), np.arange(8))
    arguments = {"value_range": (0, 255)} if name == "RandAugment" else {}

    def augment(seed):
        return getattr(keras_cv.layers, name)(seed=seed, **arguments)

    batches = ImageBatches(images, (16, 16, 3), 8, augment=augment, label_mode="categorical")
    (varied, labels), (again, _) = batches[0], batches[0]
    if name == "RandomFlip":  # other layers also draw from TensorFlow's global generator
        np.testing.assert_array_equal(varied, again)
    plain, _ = ImageBatches(images, (16, 16, 3), 8)[0]
    assert varied.shape == plain.shape and (varied != plain).any()
    np.testing.assert_allclose(labels.sum(1), 1, rtol=1e-5)
    assert ((labels > 0).sum(1) > 1).any() is np.bool_(name in ("MixUp", "CutMix"))


@pytest.fixture
def clips(tmp_path):
    pytest.importorskip("av", reason="the extra `video`")
    for name, greys in (("a", [0, 50, 100, 150]), ("b", [200, 150, 100, 50])):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "clip.mp4", greys)
    return VideoBatches(from_folder(tmp_path), (4, 32, 32, 3), batch_size=2)


def swin():
    return keras_cv.models.VideoSwinBackbone(
        input_shape=(4, 32, 32, 3),
        embed_dim=12,
        depths=[1, 1],
        num_heads=[1, 2],
        patch_size=[2, 4, 4],
        window_size=[2, 4, 4],
        include_rescaling=True,
    )


def ours():
    return create_model("tokenlearner_x2plus1d_pico", include_top=False, input_shape=(4, 32, 32, 3))


@pytest.mark.parametrize("backbone", [swin, ours])
def test_keras_cv_video_classifier_trains_on_each_backbone(backbone, clips):
    model = keras_cv.models.VideoClassifier(
        backbone=backbone(), num_classes=2, activation="softmax", pooling="avg"
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    history = model.fit(clips, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"][0])
    clip, _ = clips[0]
    np.testing.assert_allclose(model.predict(clip, verbose=0).sum(1), 1, rtol=1e-4)
