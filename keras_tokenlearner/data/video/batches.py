import numpy as np

from keras_tokenlearner._checks import (
    check_bool,
    check_choice,
    check_ints,
    check_is,
    check_positive,
)
from keras_tokenlearner.data.batches import ReadBatches
from keras_tokenlearner.data.video.augment import augment_clip, fit_clip, in_channels
from keras_tokenlearner.data.video.clips import random_clip, uniform_clips
from keras_tokenlearner.data.video.lists import VideoList


class VideoBatches(ReadBatches[tuple[np.ndarray, np.ndarray]]):
    """Batches of clips from video files, for `fit` on every backend.

    For training, the clip of a video starts at a random time, with the same augmentation on all
    frames. With `training=False`, the clip is the middle of the video, with a central crop. Only
    the frames of the clip are decoded. A clip depends only on the seed, the epoch and the video.

    Args:
        videos: A `VideoList`, for example from `from_folder`.
        input_shape: `(frames, height, width, channels)` of the model, with one channel or three.
            For one channel, clips become grey.
        batch_size: Integer. The last batch may be smaller.
        stride: Integer, distance between two frames of a clip, in frames of the video.
        frame_rate: Rate of the frames that `stride` counts, in frames per second. Defaults to the
            rate of each file.
        training: Boolean, whether to shuffle and augment.
        flip: Boolean, whether to mirror half of the training clips. Pass `False` if a class depends
            on left and right.
        label_mode: `"int"` for labels of shape (B,). `"categorical"` for one-hot labels of type
            float32 and shape (B, classes). Labels of several classes per video stay unchanged.
        on_error: `"skip"` or `"raise"`. `"skip"` replaces an unreadable video by another video of
            the same class, and warns after the epoch. For several labels per video, a video of
            other classes is the last choice, with its own labels. The attribute `skipped` has the
            file and the reason. `"raise"` raises an error.
        seed: Integer, decides order, moments and augmentation.
        threads: Integer, threads that decode videos.

    Raises:
        ValueError: If there are no videos, or an argument is of another type or out of range.
            Later, if a video cannot be read with `on_error="raise"`, or no video of a class can be
            read.

    Example:

    >>> from keras_tokenlearner.data.video import from_folder
    >>> batches = VideoBatches(from_folder("videos"), (4, 32, 32, 3), batch_size=2)
    >>> clips, labels = batches[0]
    >>> clips.shape
    (2, 4, 32, 32, 3)
    """

    def __init__(
        self,
        videos: VideoList,
        input_shape: tuple[int, int, int, int],
        batch_size: int,
        stride: int = 2,
        frame_rate: float | None = None,
        training: bool = True,
        flip: bool = True,
        label_mode: str = "int",
        on_error: str = "skip",
        seed: int = 0,
        threads: int = 2,
    ) -> None:
        check_is("VideoBatches", "videos", videos, VideoList, "a VideoList")
        shape = check_ints("VideoBatches", "input_shape", input_shape, lengths=(4,))
        if shape[-1] not in (1, 3):
            raise ValueError(
                "VideoBatches: `input_shape` must have one channel or three. "
                f"Received: input_shape={input_shape}"
            )
        check_positive("VideoBatches", "stride", stride)
        if frame_rate is not None:
            check_positive("VideoBatches", "frame_rate", frame_rate)
        check_bool("VideoBatches", "training", training)
        check_bool("VideoBatches", "flip", flip)
        check_choice("VideoBatches", "label_mode", label_mode, ("int", "categorical"))
        super().__init__(
            videos,
            threads,
            labels=videos.labels,
            on_error=on_error,
            batch_size=batch_size,
            shuffle=training,
            seed=seed,
            partial=True,
        )
        self.videos = videos
        self.input_shape = shape
        self.stride = stride
        self.frame_rate = frame_rate
        self.training = training
        self.flip = flip
        self.targets = videos.labels
        if label_mode == "categorical" and videos.labels.ndim == 1:
            self.targets = np.eye(len(videos.class_names), dtype="float32")[videos.labels]

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        index = self.place(index)
        clips, targets = zip(*self.found(index), strict=True)
        return np.stack(clips), np.stack(targets)

    def called(self, row: int) -> str:
        return self.videos.files[row]

    def read(self, row: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        return self._clip(row, epoch), self.targets[row]

    def _clip(self, row: int, epoch: int) -> np.ndarray:
        frames, height, width, channels = self.input_shape
        random = np.random.default_rng((self.seed, epoch, row))
        info = self.videos.probe(row)
        step = self.stride / (self.frame_rate or info.frame_rate)
        if self.training:
            times = random_clip(info.duration, frames, step, random)
            clip = in_channels(self.videos.read_frames(row, times), channels)
            return augment_clip(clip, height, width, random, flip=self.flip)
        times = uniform_clips(info.duration, frames, step, count=1)[0]
        clip = in_channels(self.videos.read_frames(row, times), channels)
        return fit_clip(clip, height, width)
