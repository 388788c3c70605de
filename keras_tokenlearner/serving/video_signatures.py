"""TensorFlow functions for the signatures of a SavedModel of videos."""

from typing import TYPE_CHECKING

from keras_tokenlearner._extras import require
from keras_tokenlearner.serving.decoding import decode_in_graph
from keras_tokenlearner.serving.signatures import Outputs, of_pixels

if TYPE_CHECKING:
    from collections.abc import Callable

    from tensorflow import Tensor
    from tensorflow.types.experimental import PolymorphicFunction


def video_signatures(
    model_function: "Callable[[Tensor], Outputs]",
    input_shape: tuple[int, int, int, int],
    answer: "Callable[[Outputs], dict[str, Tensor]]",
    frame_step: float | None = None,
) -> "dict[str, PolymorphicFunction]":
    """Return the signatures of a video model, a dictionary from names to functions.

    Args:
        model_function: Function from float pixels (B, frames, height, width, channels) to outputs.
        input_shape: `(frames, height, width, channels)` of the model.
        answer: Function from outputs of the model to the outputs of a signature, a dictionary.
        frame_step: Seconds between two frames of a training clip, or `None`. A number adds the
            signature `clips_at_rate`.
    """
    tf = require("tensorflow", "tensorflow")
    frames, height, width, channels = input_shape
    clips_spec = tf.TensorSpec((None, None, None, None, channels), tf.uint8, "clips")
    rate_spec = tf.TensorSpec((None,), tf.float32, "frame_rate")

    def fit_chosen(clips: "Tensor", places: "Tensor") -> "Tensor":
        """Return some frames of clips, resized for the model."""

        def choose(clips: "Tensor") -> "Tensor":
            return tf.gather(clips, places, axis=1, batch_dims=places.shape.rank - 1)

        # Frames of a short clip repeat after the resizing: large repeated frames need gigabytes.
        fitted = tf.cond(
            tf.shape(clips)[1] < frames,
            lambda: choose(fit_frames(clips, height, width)),
            lambda: fit_frames(choose(clips), height, width),
        )
        return tf.ensure_shape(fitted, (None, *input_shape))

    @tf.function(autograph=False, input_signature=[clips_spec])
    def clips(clips: "Tensor") -> "dict[str, Tensor]":
        places = even_places(tf.shape(clips)[1], frames)
        return answer(model_function(fit_chosen(clips, places)))

    @tf.function(
        autograph=False, input_signature=[tf.TensorSpec((None, None), tf.string, "encoded")]
    )
    def encoded(encoded: "Tensor") -> "dict[str, Tensor]":
        length = tf.shape(encoded)[1]
        places = even_places(length, tf.minimum(length, frames))  # decode each file at most once
        encoded = tf.gather(encoded, places, axis=1)

        def decode(contents: "Tensor") -> "Tensor":
            clip = tf.map_fn(
                lambda content: decode_in_graph(content, channels),
                contents,
                fn_output_signature=tf.TensorSpec((None, None, channels), tf.uint8),
            )
            return fit_chosen(clip[None], even_places(tf.shape(clip)[0], frames))[0]

        return answer(model_function(tf.map_fn(decode, encoded, fn_output_signature=tf.float32)))

    found = {"clips": clips, "encoded": encoded, "serving_default": encoded}
    found["pixels"] = of_pixels(model_function, input_shape, answer)
    if frame_step is None:
        return found

    @tf.function(autograph=False, input_signature=[clips_spec, rate_spec])
    def clips_at_rate(clips: "Tensor", frame_rate: "Tensor") -> "dict[str, Tensor]":
        places = places_at_rate(tf.shape(clips)[1], frames, frame_rate, frame_step)
        return answer(model_function(fit_chosen(clips, places)))

    return {**found, "clips_at_rate": clips_at_rate}


def even_places(length: "Tensor", frames: "int | Tensor") -> "Tensor":
    """Return the indices, (frames,), of evenly spaced frames of a clip. The first index is 0."""
    tf = require("tensorflow", "tensorflow")
    return tf.range(frames) * length // frames


def places_at_rate(length: "Tensor", frames: int, frame_rate: "Tensor", step: float) -> "Tensor":
    """Return the indices of frames in the middle of each clip, for given frame rates.

    The frames equal the frames at the times of `uniform_clips(..., count=1)`.

    Args:
        length: Number of frames of each clip.
        frames: Integer, number of frames to select (T).
        frame_rate: Tensor of frames per second, (B,).
        step: Seconds between two selected frames.

    Returns:
        Tensor of type int32 and shape (B, frames). In clips that are too short, the last frame is
        repeated.
    """
    tf = require("tensorflow", "tensorflow")
    positive = tf.debugging.assert_positive(frame_rate, "`frame_rate` must be above zero")
    with tf.control_dependencies([positive] if positive is not None else []):
        rate = tf.cast(frame_rate, tf.float64)[:, None]
    duration = tf.cast(length, tf.float64) / rate
    start = tf.maximum(duration - frames * step, 0.0) / 2
    times = start + tf.range(frames, dtype=tf.float64) * step
    times = tf.minimum(times, tf.maximum(duration - 1e-3, 0.0))
    places = tf.cast(tf.floor((times + 1e-6) * rate), tf.int32)
    return tf.clip_by_value(places, 0, length - 1)


def fit_frames(clips: "Tensor", height: int, width: int) -> "Tensor":
    """Resize clips until they cover a size, then crop their centres, as `fit_clip` does.

    Args:
        clips: Tensor of shape (B, frames, any height, any width, channels).
        height: Integer, height of the result.
        width: Integer, width of the result.

    Returns:
        Tensor of type float32 and shape (B, frames, height, width, channels).
    """
    tf = require("tensorflow", "tensorflow")
    channels = clips.shape[-1]
    shape = tf.shape(clips)
    wanted = tf.constant((height, width), tf.float64)
    size = tf.cast(shape[2:4], tf.float64)
    size = tf.maximum(tf.round(size * tf.reduce_max(wanted / size)), wanted)
    top, left = tf.unstack(tf.cast(tf.round((size - wanted) * 0.5), tf.int32))
    pixels = tf.reshape(tf.cast(clips, tf.float32), (-1, shape[2], shape[3], channels))
    pixels = tf.image.resize(pixels, tf.cast(size, tf.int32), antialias=True)
    pixels = pixels[:, top : top + height, left : left + width]
    return tf.reshape(pixels, (shape[0], shape[1], height, width, channels))
