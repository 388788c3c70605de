"""Batches of images are the same for a seed, with any number of threads."""

import time
import warnings

import keras
import numpy as np
import pytest

from keras_tokenlearner._precision import dtype_policy
from keras_tokenlearner.data import ArrayImages, Batches, ImageBatches, Images, from_folder
from keras_tokenlearner.data.batches import ReadBatches

IMAGES = ArrayImages(
    np.random.default_rng(0).integers(0, 256, (22, 12, 16, 3)).astype("uint8"), np.arange(22) % 5
)


ONE_HOT = {"label_mode": "categorical"}


def flip(seed):
    return keras.layers.RandomFlip("horizontal", seed=seed)


def mix(seed):
    return keras.layers.Pipeline(
        [keras.layers.CutMix(seed=seed), keras.layers.MixUp(seed=seed + 1)]
    )


def test_image_batches_of_each_epoch_contain_every_image_once_in_a_new_order():
    images = ArrayImages(np.arange(10, dtype="uint8").reshape(10, 1, 1, 1), np.arange(10))
    batches = ImageBatches(images, (1, 1, 1), batch_size=5, seed=1)
    epochs = []
    for _ in range(2):
        x, y = zip(*(batches[index] for index in range(len(batches))), strict=True)
        order = np.concatenate(x).ravel()
        np.testing.assert_array_equal(order, np.concatenate(y))
        epochs.append(order.tolist())
        batches.on_epoch_end()
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))
    assert epochs[0] != epochs[1]


def test_image_batches_for_testing_keep_all_images_unchanged_and_in_order():
    batches = ImageBatches(IMAGES, (12, 16, 3), 4, training=False, crop=0.1, augment=mix)
    assert batches[0][1].dtype == np.int32
    assert len(batches) == 6 and batches[5][0].shape == (2, 12, 16, 3)
    images, labels = zip(*(batches[index] for index in range(6)), strict=True)
    np.testing.assert_array_equal(np.concatenate(images), IMAGES.images)
    np.testing.assert_array_equal(np.concatenate(labels), IMAGES.labels)


def seen_by_fit(threads, seed=3, **options):
    """Return the running mean of the loss after every batch of two epochs, without learning."""
    batches = ImageBatches(
        IMAGES, (8, 8, 3), 4, crop=0.3, augment=flip, seed=seed, threads=threads, **ONE_HOT
    )
    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.Dense(5, kernel_initializer="ones")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
    losses = []
    keep = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda _, logs: losses.append(logs["loss"])
    )
    model.fit(batches, epochs=2, verbose=0, callbacks=[keep], **options)
    return np.array(losses)


def test_fit_with_any_number_of_threads_sees_the_same_batches():
    one, many, other = seen_by_fit(1), seen_by_fit(3), seen_by_fit(1, seed=4)
    # `one` has the default of Keras, shuffle=True.
    np.testing.assert_allclose(seen_by_fit(1, shuffle=False), one, rtol=1e-6)
    assert one.shape == (10,)
    np.testing.assert_allclose(many, one, rtol=1e-6)
    assert not np.allclose(one[:5], one[5:], rtol=1e-3)  # each epoch differs
    assert not np.allclose(one, other, rtol=1e-3)


def test_image_batches_augmentation_depends_only_on_seed_epoch_and_index():
    def batch(epochs=0, seed=0, before=()):
        batches = ImageBatches(IMAGES, (12, 16, 3), 8, augment=mix, seed=seed, **ONE_HOT)
        for _ in range(epochs):
            batches.on_epoch_end()
        for index in before:
            batches[index]
        return batches[1]

    images, labels = batch()
    assert images.dtype == labels.dtype == np.float32
    assert images.min() >= 0 and images.max() < 255.01
    np.testing.assert_allclose(labels.sum(1), 1, rtol=1e-5)
    assert ((labels > 0).sum(1) >= 2).any()  # labels of two images are mixed
    others = (batch(), True), (batch(before=[0, 1]), True), (batch(epochs=1), False)
    for again, same in (*others, (batch(seed=1), False)):
        assert np.array_equal(again[0], images) is np.array_equal(again[1], labels) is same


