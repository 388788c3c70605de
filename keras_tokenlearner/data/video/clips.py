"""Computes the times of a clip's frames, in seconds from the first frame of the video."""

import numpy as np


def random_clip(
    duration: float, frames: int, step: float, random: np.random.Generator
) -> np.ndarray:
    """Return the times of the frames of a clip with a random start, in seconds.

    Args:
        duration: Duration of the video, in seconds.
        frames: Integer, frames of the clip (T).
        step: Seconds between two frames: the stride divided by the frame rate.
        random: A `numpy.random.Generator`.

    Returns:
        Array of shape (frames,). For a video shorter than the clip, the end time is repeated.

    Example:

    >>> random_clip(duration=10, frames=4, step=1, random=np.random.default_rng(0)).shape
    (4,)
    """
    start = random.uniform(0, max(duration - frames * step, 0))
    return _times([start], duration, frames, step)[0]


def uniform_clips(duration: float, frames: int, step: float, count: int) -> np.ndarray:
    """Return the times of evenly spaced clips, from the start of a video to its end.

    Args:
        duration: Duration of the video, in seconds.
        frames: Integer, frames of each clip (T).
        step: Seconds between two frames.
        count: Integer, number of clips; the paper tests with 4. A single clip is in the middle.

    Returns:
        Array of shape (count, frames).

    Example:

    >>> uniform_clips(duration=10, frames=4, step=1, count=3)[:, 0].tolist()
    [0.0, 3.0, 6.0]
    """
    spare = max(duration - frames * step, 0)
    starts = np.linspace(0, spare, count) if count > 1 else np.array([spare / 2])
    return _times(starts, duration, frames, step)


def segments(duration: float, frames: int, step: float) -> np.ndarray:
    """Return the times of consecutive clips that cover a video. The last clip ends with the video.

    Args:
        duration: Duration of the video, in seconds.
        frames: Integer, frames of each clip (T); 64 for Charades.
        step: Seconds between two frames; 1/6 or 1/12 for Charades.

    Returns:
        Array of shape (clips, frames).

    Example:

    >>> segments(duration=10, frames=4, step=1).tolist()
    [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0], [6.0, 7.0, 8.0, 9.0]]
    """
    span = frames * step
    count = max(int(np.ceil(duration / span - 1e-9)), 1)
    starts = np.minimum(np.arange(count) * span, max(duration - span, 0))
    return _times(starts, duration, frames, step)


def _times(
    starts: np.ndarray | list[float], duration: float, frames: int, step: float
) -> np.ndarray:
    times = np.asarray(starts, "float64")[:, None] + np.arange(frames) * step
    return np.minimum(times, max(duration - 1e-3, 0))
