from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np

from keras_tokenlearner.data.crops import inception_crop
from keras_tokenlearner.data.resizing import fit_image


class ImageBatches(keras.utils.PyDataset):
    """Batches of images for `fit`, `evaluate` and `predict` on every backend.

    For training, images are shuffled anew each epoch, cropped and augmented on the host. What a
    batch holds depends on the seed, the epoch and its place alone. Pass `shuffle=False` to `fit`,
    which would otherwise put the batches into another order.

    Threads read the images of a batch side by side, and those of the next one meanwhile. They are
    our own: with `workers` of `keras.utils.PyDataset`, Keras 3.15 on JAX and torch starts the
    second epoch with a batch of the first.

    Args:
        images: A source, such as `ArrayImages` or what `from_folder` gives.
        input_shape: `(height, width, channels)` as the model takes them.
        batch_size: Integer.
        training: Boolean, whether to shuffle, crop and augment, and to leave out a last batch that
            is not full.
        crop: For training, the smallest share of an image's area that `inception_crop` takes;
            `None` for the central part, as in testing.
        augment: For training, a function from a seed to a Keras layer, or several in a
            `keras.layers.Pipeline`, that takes `{"images": ..., "labels": ...}`, such as
            `keras.layers.RandAugment` or `keras.layers.MixUp`. Labels are one-hot.
        seed: Integer.
        threads: Integer, of reading.

    Raises:
        ValueError: If there are fewer images to train on than a batch has.

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
        augment=None,
        seed=0,
        threads=2,
    ):
        super().__init__()
        if training and len(images) < batch_size:
            raise ValueError(
                "ImageBatches: there must be a batch of images or more. "
                f"Received: {len(images)} images, batch_size={batch_size}"
            )
        self.images = images
        self.input_shape = tuple(input_shape)
        self.batch_size = batch_size
        self.training = training
        self.crop = crop if training else None
        self.augment = augment if training else None
        self.seed = seed
        self.targets = np.eye(len(images.class_names), dtype="float32")
        self.threads = ThreadPoolExecutor(threads)
        self.ahead = {}
        self.start(epoch=0)

    def __len__(self):
        if self.training:
            return len(self.images) // self.batch_size
        return -(-len(self.images) // self.batch_size)

    def __getitem__(self, index):
        epoch = self.epoch
        asked = self.ahead.pop((epoch, index), None) or self._ask(index)
        self.ahead = {(epoch, index + 1): self._ask(index + 1)} if index + 1 < len(self) else {}
        found = [one.result() for one in asked]
        images = np.stack([pixels for pixels, _ in found]).astype("float32")
        labels = self.targets[[label for _, label in found]]
        if self.augment is None:
            return images, labels
        seed = np.random.default_rng((self.seed, epoch, index)).integers(2**31)
        with keras.device("cpu"):
            batch = {"images": images, "labels": labels}
            batch = {key: keras.ops.convert_to_tensor(value) for key, value in batch.items()}
            varied = self.augment(int(seed))(batch, training=True)
            return tuple(keras.ops.convert_to_numpy(varied[key]) for key in ("images", "labels"))

    def start(self, epoch):
        """Put the images into the order of an epoch."""
        self.epoch = epoch
        self.order = np.arange(len(self.images))
        if self.training:
            np.random.default_rng((self.seed, epoch)).shuffle(self.order)

    def on_epoch_end(self):
        self.start(self.epoch + 1)

    def _ask(self, index):
        """Return the futures of the images of a batch."""
        places = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return [self.threads.submit(self._image, int(place), self.epoch) for place in places]

    def _image(self, place, epoch):
        pixels, label = self.images[place]
        box = None
        if self.crop is not None:
            random = np.random.default_rng((self.seed, epoch, 0, place))
            box = inception_crop(*pixels.shape[:2], random, area=(self.crop, 1.0))
        return fit_image(pixels, self.input_shape, box), label