def test_image_batches_with_mixup_in_half_precision_equal_batches_in_float32():
    options = {"input_shape": (12, 16, 3), "batch_size": 8, "augment": mix, **ONE_HOT}
    wanted = ImageBatches(IMAGES, **options)[0]
    with dtype_policy("mixed_float16"):
        found = ImageBatches(IMAGES, **options)[0]
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype == np.float32
        np.testing.assert_array_equal(one, other)


class SoftLabels(keras.layers.Layer):
    """Smooths labels: a half for the class, and a half for all classes together."""

    def __init__(self, seed):
        super().__init__()

    def call(self, data, training=True):
        return {**data, "labels": 0.5 * keras.ops.one_hot(data["labels"], 5) + 0.1}


@pytest.mark.once("torch")
def test_image_batches_with_soft_labels_of_an_augmentation_keep_them():
    labels = ImageBatches(IMAGES, (12, 16, 3), 4, augment=SoftLabels)[0][1]
    assert labels.dtype == np.float32
    np.testing.assert_allclose(np.sort(labels), [[0.1, 0.1, 0.1, 0.1, 0.6]] * 4)


def test_image_batches_with_random_flip_mirror_an_image_or_leave_the_image_unchanged():
    images = ImageBatches(IMAGES, (12, 16, 3), 22, augment=flip)[0][0]
    plain = ImageBatches(IMAGES, (12, 16, 3), 22)[0][0]
    mirrored = (images == plain[:, :, ::-1]).all((1, 2, 3))
    kept = (images == plain).all((1, 2, 3))
    assert (mirrored ^ kept).all() and mirrored.any() and kept.any()


def test_image_batches_with_shift_move_the_pixels_and_fill_the_border_with_black():
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


@pytest.mark.parametrize("size", [(12, 24), (24, 12)], ids=str)
def test_image_batches_with_shift_move_the_central_part_of_a_long_image(size):
    """An earlier version squashed the whole image, in training only."""
    pixels = np.random.default_rng(0).integers(1, 256, (1, *size, 3)).astype("uint8")
    images = ArrayImages(np.repeat(pixels, 22, axis=0), np.zeros(22, int))
    top, left = (side // 2 for side in (size[0] - 12, size[1] - 12))
    padded = np.pad(pixels[0], [(3, 3), (3, 3), (0, 0)])[top:, left:]
    parts = [
        padded[down : down + 12, right : right + 12] for down in range(7) for right in range(7)
    ]
    found = ImageBatches(images, (12, 12, 3), 22, shift=0.25)[0][0]
    assert all(any((image == part).all() for part in parts) for image in found)
    assert len({image.tobytes() for image in found}) > 10


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"shift": 4}, "shift=4"),  # pixels instead of a fraction
        ({"crop": -0.1}, "crop=-0.1"),
        ({"crop": 5}, "crop=5"),
        ({"augment": keras.layers.RandomFlip()}, "augment=<RandomFlip"),
        ({"augment": "flip"}, "augment='flip'"),
        ({"input_shape": (None, 12, 16, 3)}, r"input_shape=\(None, 12, 16, 3\)"),
        ({"input_shape": (12, 16)}, r"input_shape=\(12, 16\)"),
        ({"input_shape": (12, 16, 4)}, r"input_shape=\(12, 16, 4\).*\(12, 16, 3\)"),
        ({"input_shape": (12, 16, 4), "on_error": "skip"}, r"input_shape=\(12, 16, 4\)"),
        ({"batch_size": None}, "batch_size=None"),
        ({"preprocessing": {"interpolation": "bicubic"}}, "preprocessing={"),
    ],
    ids=str,
)
@pytest.mark.parametrize("training", [True, False])
def test_image_batches_with_wrong_arguments_raise(arguments, words, training):
    arguments = {"input_shape": (12, 16, 3), "batch_size": 4, "training": training, **arguments}
    with pytest.raises(ValueError, match=f"ImageBatches: .*{words}"):
        ImageBatches(IMAGES, **arguments)


@pytest.mark.once("torch")
def test_image_batches_with_both_crop_and_shift_raise():
    with pytest.raises(ValueError, match="Received: crop=0.1, shift=0.2"):
        ImageBatches(IMAGES, (12, 16, 3), 4, crop=0.1, shift=0.2)


