import collections
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, TypeVar, Unpack

import keras
import numpy as np

from keras_tokenlearner._checks import (
    check_choice,
    check_int,
    check_is,
    check_model,
    check_positive,
    check_vectors,
)
from keras_tokenlearner._class_order import check_order
from keras_tokenlearner._errors import own_errors
from keras_tokenlearner.data import video
from keras_tokenlearner.data.video.lists import Views
from keras_tokenlearner.evaluation.scores import (
    mean_average_precision,
    mean_class_accuracy,
    top_k_accuracy,
)
from keras_tokenlearner.models.features import with_calls, with_plain_output
from keras_tokenlearner.models.head import has_logits, head_of, logits_of
from keras_tokenlearner.models.preprocessing import check_takes_pixels

_PLACES = {1: (0.5,), 3: (0.0, 0.5, 1.0)}  # positions of the crops along the longer side
_MERGES: dict[str, Callable[..., np.ndarray]] = {"mean": np.mean, "max": np.max}
Item = TypeVar("Item")
Result = TypeVar("Result")


@own_errors
def evaluate_videos(
    model: keras.Model, videos: video.VideoList, **protocol: Unpack[Views]
) -> dict[str, float]:
    """Compute metrics of a model on labelled videos, with several views of each video.

    Args:
        model: A `keras.Model` that classifies clips, as for `predict_videos`.
        videos: A `keras_tokenlearner.data.video.VideoList`.
        **protocol: Arguments of `predict_videos` that replace `videos.protocol`.

    Returns:
        A dictionary. `videos` is the number of readable videos, `skipped` the number of unreadable
        videos. `top1`, `top5` and `mean_class` are accuracies in [0, 1]. For several labels per
        video, `map`, the mean average precision, replaces the accuracies. NaN logits of a readable
        video count as wrong.

    Raises:
        ValueError: If an argument is out of range, or no video can be read. Also if the classes of
            model and videos differ in number or order, or the model does not take videos.

    Example:

    >>> videos = video.from_folder("videos")
    >>> model = create_model("tokenlearner_x2plus1d_pico", classes=2, input_shape=(2, 16, 16, 3))
    >>> evaluate_videos(model, videos, clips=1, crops=1, verbose=0)["videos"]
    2
    """
    model = _checked("evaluate_videos", model, videos)
    if model.output_shape[-1] != len(videos.class_names):
        raise ValueError(
            f"evaluate_videos: `model` must have the {len(videos.class_names)} classes of "
            f"`videos`. Received: a model with {model.output_shape[-1]} classes"
        )
    own = getattr(model, "class_names", None)
    fix = "list the videos with the model's `class_names`, or correct `model.class_names`"
    check_order("evaluate_videos", "model", own, videos.class_names, "`videos`", fix)
    arguments: Views = {**videos.protocol, **protocol}
    scores, read = predict_videos(model, videos, **arguments)
    if not read.any():
        raise ValueError(
            "evaluate_videos: at least one of `videos` must be readable; the warnings above state "
            f"the reasons. Received: {len(videos.files)} videos, the first is {videos.files[0]}"
        )
    scores, labels = scores[read], videos.labels[read]
    row: dict[str, float] = {"videos": int(read.sum()), "skipped": int((~read).sum())}
    if labels.ndim == 2:
        return {**row, "map": mean_average_precision(labels, scores)[0]}
    return {
        **row,
        "top1": top_k_accuracy(labels, scores),
        "top5": top_k_accuracy(labels, scores, k=5),
        "mean_class": mean_class_accuracy(labels, scores),
    }


