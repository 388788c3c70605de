import threading

import keras
import numpy as np


class Batches(keras.utils.PyDataset):
    """Batches of arrays that depend on seed, epoch and index alone.

    So a run can go on in the middle of an epoch, and several processes can share every batch. For
    `fit` pass `shuffle=False`: Keras would shuffle the batches once more, by no seed of theirs.

    Args:
        arrays: Tuple of arrays of n rows each, such as images and labels.
        batch_size: Integer, rows of a batch, of all processes together.
        shuffle: Boolean, whether each epoch has an order of its own.
        seed: Integer.
        partial: Boolean, whether a last batch that is not full is given or left out.
        **kwargs: For `keras.utils.PyDataset`.

    Attributes:
        epoch: Integer, which pass over the rows this is.
        start: Integer, batches of this epoch to pass over.
        shard: `(part, parts)`: only this part of the rows of each batch is given.

    Example:

    >>> batches = Batches((np.arange(10),), batch_size=4, shuffle=False)
    >>> batches.shard = (1, 2)
    >>> [batches[index][0].tolist() for index in range(len(batches))]
    [[2, 3], [6, 7]]
    """

    def __init__(self, arrays, batch_size, shuffle=True, seed=0, partial=False, **kwargs):
        super().__init__(**kwargs)
        self.arrays = arrays
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.partial = partial
        self.epoch, self.start, self.shard = 0, 0, (0, 1)
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


class ImageBatches(Batches):
    """Batches of an array of images, shuffled anew each epoch and augmented on the host.

    Args:
        images: Array of shape (n, height, width, channels).
        labels: Integer array of shape (n,).
        classes: Integer, how many classes; labels are given one-hot.
        batch_size: Integer. A last batch that is not full is left out.
        augment: Keras layer, or several in a `keras.layers.Pipeline`, called on each batch of
            images with `training=True`; `None` for the images as they are. Its random state is set
            for each batch, from the seed.
        seed: Integer, of order and augmentation.
        **kwargs: For `keras.utils.PyDataset`.

    Example:

    >>> images, labels = np.zeros((10, 28, 28, 1), "uint8"), np.arange(10)
    >>> batches = ImageBatches(images, labels, classes=10, batch_size=4)
    >>> len(batches), batches[0][0].shape, batches[0][1].shape
    (2, (4, 28, 28, 1), (4, 10))
    """

    def __init__(self, images, labels, classes, batch_size, augment=None, seed=0, **kwargs):
        targets = np.eye(classes, dtype="float32")[labels]
        super().__init__((images, targets), batch_size, seed=seed, **kwargs)
        self.augment = augment
        self.lock = threading.Lock()  # the random state is one for all threads that read

    def __getitem__(self, index):
        images, labels = super().__getitem__(index)
        images = images.astype("float32")
        if self.augment is not None:
            place = (self.seed, self.epoch, index + self.start, self.shard[0])
            random = np.random.default_rng(place)
            with self.lock:
                for variable in self.augment.variables:
                    if variable.path.endswith("seed_generator_state"):
                        variable.assign(random.integers(2**31, size=variable.shape))
                images = keras.ops.convert_to_numpy(self.augment(images, training=True))
        return images, labels
