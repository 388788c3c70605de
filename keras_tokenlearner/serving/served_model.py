import json
import math
import os
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from keras_tokenlearner._checks import check_path
from keras_tokenlearner._extras import require
from keras_tokenlearner.data.decoding import count_pixels, decode_image
from keras_tokenlearner.data.preprocessing import fit_pixels, resized_size
from keras_tokenlearner.data.video.augment import covering_size, fit_clip
from keras_tokenlearner.serving.metadata import METADATA, preprocessing_of_export
from keras_tokenlearner.serving.versions import newest_version

if TYPE_CHECKING:
    from numpy.typing import DTypeLike
    from tensorflow import TensorSpec

MAX_PIXELS = 32_000_000  # the largest accepted number of pixels of an image

Row: TypeAlias = Mapping[str, Any]  # values of a client: arrays, nested lists or bytes
Key: TypeAlias = tuple[str, tuple[tuple[int, ...], ...]]  # equal for the rows of one batch


class ServedModel:
    """An exported model that checks a request before it decodes images.

    A request is a list of rows. A row is one example: a dictionary from the inputs of a signature
    to arrays.

    Args:
        path: Folder of an exported model. The newest version is used, unless the folder is a
            version.
        max_pixels: Integer, the largest accepted number of pixels of an image.
        max_rows: Integer, largest accepted number of rows in a request.

    Raises:
        ValueError: If the folder contains no exported model, or a model without the signature
            `serving_default`.
        ImportError: If TensorFlow, the extra `tensorflow`, is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        max_pixels: int = MAX_PIXELS,
        max_rows: int = 256,
    ) -> None:
        tf = require("tensorflow", "tensorflow")
        self.folder = exported_folder(path)
        self.max_pixels = max_pixels
        self.max_rows = max_rows
        self.model = tf.saved_model.load(str(self.folder))
        self.inputs = {
            name: function.structured_input_signature[1]
            for name, function in self.model.signatures.items()
        }
        if "serving_default" not in self.inputs:
            raise ValueError(
                "serve: `path` must have the signature 'serving_default'; export the model with "
                f"`keras-tokenlearner export`. Received: path={str(path)!r} with the signatures "
                f"{list(self.inputs)}"
            )
        self.outputs = self.model.signatures["serving_default"].structured_outputs
        metadata = self.folder / METADATA
        self.metadata = json.loads(metadata.read_text()) if metadata.is_file() else {}
        self.resize = preprocessing_of_export(self.metadata)

    def check_signature(self, name: str) -> "dict[str, TensorSpec]":
        """Return the inputs of a signature, a dictionary from names to `tf.TensorSpec`.

        Raises:
            ValueError: If the model has no signature with this name.
        """
        if not isinstance(name, str) or name not in self.inputs:
            raise ValueError(f"`signature_name` must be one of {list(self.inputs)}; got {name!r}")
        return self.inputs[name]

    def signature_of(self, names: Collection[str]) -> str:
        """Return the name of the signature that takes exactly the inputs `names`.

        Raises:
            ValueError: If the model has no such signature.
        """
        for signature, inputs in self.inputs.items():
            if set(inputs) == set(names):
                return signature
        known = [list(inputs) for inputs in self.inputs.values()]
        raise ValueError(
            f"the inputs of a request must be the inputs of a signature, one of {known}; "
            f"got {list(names)}"
        )

    def check_count(self, count: int) -> None:
        """Raise `ValueError` if a request has no rows or too many rows."""
        if not 1 <= count <= self.max_rows:
            raise ValueError(f"a request must have 1 to {self.max_rows} rows; got {count} rows")

    def check_row(self, signature: str, row: Row) -> dict[str, np.ndarray]:
        """Return a row with every value as an array of the type and shape of its input.

        Args:
            signature: Name of a signature.
            row: Dictionary from input names to arrays, nested lists or bytes.

        Raises:
            ValueError: If the model cannot take the row. The message states the reason.
        """
        inputs = self.check_signature(signature)
        if set(row) != set(inputs):
            raise ValueError(
                f"a row for the signature {signature!r} must have the inputs {list(inputs)}; "
                f"got {list(row)}"
            )
        return {name: self._check(name, spec, row[name]) for name, spec in inputs.items()}

    def check_rows(self, signature: str, rows: Sequence[Row]) -> list[dict[str, np.ndarray]]:
        """Return each row as `check_row` does, and refuse a request that is too large.

        Args:
            signature: Name of a signature.
            rows: Dictionaries from input names to arrays, nested lists or bytes.

        Raises:
            ValueError: If the model cannot take a row. Also if the sum of the results of `weight`
                is more than `4 * max_pixels`.
        """
        checked = [self.check_row(signature, row) for row in rows]
        total, most = sum(self.weight(row) for row in checked), 4 * self.max_pixels
        if total > most:
            if any(value.dtype == object for row in checked for value in row.values()):
                raise ValueError(
                    f"the image files of a request must have at most {most} pixels before "
                    f"resizing; got {total} pixels"
                )
            raise ValueError(
                f"the arrays of a request must have at most {most} values, both before and after "
                f"resizing; got {total} values"
            )
        return checked

    def decode(
        self, signature: str, rows: list[dict[str, np.ndarray]]
    ) -> tuple[str, list[dict[str, np.ndarray]]]:
        """Decode the image files in rows as in training, and resize them for the model.

        The server calls this method in a thread, before the model runs. Images of all sizes can
        then share a batch. Only the first frame of an animation is read.

        Args:
            signature: Name of the signature of the rows.
            rows: List of results of `check_row`.

        Returns:
            The name of the signature for decoded rows, and the decoded rows. Rows without image
            files, and rows for an export without the signature `pixels`, stay unchanged.

        Raises:
            ValueError: If an image is damaged or too narrow. The message states the reason.
        """
        encoded = "encoded" in self.inputs.get(signature, ())
        if not encoded or "pixels" not in self.inputs or "input_shape" not in self.metadata:
            return signature, rows
        shape = self.metadata["input_shape"]
        return "pixels", [{"pixels": self._pixels(row["encoded"], shape)} for row in rows]

    def _pixels(self, encoded: np.ndarray, shape: list[int]) -> np.ndarray:
        """Return the image of a row, or evenly spaced frames, as float pixels of a given shape."""
        *frames, height, width, channels = shape
        if not frames:
            pixels = decode_image(encoded.item(), channels, max_pixels=self.max_pixels)
            return fit_pixels(pixels, shape, self.resize).astype("float32")
        chosen = encoded[np.arange(frames[0]) * len(encoded) // frames[0]]
        clip = np.empty(shape, "float32")  # without the parts of frames that are cropped
        for place, content in enumerate(chosen):
            frame = decode_image(content, channels, max_pixels=self.max_pixels)
            clip[place] = fit_clip(frame[None], height, width)[0]
        return clip

    def weight(self, row: Mapping[str, np.ndarray]) -> int:
        """Return the size of a row.

        The size is the number of pixels in its image files, or of values in its arrays. If the
        model resizes an array, the size is the larger one, before or after resizing.

        Raises:
            ValueError: If an image or a clip is too narrow to be resized.
        """
        return sum(self._weight(name, value) for name, value in row.items())

    def _weight(self, name: str, value: np.ndarray) -> int:
        if value.dtype == object:
            return sum(map(count_pixels, value.flat))
        shape = self.metadata.get("input_shape", ())
        if name == "images" and self.resize is not None:
            resized = resized_size(value.shape[:2], (shape[0], shape[1]), self.resize)
        elif name == "clips" and len(shape) == 4:
            resized = covering_size((shape[0], *value.shape[1:3]), (shape[1], shape[2]))
        else:
            return value.size
        return max(value.size, math.prod((*shape[:-3], *resized, shape[-1])))

    def batch_key(self, signature: str, row: Mapping[str, np.ndarray]) -> Key:
        """Return a key for a row. Rows with equal keys may share a batch."""
        return signature, tuple(value.shape for value in row.values())

    def answer(self, key: Key, rows: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        """Run the model on rows, and return a dictionary of output arrays for each row.

        Args:
            key: Result of `batch_key`, equal for all rows.
            rows: List of results of `check_row`.

        Raises:
            ValueError: If an image is damaged, or a value is out of its range.
        """
        tf = require("tensorflow", "tensorflow")
        padded = rows + rows[:1] * self._padding(len(rows))
        batch = {name: tf.constant(np.stack([row[name] for row in padded])) for name in rows[0]}
        try:
            answer = self.model.signatures[key[0]](**batch)
        except tf.errors.InvalidArgumentError as error:
            # Earlier lines state the place in the graph.
            reason = error.message.split("\n\t")[0].splitlines()[-1]
            raise ValueError(f"the model cannot take a row: {reason}") from error
        arrays = {name: value.numpy() for name, value in answer.items()}
        for name, array in arrays.items():
            if array.dtype.name == "bfloat16":  # not a dtype of numpy or of the protocol V2
                arrays[name] = array.astype("float32")
        return [{name: value[i] for name, value in arrays.items()} for i in range(len(rows))]

    def warm_up(self, max_rows: int, stopping: threading.Event | None = None) -> None:
        """Run the signature `pixels` once with each batch size: 1, 2, 4, ... rows.

        Signatures of image files are skipped, because the server itself decodes the files.
        Other signatures run with one row. A model from JAX is compiled for each batch size, so the
        warm-up runs every size of every signature.

        Args:
            max_rows: Integer, largest number of rows in a batch.
            stopping: Event that ends the warm-up before its next batch.
        """
        shape = self.metadata.get("input_shape")
        if shape is None:
            return
        for signature, inputs in self.inputs.items():
            if any(spec.dtype == "string" for spec in inputs.values()):
                continue
            row = {name: _example(spec, shape) for name, spec in inputs.items()}
            for size in self._batch_sizes(signature, max_rows):
                if stopping is not None and stopping.is_set():
                    return
                if size == 1 or size * self.weight(row) <= self.max_pixels:
                    self.answer(self.batch_key(signature, row), [row] * size)

    def _batch_sizes(self, signature: str, max_rows: int) -> list[int]:
        """Return the batch sizes with which warm-up runs a signature."""
        powers = [2**power for power in range((max_rows - 1).bit_length() + 1)]
        if self.metadata.get("backend") == "jax":
            return powers
        return [1] if signature != "pixels" else sorted({min(x, max_rows) for x in powers})

    def _padding(self, count: int) -> int:
        """Return the number of rows to add to a batch of `count` rows.

        A model from JAX is compiled for each batch size. Only the sizes 1, 2, 4, 8 and so on are
        used.
        """
        by_jax = self.metadata.get("backend") == "jax"
        return 2 ** (count - 1).bit_length() - count if by_jax else 0

    def _check(self, name: str, spec: "TensorSpec", value: Any) -> np.ndarray:
        array = array_of(name, value)
        shape = spec.shape[1:]
        if not shape.is_compatible_with(array.shape) or 0 in array.shape:
            wanted = tuple("any" if size is None else size for size in shape)
            raise ValueError(
                f"each row of the input {name!r} must have shape {wanted}; got {array.shape}"
            )
        if spec.dtype == "string":
            for content in array.flat:
                self._check_encoded(name, content)
            return array
        return _check_numbers(name, spec.dtype.as_numpy_dtype, array)

    def _check_encoded(self, name: str, content: Any) -> None:
        if not isinstance(content, bytes):
            raise ValueError(
                f"the input {name!r} must be the bytes of image files, in JSON as base64; "
                f"got {type(content).__name__}"
            )
        count_pixels(content, max_pixels=self.max_pixels)


def exported_folder(path: str | os.PathLike[str]) -> Path:
    """Return the folder of the newest version of an exported model.

    Args:
        path: Folder of the versions, or of one version.

    Raises:
        ValueError: If the folder contains no exported model.
    """
    folder = newest_version(check_path("serve", "path", path))
    if folder is None:
        raise ValueError(
            "serve: `path` must be the folder of an exported model; export the model with "
            f"`keras-tokenlearner export`. Received: path={str(path)!r}"
        )
    return folder


def _example(spec: "TensorSpec", shape: list[int]) -> np.ndarray:
    """Return an example of an input without batch axis: a black image or clip, or a frame rate."""
    if spec.shape.rank == 1:
        return np.array(30, spec.dtype.as_numpy_dtype)
    return np.zeros(shape, spec.dtype.as_numpy_dtype)


def array_of(name: str, value: Any) -> np.ndarray:
    """Convert numbers or bytes, possibly in nested lists, to an array. Bytes become objects.

    Args:
        name: Name of the input, for the error.
        value: Number, bytes, nested lists, or an array.

    Raises:
        ValueError: If lists have different lengths, or contain text.
    """
    if isinstance(value, np.ndarray):
        return value
    try:
        # Without `object`, each item would get the size of the longest text.
        array = np.array(value, object)
        kinds = set(map(type, array.flat))
        if kinds & {list, str, dict, bool}:  # numpy reads `[true, 2]` as 1 and 2
            found = sorted(kind.__name__ for kind in kinds)
            raise ValueError(f"got items of type {', '.join(found)}")
        return array if kinds & {bytes, type(None)} else np.asarray(value)
    except (ValueError, OverflowError, RecursionError) as error:
        raise ValueError(
            f"the input {name!r} must be nested lists of equal lengths, of numbers or bytes: "
            f"{error}"
        ) from error


def _check_numbers(name: str, dtype: "DTypeLike", array: np.ndarray) -> np.ndarray:
    """Convert numbers to a dtype. Raise `ValueError` for a wrong kind, a wrong range, or NaN."""
    if dtype == np.uint8:
        if array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 255:
            raise ValueError(
                f"the input {name!r} must be integers from 0 to 255; got {_said(array)}"
            )
        return array.astype(dtype)
    if array.dtype.kind in "iuf":
        with np.errstate(over="ignore"):
            converted = array.astype(dtype)
        if np.isfinite(converted).all():
            return converted
    raise ValueError(
        f"the input {name!r} must be finite {np.dtype(dtype)} numbers; got {_said(array)}"
    )


def _said(array: np.ndarray) -> str:
    """Return a text with the type of an array and the range of its numbers."""
    if array.dtype.kind not in "iuf":
        return f"type {array.dtype}"
    return f"{array.dtype} from {array.min()} to {array.max()}"