@pytest.mark.slow
def test_rand_augment_changes_pixels_and_repeats_for_the_same_index():
    batches = ImageBatches(IMAGES, (12, 16, 3), 22, augment=keras.layers.RandAugment)
    (images, _), (again, _) = batches[0], batches[0]
    plain, _ = ImageBatches(IMAGES, (12, 16, 3), 22)[0]
    np.testing.assert_array_equal(images, again)
    assert np.abs(images - plain).max() > 10


@pytest.mark.once("torch")
@pytest.mark.parametrize("label", [-1, 2, 0.0, True])
@pytest.mark.parametrize("mode", ["int", "categorical"])
def test_image_batches_with_a_label_that_is_no_class_raise(label, mode):
    """A label of -1 would silently become the last class."""

    class Unlabelled(Images):
        class_names = ("a", "b")

        def __len__(self):
            return 2

        def __getitem__(self, place):
            return np.zeros((4, 4, 3), "uint8"), (0, label)[place]

    batches = ImageBatches(Unlabelled(), (4, 4, 3), 2, training=False, label_mode=mode)
    with pytest.raises(ValueError, match=rf"ImageBatches: `images\[1\]\[1\]`.*={label}$"):
        batches[0]


@pytest.mark.once("torch")
def test_image_batches_with_fewer_images_than_a_batch_raise():
    with pytest.raises(ValueError, match="Received: 22 images, batch_size=23"):
        ImageBatches(IMAGES, (12, 16, 3), 23)


@pytest.mark.parametrize("partial", [True, False])
@pytest.mark.parametrize("options", [{}, {"shuffle": False}, {"steps_per_epoch": 2}], ids=str)
def test_fit_with_any_shuffle_argument_keeps_the_batch_order_of_the_seed(options, partial):
    """Keras shuffles the batches of a PyDataset by default. Our batches keep their own order."""
    given = []

    class Rows(Batches):
        def __getitem__(self, index):
            before, found = self.epoch, super().__getitem__(index)
            # TensorFlow reads ahead in a thread, so an epoch may end during a read.
            epoch = before if before == self.epoch else -1
            given.append((epoch, found[0][:, 0].astype(int).tolist()))
            return found

    count = 10 if partial else 8
    rows = np.arange(count, dtype="float32")[:, None]
    batches = Rows((rows, rows), batch_size=2, seed=5, partial=partial)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(batches, epochs=2, verbose=0, **options)
    first = max(at for at, _ in given) - 1
    for epoch in (first, first + 1):
        order = np.arange(count)
        np.random.default_rng((5, epoch)).shuffle(order)
        wanted = order.reshape(-1, 2).tolist()
        found = [rows for at, rows in given if at == epoch]
        if "steps_per_epoch" in options:  # the order continues, and TensorFlow reads ahead
            assert found and all(rows in wanted for rows in found)
        else:
            assert found == wanted


def test_batches_indexed_outside_of_fit_return_the_batch_of_the_index():
    batches = Batches((np.arange(8),), batch_size=2, shuffle=False)
    assert [batches[index][0].tolist() for index in (3, 0, 3)] == [[6, 7], [0, 1], [6, 7]]


def test_batches_of_lists_and_pandas_keep_rows_together():
    """The index of a shuffled Series is no row number."""
    pandas = pytest.importorskip("pandas", reason="pip install pandas")
    labels = pandas.Series(range(8)).sample(frac=1, random_state=0)
    images = [[float(label)] for label in labels]
    batches = Batches((images, labels, tuple(labels)), batch_size=4, seed=1)
    for index in range(2):
        found, *others = batches[index]
        for other in others:
            np.testing.assert_array_equal(found[:, 0], other)


