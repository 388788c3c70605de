import keras
import numpy as np


class ImageBatches(keras.utils.PyDataset):
    """Batches of an array of images, shuffled anew each epoch and augmented on the host.

    Args:
        images: Array of shape (n, height, width, channels).
        labels: Integer array of shape (n,).
        classes: Integer, how many classes; labels are given one-hot.
        batch_size: Integer. A last batch that is not full is left out.
        augment: Keras layer, or several in a `keras.layers.Pipeline`, called on each batch of
            images with `training=True`; `None` for the images as they are.
        seed: Integer, of the order of the images. Layers of `augment` have seeds of their own.
        **kwargs: For `keras.utils.PyDataset`.

    Example:

    >>> images, labels = np.zeros((10, 28, 28, 1), "uint8"), np.arange(10)
    >>> batches = ImageBatches(images, labels, classes=10, batch_size=4)
    >>> len(batches), batches[0][0].shape, batches[0][1].shape
    (2, (4, 28, 28, 1), (4, 10))
    """

    def __init__(self, images, labels, classes, batch_size, augment=None, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.images = images
        self.labels = np.eye(classes, dtype="float32")[labels]
        self.batch_size = batch_size
        self.augment = augment
        self.random = np.random.default_rng(seed)
        self.order = self.random.permutation(len(images))

    def __len__(self):
        return len(self.images) // self.batch_size

    def __getitem__(self, index):
        chosen = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        images = self.images[chosen].astype("float32")
        if self.augment is not None:
            images = keras.ops.convert_to_numpy(self.augment(images, training=True))
        return images, self.labels[chosen]

    def on_epoch_end(self):
        self.order = self.random.permutation(len(self.images))
