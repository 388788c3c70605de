"""Batches of images: the same for a seed, however many threads there are."""

import keras
import numpy as np
import pytest

from keras_tokenlearner.data import ArrayImages, ImageBatches

IMAGES = ArrayImages(
    np.random.default_rng(0).integers(0, 256, (22, 12, 16, 3)).astype("uint8"), np.arange(22) % 5
)


def flip(seed):
    return keras.layers.RandomFlip("horizontal", seed=seed)


def mix(seed):
    return keras.layers.Pipeline(
        [keras.layers.CutMix(seed=seed), keras.layers.MixUp(seed=seed + 1)]
    )


def test_epoch_has_every_image_once_in_a_new_order():
    images = ArrayImages(np.arange(10, dtype="uint8").reshape(10, 1, 1, 1), np.arange(10))
    batches = ImageBatches(images, (1, 1, 1), batch_size=5, seed=1)
    epochs = []
    for _ in range(2):
        x, y = zip(*(batches[index] for index in range(len(batches))), strict=True)
        order = np.concatenate(x).ravel()
        np.testing.assert_array_equal(order, np.concatenate(y).argmax(-1))
        epochs.append(order.tolist())
        batches.on_epoch_end()
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))
    assert epochs[0] != epochs[1]


def test_testing_keeps_order_pixels_and_the_last_batch():
    batches = ImageBatches(IMAGES, (12, 16, 3), 4, training=False, crop=0.1, augment=mix)
    assert len(batches) == 6 and batches[5][0].shape == (2, 12, 16, 3)
    images, labels = zip(*(batches[index] for index in range(6)), strict=True)
    np.testing.assert_array_equal(np.concatenate(images), IMAGES.images)
    np.testing.assert_array_equal(np.concatenate(labels), np.eye(5)[IMAGES.labels])


def seen_by_fit(threads, seed=3):
    """Return the running mean of the loss after every batch of two epochs, without learning."""
    batches = ImageBatches(IMAGES, (8, 8, 3), 4, crop=0.3, augment=flip, seed=seed, threads=threads)
    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.Dense(5, kernel_initializer="ones")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
    losses = []
    keep = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda _, logs: losses.append(logs["loss"])
    )
    model.fit(batches, epochs=2, shuffle=False, verbose=0, callbacks=[keep])
    return np.array(losses)


def test_fit_sees_the_same_with_any_number_of_threads():
    one, many, other = seen_by_fit(1), seen_by_fit(3), seen_by_fit(1, seed=4)
    assert one.shape == (10,)
    np.testing.assert_allclose(many, one, rtol=1e-6)
    assert not np.allclose(one[:5], one[5:], rtol=1e-3)  # each epoch is another
    assert not np.allclose(one, other, rtol=1e-3)


def test_augmentation_on_the_host():
    def batch(epochs=0, seed=0, before=()):
        batches = ImageBatches(IMAGES, (12, 16, 3), 8, augment=mix, seed=seed)
        for _ in range(epochs):
            batches.on_epoch_end()
        for index in before:
            batches[index]
        return batches[1]

    images, labels = batch()
    assert images.dtype == labels.dtype == np.float32
    assert images.min() >= 0 and images.max() < 255.01
    np.testing.assert_allclose(labels.sum(1), 1, rtol=1e-5)
    assert ((labels > 0).sum(1) >= 2).any()  # of two images
    others = (batch(), True), (batch(before=[0, 1]), True), (batch(epochs=1), False)
    for again, same in (*others, (batch(seed=1), False)):
        assert np.array_equal(again[0], images) is np.array_equal(again[1], labels) is same


def test_mirrored_image_is_one_of_two():
    images = ImageBatches(IMAGES, (12, 16, 3), 22, augment=flip)[0][0]
    plain = ImageBatches(IMAGES, (12, 16, 3), 22)[0][0]
    mirrored = (images == plain[:, :, ::-1]).all((1, 2, 3))
    kept = (images == plain).all((1, 2, 3))
    assert (mirrored ^ kept).all() and mirrored.any() and kept.any()


def test_shifted_image_moves_as_a_whole_with_black_border():
    images = ImageBatches(IMAGES, (12, 16, 3), 22, shift=0.25)[0][0]
    plain = ImageBatches(IMAGES, (12, 16, 3), 22)[0][0]
    shifts = []
    for image, before in zip(images, plain, strict=True):
        padded = np.pad(before, [(3, 3), (4, 4), (0, 0)])
        places = [(top, left) for top in range(7) for left in range(9)]
        found = [p for p in places if (image == padded[p[0] :, p[1] :][:12, :16]).all()]
        assert len(found) == 1
        shifts += found
    assert len(set(shifts)) > 10


def test_crop_and_shift_exclude_each_other():
    with pytest.raises(ValueError, match="pass one of the two. Received: crop=0.1, shift=0.2"):
        ImageBatches(IMAGES, (12, 16, 3), 4, crop=0.1, shift=0.2)


@pytest.mark.slow
def test_rand_augment():
    batches = ImageBatches(IMAGES, (12, 16, 3), 22, augment=keras.layers.RandAugment)
    (images, _), (again, _) = batches[0], batches[0]
    plain, _ = ImageBatches(IMAGES, (12, 16, 3), 22)[0]
    np.testing.assert_array_equal(images, again)
    assert np.abs(images - plain).max() > 10


def test_too_few_images():
    with pytest.raises(ValueError, match="Received: 22 images, batch_size=23"):
        ImageBatches(IMAGES, (12, 16, 3), 23)