def test_batches_of_a_memory_map_read_rows_from_its_file(tmp_path):
    np.save(tmp_path / "rows.npy", np.arange(6))
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r+")
    batches = Batches((rows,), batch_size=3, shuffle=False)
    rows[0] = 9
    assert batches[0][0].tolist() == [9, 1, 2]


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ((np.zeros(4), np.zeros(3)), r"rows.*\[4, 3\]"),
        ((np.zeros(3), np.zeros(4)), r"rows.*\[3, 4\]"),
        ((), "`arrays`"),
        (np.zeros(4), "`arrays`"),
        ((np.zeros(1),), "1 rows, batch_size=2"),
        ((np.zeros(0),), "0 rows, batch_size=2"),
    ],
    ids=str,
)
def test_batches_of_unequal_or_too_few_rows_raise(arrays, words):
    with pytest.raises(ValueError, match=f"Batches: .*{words}"):
        Batches(arrays, batch_size=2)


@pytest.mark.once("torch")
@pytest.mark.parametrize("seed", [-1, 0.5, "0", None, True])
def test_batches_and_image_batches_with_a_wrong_seed_raise(seed):
    with pytest.raises(ValueError, match=f"^Batches: `seed`.*seed={seed!r}"):
        Batches((np.zeros(4),), batch_size=2, seed=seed)
    with pytest.raises(ValueError, match=f"^ImageBatches: `seed`.*seed={seed!r}"):
        ImageBatches(IMAGES, (12, 16, 3), 4, seed=seed)


def test_batches_with_partial_true_accept_one_row_and_raise_for_zero_rows():
    assert Batches((np.zeros(1),), batch_size=2, partial=True)[0][0].tolist() == [0]
    with pytest.raises(ValueError, match="0 rows, batch_size=2"):
        Batches((np.zeros(0),), batch_size=2, partial=True)


def test_mixup_or_cutmix_without_one_hot_labels_raises():
    for augment in (keras.layers.MixUp, keras.layers.CutMix):
        with pytest.raises(ValueError, match="label_mode='categorical'"):
            ImageBatches(IMAGES, (12, 16, 3), 4, augment=augment)
    with pytest.raises(ValueError, match="label_mode='categorical'"):
        ImageBatches(IMAGES, (12, 16, 3), 4, augment=mix)[0]
    images, labels = ImageBatches(IMAGES, (12, 16, 3), 4, augment=flip)[0]
    assert labels.dtype == np.int32 and labels.shape == (4,)
    with pytest.raises(ValueError, match="label_mode"):
        ImageBatches(IMAGES, (12, 16, 3), 4, label_mode="one_hot")


@pytest.fixture
def damaged(tmp_path):
    """Two classes of six files with different grey levels. Two files are damaged."""
    image = pytest.importorskip("PIL.Image", reason="writes the files")
    for grey, name in ((10, "dark"), (200, "light")):
        (tmp_path / name).mkdir()
        for number in range(6):
            image.new("L", (8, 8), grey + number).save(tmp_path / name / f"{number}.png")
    for name in ("dark/2.png", "light/5.png"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:40])
    return tmp_path


@pytest.mark.parametrize("training", [True, False])
def test_image_batches_replace_damaged_files_and_warn_if_on_error_is_skip(damaged, training):
    images = from_folder(damaged)
    options = {"batch_size": 4, "training": training}
    with pytest.raises(ValueError, match="dark/2.png|light/5.png"):
        batches = ImageBatches(images, (8, 8, 3), **options)
        [batches[index] for index in range(3)]
    batches = ImageBatches(images, (8, 8, 3), on_error="skip", **options)
    pixels, labels = zip(*(batches[index] for index in range(3)), strict=True)
    pixels, labels = np.concatenate(pixels)[:, 0, 0, 0], np.concatenate(labels)
    assert len(pixels) == 12 and np.bincount(labels).tolist() == [6, 6]
    np.testing.assert_array_equal(pixels > 100, labels == 1)
    assert not {12, 205} & set(pixels.astype(int))
    with pytest.warns(UserWarning, match="2 of 12.*dark/2.png.*light/5.png"):
        batches.on_epoch_end()
    assert sorted(batches.skipped) == [str(damaged / f) for f in ("dark/2.png", "light/5.png")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batches.on_epoch_end()  # no read in this epoch, so no warning


def test_image_batches_with_on_error_skip_warn_once_per_epoch(damaged):
    batches = ImageBatches(from_folder(damaged), (8, 8, 3), 4, on_error="skip")
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(2))
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    with pytest.warns(UserWarning, match="of 12 ") as found:
        model.fit(batches, epochs=2, verbose=0)
    reports = [one for one in found if "of 12 " in str(one.message)]
    # TensorFlow reads one epoch ahead, so it may also report that epoch.
    assert len(reports) == 2 or (len(reports), keras.backend.backend()) == (3, "tensorflow")


