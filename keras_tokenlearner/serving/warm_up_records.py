"""Writes requests that TensorFlow Serving runs when it loads a model, before it answers clients."""

from pathlib import Path
from typing import TYPE_CHECKING

from keras_tokenlearner._extras import require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tensorflow import Tensor, TensorSpec
    from tensorflow.types.experimental import PolymorphicFunction

WARM_UP = Path("assets.extra") / "tf_serving_warmup_requests"


def write_warm_up_records(
    folder: Path, signatures: "Mapping[str, PolymorphicFunction]", input_shape: tuple[int, ...]
) -> None:
    """Write one request for each signature of a SavedModel, in the format of TensorFlow Serving.

    Args:
        folder: `pathlib.Path` of the SavedModel.
        signatures: Dictionary from names to functions with an input signature.
        input_shape: `(height, width, channels)` or `(frames, height, width, channels)` of the
            model.

    Source: `PredictionLog` in prediction_log.proto of TensorFlow Serving.
    """
    tf = require("tensorflow", "tensorflow")
    with tf.io.TFRecordWriter(str(folder / WARM_UP)) as writer:
        for name, function in signatures.items():
            specs = function.input_signature
            tensors = {spec.name: _example(spec, input_shape) for spec in specs}
            writer.write(_prediction_log(name, tensors))


def _example(spec: "TensorSpec", input_shape: tuple[int, ...]) -> "Tensor":
    """Return a batch of one value for an input: a black image, a black clip or a frame rate."""
    tf = require("tensorflow", "tensorflow")
    if spec.shape.rank == 1 and spec.dtype == tf.float32:
        return tf.constant([30.0])  # frames per second
    if spec.dtype == tf.string:
        file = tf.io.encode_png(tf.zeros(input_shape[-3:], tf.uint8))
        return tf.fill([1, *input_shape[:-3]], file)
    return tf.zeros([1, *input_shape], spec.dtype)


def _prediction_log(signature: str, tensors: "dict[str, Tensor]") -> bytes:
    """Return a `PredictionLog` in protobuf's wire format, without TensorFlow Serving's classes."""
    tf = require("tensorflow", "tensorflow")
    request = _field(1, _field(3, signature.encode()))  # model_spec.signature_name
    for name, tensor in tensors.items():
        value = tf.make_tensor_proto(tensor).SerializeToString()
        request += _field(2, _field(1, name.encode()) + _field(2, value))  # inputs
    return _field(6, _field(1, request))  # predict_log.request


def _field(number: int, content: bytes) -> bytes:
    """Return a protobuf field of bytes, text or a message: its tag, length and content."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Return an integer as a protobuf varint: groups of seven bits, the lowest first."""
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
