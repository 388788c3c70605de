import contextlib
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np

from keras_tokenlearner.data.crops import inception_crop, random_shift
from keras_tokenlearner.data.resizing import fit_image


class Batches(keras.utils.PyDataset):
    """Batches of arrays that depend on seed, epoch and index alone.

    So a run can continue in the middle of an epoch, and several processes can share every batch.
    For `fit` pass `shuffle=False`: Keras would shuffle the batches again, without this seed.

    Args:
        arrays: Tuple of arrays of n rows each, such as images and labels.
        batch_size: Integer, rows of a batch, of all processes together.
        shuffle: Boolean, whether each epoch has an order of its own.
        seed: Integer.
        partial: Boolean, whether a last batch that is not full is given or left out.

    Attributes:
        epoch: Integer, which pass over the rows this is.
        start: Integer, batches of this epoch to pass over.
        shard: `(part, parts)`: only this part of the rows of each batch is given.
        alone: Function that returns a context for computations of this process alone.

    Example:

    >>> batches = Batches((np.arange(10),), batch_size=4, shuffle=False)
    >>> batches.shard = (1, 2)
    >>> [batches[index][0].tolist() for index in range(len(batches))]
    [[2, 3], [6, 7]]
    """

    def __init__(self, arrays, batch_size, shuffle=True, seed=0, partial=False):
        super().__init__()
        self.arrays = arrays
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.partial = partial
        self.epoch, self.start, self.shard = 0, 0, (0, 1)
        self.alone = contextlib.nullcontext
        self._order = (None, None)

    def __len__(self):
        count, rest = divmod(len(self.arrays[0]), self.batch_size)
        return count + (self.partial and rest > 0) - self.start

    def __getitem__(self, index):
        rows = self.rows(index + self.start)
        return tuple(array[rows] for array in self.arrays)

    def rows(self, index):
        """Return the rows of batch `index` of the epoch, an array of integers."""
        batch = self.order()[index * self.batch_size : (index + 1) * self.batch_size]
        part, parts = self.shard
        return np.array_split(batch, parts)[part]

    def order(self):
        """Return the order of all rows in this epoch."""
        epoch, order = self._order
        if epoch != self.epoch:
            epoch, order = self.epoch, np.arange(len(self.arrays[0]))
            if self.shuffle:
                np.random.default_rng((self.seed, epoch)).shuffle(order)
            self._order = epoch, order
        return order

    def on_epoch_end(self):
        self.epoch += 1


class ReadBatches(Batches):
    """Batches of the results of a method `read`, called in threads for each row.

    They read the rows of a batch in parallel, and the rows of the next batch ahead. The threads are
    our own: with `workers` of `keras.utils.PyDataset`, Keras 3.15 on JAX and torch starts the
    second epoch with a batch of the first.

    Args:
        source: The source, with a length.
        threads: Integer.
        **kwargs: For `Batches`.

    Attributes:
        failure: The error of `read`, or `None`; TensorFlow replaces it by an error of its own.
    """

    def __init__(self, source, threads, **kwargs):
        super().__init__((source,), **kwargs)
        self._pool = ThreadPoolExecutor(threads)
        self._ahead = {}
        self.failure = None

    def read(self, row, epoch):
        """Return the example of a row of the source in an epoch."""
        raise NotImplementedError

    def found(self, index):
        """Return the examples of batch `index` of the epoch, as a list."""
        asked = self._ahead.pop(self._key(index), None) or self._ask(index)
        more = index + 1 < len(self) + self.start
        self._ahead = {self._key(index + 1): self._ask(index + 1)} if more else {}
        try:
            return [one.result() for one in asked]
        except Exception as error:
            self.failure = error
            raise

    def _key(self, index):
        return self.epoch, index, self.shard

    def _ask(self, index):
        return [self._pool.submit(self.read, int(row), self.epoch) for row in self.rows(index)]