@pytest.mark.parametrize("steps", [1, 2])
def test_image_batches_with_on_error_skip_warn_after_an_epoch_of_few_steps(damaged, steps):
    for file in (damaged / "dark").iterdir():
        if file.name != "0.png":
            file.write_bytes(b"nothing")  # each batch has some of these files
    batches = ImageBatches(from_folder(damaged), (8, 8, 3), 4, on_error="skip", seed=1)
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(2))
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    with pytest.warns(UserWarning, match="of 12 "):
        model.fit(batches, epochs=1, steps_per_epoch=steps, verbose=0)


@pytest.mark.once("torch")
def test_image_batches_with_on_error_skip_need_images_with_the_attribute_labels():
    class Broken(Images):
        class_names = ("a", "b")

        def __len__(self):
            return 3

        def __getitem__(self, place):
            if place == 1:
                raise ValueError("Broken: image 1 is damaged")
            return np.full((4, 4, 3), place, "uint8"), place // 2

    with pytest.raises(ValueError, match="ImageBatches: .*`labels`.*image 1 is damaged"):
        ImageBatches(Broken(), (4, 4, 3), 3, on_error="skip")
    Broken.labels = np.array([0, 0, 1])
    pixels, labels = ImageBatches(Broken(), (4, 4, 3), 3, training=False, on_error="skip")[0]
    assert pixels[:, 0, 0, 0].tolist() == [0, 0, 2] and labels.tolist() == [0, 0, 1]


@pytest.mark.once("torch")
def test_image_batches_of_five_channels_skip_an_unreadable_first_image():
    class Spectra(Images):
        class_names, labels = ("a",), np.zeros(3, int)

        def __len__(self):
            return 3

        def __getitem__(self, place):
            if place == 0:
                raise ValueError("Spectra: image 0 is damaged")
            return np.full((4, 4, 5), place, "uint8"), 0

    pixels, _ = ImageBatches(Spectra(), (4, 4, 5), 3, training=False, on_error="skip")[0]
    assert pixels.shape == (3, 4, 4, 5) and pixels.min() == 1
    with pytest.raises(ValueError, match=r"ImageBatches: `pixels`.*\(4, 4, 5\)"):
        ImageBatches(Spectra(), (2, 2, 5), 3, training=False, on_error="skip")


@pytest.mark.once("torch")
def test_image_batches_with_on_error_skip_and_no_readable_file_of_a_class_raise(damaged):
    for file in (damaged / "dark").iterdir():
        file.write_bytes(b"nothing")
    batches = ImageBatches(from_folder(damaged), (8, 8, 3), 12, on_error="skip")
    with pytest.raises(ValueError, match=r"ImageBatches: .*dark/\d.png.* 5 "):
        batches[0]


@pytest.mark.once("torch")
@pytest.mark.parametrize("readable", [1, 0])
def test_read_batches_with_on_error_skip_read_an_unreadable_row_at_most_twice(readable):
    """Rows with several labels may replace all other rows."""
    read = []

    class Rows(ReadBatches):
        def read(self, row, epoch):
            read.append(row)
            time.sleep(0.01)
            if row >= readable:
                raise ValueError(f"row {row} is damaged")
            return row

    labels = np.array([[number >> bit & 1 for bit in range(5)] for number in range(20)])
    options = {"labels": labels, "on_error": "skip", "batch_size": 20, "shuffle": False}
    rows = Rows(range(20), threads=1, **options)
    if readable:
        assert rows.found(0) == [0] * 20
        assert max(np.bincount(read)[1:]) <= 2
    else:
        with pytest.raises(ValueError, match="Rows: row 0 and all 19 .*row 0 is damaged"):
            rows.found(0)
        rows._pool.shutdown()  # waits for the thread
        assert 20 <= len(read) < 30
