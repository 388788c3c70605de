import warnings

import numpy as np

from keras_tokenlearner.data.batches import ReadBatches
from keras_tokenlearner.data.video.augment import augment_clip, fit_clip, in_channels
from keras_tokenlearner.data.video.clips import random_clip, uniform_clips
from keras_tokenlearner.data.video.decoding import VideoError


class VideoBatches(ReadBatches):
    """Batches of clips from video files, for `fit` on every backend.

    For training every video gives a clip at a random moment, augmented alike on all its frames;
    otherwise one from its middle, cut from its centre. Only the frames of the clip are decoded. A
    video's clip depends on the seed, the epoch and the video alone. Pass `shuffle=False` to `fit`.

    Args:
        videos: A `VideoList`, such as `from_folder` gives.
        input_shape: `(frames, height, width, channels)` of a clip, as the model takes it: of three
            channels, or grey.
        batch_size: Integer. The last batch may be smaller.
        stride: Integer, frames of the video for each frame of the clip.
        frame_rate: Frames of the video a second that `stride` counts. Defaults to each file's own.
        training: Boolean, whether to shuffle and augment.
        flip: Boolean, whether to mirror every other clip for training; not where a class is a way
            to go, as to the left.
        on_error: `"skip"` replaces an unreadable video by another, warns, and records it in
            `skipped`, a dictionary from files to reasons; `"raise"` raises.
        seed: Integer.
        threads: Integer, of decoding.

    Raises:
        VideoError: If a video cannot be read and `on_error="raise"`, or none of a batch can.

    Example:

    >>> from keras_tokenlearner.data.video import from_folder
    >>> batches = VideoBatches(from_folder("videos"), (4, 32, 32, 3), batch_size=2)
    >>> clips, labels = batches[0]
    >>> clips.shape
    (2, 4, 32, 32, 3)
    """

    def __init__(
        self,
        videos,
        input_shape,
        batch_size,
        stride=2,
        frame_rate=None,
        training=True,
        flip=True,
        on_error="skip",
        seed=0,
        threads=2,
    ):
        super().__init__(
            videos, threads, batch_size=batch_size, shuffle=training, seed=seed, partial=True
        )
        if on_error not in ("skip", "raise"):
            raise ValueError(
                f"VideoBatches: `on_error` must be 'skip' or 'raise'. Received: {on_error!r}"
            )
        self.videos = videos
        self.input_shape = input_shape
        self.stride = stride
        self.frame_rate = frame_rate
        self.training = training
        self.flip = flip
        self.on_error = on_error
        self.skipped = {}

    def __getitem__(self, index):
        index += self.start
        places = self.rows(index)
        clips = zip(self.found(index), places, strict=True)
        found = [(clip, place) for clip, place in clips if clip is not None]
        if not found:
            reasons = "; ".join(self.skipped[self.videos.files[place]] for place in places)
            raise VideoError(f"VideoBatches: no video of a batch can be read: {reasons}")
        while len(found) < len(places):  # keep the size of the batch
            found.append(found[len(found) % len(places) - 1])
        clips, chosen = zip(*found, strict=True)
        return np.stack(clips), self.videos.labels[list(chosen)]

    def read(self, place, epoch):
        """Return the clip of a video, or `None` if it cannot be read."""
        frames, height, width, channels = self.input_shape
        random = np.random.default_rng((self.seed, epoch, place))
        try:
            info = self.videos.probe(place)
            step = self.stride / (self.frame_rate or info.frame_rate)
            if self.training:
                times = random_clip(info.duration, frames, step, random)
                clip = in_channels(self.videos.read_frames(place, times), channels)
                return augment_clip(clip, height, width, random, flip=self.flip)
            times = uniform_clips(info.duration, frames, step, count=1)[0]
            clip = in_channels(self.videos.read_frames(place, times), channels)
            return fit_clip(clip, height, width)
        except VideoError as error:
            if self.on_error == "raise":
                raise
            file = self.videos.files[place]
            if file not in self.skipped:
                warnings.warn(f"skipped: {error}", stacklevel=2)
            self.skipped[file] = str(error)
            return None
