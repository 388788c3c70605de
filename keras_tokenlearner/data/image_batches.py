from collections.abc import Callable, Sequence
from typing import cast

import keras
import numpy as np

from keras_tokenlearner._checks import (
    check_bool,
    check_choice,
    check_fraction,
    check_int,
    check_ints,
    check_is,
)
from keras_tokenlearner._errors import errors_of
from keras_tokenlearner._precision import dtype_policy
from keras_tokenlearner.data.batches import ReadBatches
from keras_tokenlearner.data.crops import inception_crop, random_shift
from keras_tokenlearner.data.images import Images
from keras_tokenlearner.data.preprocessing import fit_pixels
from keras_tokenlearner.data.resizing import central_box, fit_image
from keras_tokenlearner.models.preprocessing import Preprocessing


class ImageBatches(ReadBatches[tuple[np.ndarray, int]]):
    """Batches of images for `fit`, `evaluate` and `predict` on every backend.

    For training, images are shuffled in each epoch, cropped and augmented on the host. A batch
    depends only on the seed, the epoch and the batch's index.

    Args:
        images: `Images`, such as `ArrayImages` or the result of `from_folder`.
        input_shape: `(height, width, channels)` of the model's input. For other channels than one
            or three, the images must have this shape.
        batch_size: Integer, images per batch.
        training: Boolean, whether to shuffle, crop and augment, and to omit a last batch that is
            not full.
        crop: For training, the smallest share of an image's area that `inception_crop` takes.
            `None` for the central part, as in testing.
        shift: For training, instead of `crop`, the largest random shift of the central part, as a
            fraction of its sides. Pixels outside the image are black.
        augment: For training, a function from a `seed` to a Keras layer or `keras.layers.Pipeline`.
            The layer takes `{"images": ..., "labels": ...}`, as `keras.layers.MixUp` does. The
            layer is created once, and its random state is set for each batch. Layers of keras-cv
            are created for each batch, because Keras cannot set their state.
        label_mode: `"int"` for labels of type int32 and shape (B,). `"categorical"` for one-hot
            labels of type float32 and shape (B, classes), which MixUp and CutMix need.
        preprocessing: For `training=False`, the `Preprocessing` for resizing and cropping, such as
            `model.preprocessing`. Defaults to the largest central part with the model's aspect
            ratio, resized bilinearly.
        on_error: `"raise"` or `"skip"`. With `"skip"`, another image of the same class replaces an
            unreadable image. A warning after the epoch names the unreadable image. `"skip"` needs
            `images` with an attribute `labels` that does not read pixels.
        seed: Integer, decides orders, crops and augmentation.
        threads: Integer, threads that read images.

    Raises:
        ValueError: If an argument is of another type or out of range. Also if there are no images,
            or training images do not fill a batch. Also if `crop` and `shift` are both given, or
            `augment` mixes integer labels. Also if `on_error="skip"` cannot read the labels. Later,
            with `on_error="raise"`, if an image is unreadable or its label is not the number of a
            class. With `"skip"`, if all images of a class are unreadable.

    Example:

    >>> from keras_tokenlearner.data import ArrayImages
    >>> images = ArrayImages(np.zeros((10, 28, 28, 1), "uint8"), np.arange(10))
    >>> batches = ImageBatches(images, (32, 32, 3), batch_size=4)
    >>> len(batches), batches[0][0].shape, batches[0][1].shape
    (2, (4, 32, 32, 3), (4,))
    """

    def __init__(
        self,
        images: Images,
        input_shape: Sequence[int],
        batch_size: int,
        training: bool = True,
        crop: float | None = None,
        shift: float | None = None,
        augment: Callable[..., keras.layers.Layer] | None = None,
        label_mode: str = "int",
        preprocessing: Preprocessing | None = None,
        on_error: str = "raise",
        seed: int = 0,
        threads: int = 2,
    ) -> None:
        check_is("ImageBatches", "images", images, Images, "a keras_tokenlearner.data.Images")
        check_bool("ImageBatches", "training", training)
        check_int("ImageBatches", "seed", seed, minimum=0)
        check_choice("ImageBatches", "label_mode", label_mode, ("int", "categorical"))
        shape = check_ints("ImageBatches", "input_shape", input_shape, lengths=(3,))
        batch_size = check_int("ImageBatches", "batch_size", batch_size)
        kinds = (Preprocessing, type(None))
        wanted = "a Preprocessing or None"
        check_is("ImageBatches", "preprocessing", preprocessing, kinds, wanted)
        for name, value in (("crop", crop), ("shift", shift)):
            if value is not None:
                check_fraction("ImageBatches", name, value)
        if isinstance(augment, keras.layers.Layer) or not (augment is None or callable(augment)):
            raise ValueError(
                "ImageBatches: `augment` must be a function from a `seed` to a layer, such as "
                "lambda seed: keras.layers.RandomFlip(seed=seed). "
                f"Received: augment={augment!r}"
            )
        if crop is not None and shift is not None:
            raise ValueError(
                "ImageBatches: pass either `crop` or `shift`, not both. "
                f"Received: crop={crop}, shift={shift}"
            )
        if training and len(images) < batch_size:
            raise ValueError(
                "ImageBatches: `batch_size` must be at most the number of training images, and "
                f"`images` must not be empty. Received: {len(images)} images, "
                f"batch_size={batch_size}"
            )
        super().__init__(
            images,
            threads,
            labels=_labels(images) if on_error == "skip" else None,
            on_error=on_error,
            batch_size=batch_size,
            shuffle=training,
            seed=seed,
            partial=not training,
        )
        self.images = images
        self.input_shape = shape
        self.crop = crop if training else None
        self.shift = shift if training else None
        self.augment = augment if training else None
        self.preprocessing = None if training else preprocessing
        self.label_mode = label_mode
        if label_mode == "int" and isinstance(self.augment, type):
            _refuse_mixing(issubclass(self.augment, _MIXING), self.augment)
        self._layer: keras.layers.Layer | None = None
        self.targets = (
            np.arange(len(images.class_names), dtype="int32")
            if label_mode == "int"
            else np.eye(len(images.class_names), dtype="float32")
        )
        if shape[-1] not in (1, 3):
            self._check_fit()

    def _check_fit(self) -> None:
        """Raise `ValueError` if the first readable image cannot get the shape of the model.

        `on_error="skip"` would count every such image as unreadable.
        """
        for row in range(len(self.images)):
            try:
                self.images[row]
            except ValueError:
                continue
            with errors_of("ImageBatches"):
                self.read(row, 0)
            return

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        index = self.place(index)
        found = self.found(index)
        images = np.stack([pixels for pixels, _ in found]).astype("float32")
        labels = self.targets[[label for _, label in found]]
        if self.augment is None:
            return images, labels
        random = np.random.default_rng((self.seed, self.epoch, index, self.shard[0]))
        with self.alone(), keras.device("cpu"):
            seed = int(random.integers(2**31))
            if self._layer is None or not _set_state(self._layer, random):
                # In half precision, pixels would be rounded, and MixUp fails on TensorFlow.
                with dtype_policy("float32"):
                    self._layer = self.augment(seed=seed)
                _set_state(self._layer, random)
                if self.label_mode == "int":
                    _refuse_mixing(_mixes(self._layer), self.augment)
            batch = {"images": images, "labels": labels}
            batch = {key: keras.ops.convert_to_tensor(value) for key, value in batch.items()}
            varied = self._layer(batch, training=True)
            images, labels = (
                keras.ops.convert_to_numpy(varied[key]) for key in ("images", "labels")
            )
            # A layer may replace integer labels with soft labels, which must not become integers.
            soft = "float" in labels.dtype.name
            return images.astype("float32"), labels.astype("float32") if soft else labels

    def read(self, row: int, epoch: int) -> tuple[np.ndarray, int]:
        pixels, label = self.images[row]
        label = check_int("ImageBatches", f"images[{row}][1]", label, 0, len(self.targets) - 1)
        if self.preprocessing is not None:
            shape = cast("tuple[int, int, int]", self.input_shape)
            return fit_pixels(pixels, shape, self.preprocessing), label
        return fit_image(pixels, self.input_shape, self._box(pixels, row, epoch)), label

    def called(self, row: int) -> str:
        return self.images.called(row)

    def _box(self, pixels: np.ndarray, row: int, epoch: int) -> tuple[int, int, int, int] | None:
        """Return the box of a random crop or shift, or `None` for the central crop."""
        if self.crop is None and self.shift is None:
            return None
        random = np.random.default_rng((self.seed, epoch, 0, row))
        height, width = pixels.shape[:2]
        if self.crop is not None:
            return inception_crop(height, width, random, area=(self.crop, 1.0))
        central = central_box(height, width, *self.input_shape[:2])
        return random_shift(central, random, cast("float", self.shift))