def predict_videos(
    model: keras.Model,
    videos: video.VideoList,
    stride: int = 2,
    frame_rate: float | None = None,
    clips: int | Literal["segments"] = 4,
    crops: int = 3,
    merge: str = "mean",
    batch_size: int = 4,
    on_error: str = "skip",
    threads: int = 2,
    verbose: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits of videos, merged over several views of each video.

    Args:
        model: A `keras.Model` that takes clips (B, T, height, width, 1 or 3) with pixels in
            [0, 255]. If the model ends in a dense layer, its logits before the activation are
            merged. If the logits are not known, as in a quantized layer with a softmax, the model's
            outputs are merged.
        videos: A `keras_tokenlearner.data.video.VideoList`.
        stride: Integer, distance between two frames of a clip, in frames of the video.
        frame_rate: Rate of the frames that `stride` counts, in frames per second. Defaults to the
            rate of each file.
        clips: Integer, number of evenly spaced clips of each video (4 in the paper). Or
            `"segments"`: consecutive clips that cover a long video.
        crops: Integer, 1 for a central crop, or 3 for crops along the longer side (as in the
            paper).
        merge: `"mean"` or `"max"`, over the views.
        batch_size: Integer, views per batch.
        on_error: `"skip"` warns of an unreadable video, `"raise"` raises an error.
        threads: Integer, threads that decode the next videos.
        verbose: 1 for a progress bar, 0 for none.

    Returns:
        `(logits, read)`. The logits are an array of shape (videos, classes). The boolean array
        `read` has shape (videos,). It is `False` for skipped videos, whose logits are NaN. For
        NaN logits of the model itself, `read` is `True`.

    Raises:
        ValueError: If an argument is out of range, or the model does not take videos of a known
            size. Also if the model was built with `include_preprocessing=False`, or its outputs do
            not have shape (B, classes).
        VideoError: If a video cannot be read and `on_error="raise"`.
    """
    owner = "predict_videos"
    model = _checked(owner, model, videos)
    check_choice(owner, "crops", crops, tuple(_PLACES))
    check_choice(owner, "merge", merge, tuple(_MERGES))
    check_choice(owner, "on_error", on_error, ("skip", "raise"))
    if clips != "segments":
        check_int(owner, "clips", clips)
    check_int(owner, "batch_size", batch_size)
    check_int(owner, "threads", threads)
    check_positive(owner, "stride", stride)
    if frame_rate is not None:
        check_positive(owner, "frame_rate", frame_rate)
    frames, height, width, channels = model.input_shape[1:]

    def views(place: int) -> np.ndarray | video.VideoError:
        try:
            info = videos.probe(place)
            step = stride / (frame_rate or info.frame_rate)
            if clips == "segments":
                times = video.segments(info.duration, frames, step)
            else:
                times = video.uniform_clips(info.duration, frames, step, clips)
            pixels = video.in_channels(videos.read_frames(place, times.ravel()), channels)
        except video.VideoError as error:
            return error
        pixels = pixels.reshape(*times.shape, *pixels.shape[1:])
        places = _PLACES[crops]
        try:
            fitted = [video.fit_clip(clip, height, width, at) for clip in pixels for at in places]
        except ValueError as error:  # very narrow frames
            return video.VideoError(f"{videos.files[place]}: {error}")
        return np.stack(fitted)

    logits_model = _logits_model(model)
    logits = np.full((len(videos), model.output_shape[-1]), np.nan, "float32")
    read = np.zeros(len(videos), bool)
    progress = keras.utils.Progbar(len(videos), unit_name="video", verbose=verbose)
    for place, found in enumerate(_ahead(views, range(len(videos)), threads)):
        if isinstance(found, video.VideoError):
            if on_error == "raise":
                raise found
            warnings.warn(f"predict_videos: skipped an unreadable video: {found}", stacklevel=2)
        else:
            of_views = _predict(logits_model, found, batch_size)
            logits[place] = _MERGES[merge](of_views, axis=0)
            read[place] = True  # also for a model that returns NaN
        progress.add(1)
    return logits, read


def _checked(owner: str, model: keras.Model, videos: video.VideoList) -> keras.Model:
    """Return a model of videos, or raise `ValueError` for another model or no list of videos."""
    model = with_plain_output(check_model(owner, "model", model, single=True))
    shape = model.input_shape
    if len(shape) != 5 or None in shape[1:] or shape[-1] not in (1, 3):
        raise ValueError(
            f"{owner}: `model` must take videos, (B, T, height, width, 1 or 3), of a known size. "
            f"Received: model={model!r} with inputs {shape}"
        )
    check_vectors(owner, "model", model)
    check_takes_pixels(owner, model)
    check_is(owner, "videos", videos, video.VideoList, "a VideoList")
    return model


def _logits_model(model: keras.Model) -> keras.Model:
    """Return a model that outputs the logits, or `model` itself if its logits are unknown."""
    head = head_of(model)
    if head is None or not has_logits(model, head):
        return model
    copy, calls = with_calls(model)
    return keras.Model(copy.inputs[0], logits_of(head, calls[head.name]))


def _predict(model: keras.Model, views: np.ndarray, batch_size: int) -> np.ndarray:
    """Predict in batches of the same size, so Keras compiles only one program."""
    found = []
    for start in range(0, len(views), batch_size):
        batch = views[start : start + batch_size]
        padded = np.resize(batch, (batch_size, *batch.shape[1:]))  # repeats views to fill the batch
        outputs = np.asarray(model.predict_on_batch(padded), "float32")  # bfloat16 rounds a mean
        found.append(outputs[: len(batch)])
    return np.concatenate(found)


def _ahead(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Iterator[Result]:
    """Yield `function(item)` for each item in order. Threads compute a few results ahead."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: collections.deque[Future[Result]] = collections.deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