class ImageBatches(ReadBatches):
    """Batches of images for `fit`, `evaluate` and `predict` on every backend.

    For training, images are shuffled in each epoch, cropped and augmented on the host. A batch
    depends on the seed, the epoch and its index only. Pass `shuffle=False` to `fit`, which would
    otherwise put the batches into another order.

    Args:
        images: A source, such as `ArrayImages` or the result of `from_folder`.
        input_shape: `(height, width, channels)` as the model takes them.
        batch_size: Integer.
        training: Boolean, whether to shuffle, crop and augment, and to leave out a last batch that
            is not full.
        crop: For training, the smallest share of an image's area that `inception_crop` takes;
            `None` for the central part, as in testing.
        shift: For training, instead of `crop`, the largest random shift in parts of each side; new
            pixels are black.
        augment: For training, a function that makes a Keras layer from a `seed`, or several in a
            `keras.layers.Pipeline`, which takes `{"images": ..., "labels": ...}`, such as
            `keras.layers.MixUp`. Labels are one-hot. The layer is made once and its random state
            set for each batch, or, if Keras does not see it, as in keras-cv's, made each time.
        seed: Integer.
        threads: Integer, of reading.

    Raises:
        ValueError: If there are fewer images to train on than a batch has, or `crop` and `shift`
            are both given.

    Example:

    >>> from keras_tokenlearner.data import ArrayImages
    >>> images = ArrayImages(np.zeros((10, 28, 28, 1), "uint8"), np.arange(10))
    >>> batches = ImageBatches(images, (32, 32, 3), batch_size=4)
    >>> len(batches), batches[0][0].shape, batches[0][1].shape
    (2, (4, 32, 32, 3), (4, 10))
    """

    def __init__(
        self,
        images,
        input_shape,
        batch_size,
        training=True,
        crop=None,
        shift=None,
        augment=None,
        seed=0,
        threads=2,
    ):
        if crop is not None and shift is not None:
            raise ValueError(
                "ImageBatches: images are cropped or shifted; pass one of the two. "
                f"Received: crop={crop}, shift={shift}"
            )
        if training and len(images) < batch_size:
            raise ValueError(
                "ImageBatches: there must be a batch of images or more. "
                f"Received: {len(images)} images, batch_size={batch_size}"
            )
        super().__init__(
            images,
            threads,
            batch_size=batch_size,
            shuffle=training,
            seed=seed,
            partial=not training,
        )
        self.images = images
        self.input_shape = tuple(input_shape)
        self.crop = crop if training else None
        self.shift = shift if training else None
        self.augment = augment if training else None
        self._layer = None
        self.targets = np.eye(len(images.class_names), dtype="float32")

    def __getitem__(self, index):
        index += self.start
        found = self.found(index)
        images = np.stack([pixels for pixels, _ in found]).astype("float32")
        labels = self.targets[[label for _, label in found]]
        if self.augment is None:
            return images, labels
        random = np.random.default_rng((self.seed, self.epoch, index, self.shard[0]))
        with self.alone(), keras.device("cpu"):
            seed = int(random.integers(2**31))
            if self._layer is None or not _set_state(self._layer, random):
                self._layer = self.augment(seed=seed)
                _set_state(self._layer, random)
            batch = {"images": images, "labels": labels}
            batch = {key: keras.ops.convert_to_tensor(value) for key, value in batch.items()}
            varied = self._layer(batch, training=True)
            return tuple(keras.ops.convert_to_numpy(varied[key]) for key in ("images", "labels"))

    def read(self, row, epoch):
        pixels, label = self.images[row]
        return fit_image(pixels, self.input_shape, self._box(pixels, row, epoch)), label

    def _box(self, pixels, row, epoch):
        """Return the crop of an image, or `None` for the crop of testing."""
        if self.crop is None and self.shift is None:
            return None
        random = np.random.default_rng((self.seed, epoch, 0, row))
        if self.crop is not None:
            return inception_crop(*pixels.shape[:2], random, area=(self.crop, 1.0))
        return random_shift(*pixels.shape[:2], random, self.shift)


def _set_state(layer, random):
    """Set the states of a layer's random generators, and return whether there are any."""
    found = [v for v in layer.variables if v.path.endswith("seed_generator_state")]
    for variable in found:
        variable.assign(random.integers(2**31, size=variable.shape, dtype="uint32"))
    return bool(found)