def _labels(images: Images) -> np.ndarray:
    """Return the labels of all images, or raise `ValueError` if this needs unreadable pixels."""
    try:
        return images.labels
    except ValueError as error:
        raise ValueError(
            "ImageBatches: on_error='skip' needs the labels of unreadable images; define the "
            f"attribute `labels` in the class of `images`. Received: {error}"
        ) from error


_MIXING = (keras.layers.MixUp, keras.layers.CutMix)


def _mixes(layer: keras.layers.Layer) -> bool:
    """Return whether a layer or one of its sublayers mixes labels, as MixUp and CutMix do."""
    inner = getattr(layer, "layers", ())
    return isinstance(layer, _MIXING) or any(_mixes(one) for one in inner)


def _refuse_mixing(mixes: bool, augment: Callable[..., keras.layers.Layer]) -> None:
    if mixes:
        raise ValueError(
            "ImageBatches: `augment` with MixUp or CutMix needs one-hot labels; pass "
            f"label_mode='categorical'. Received: label_mode='int' with augment={augment!r}"
        )


def _set_state(layer: keras.layers.Layer, random: np.random.Generator) -> bool:
    """Set the states of a layer's random generators. Return whether the layer has a generator."""
    found = [v for v in layer.variables if v.path.endswith("seed_generator_state")]
    for variable in found:
        variable.assign(random.integers(2**31, size=variable.shape, dtype="uint32"))
    return bool(found)
