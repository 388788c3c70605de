import bisect
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, SupportsBytes, cast

import numpy as np

from keras_tokenlearner._extras import require
from keras_tokenlearner.data.decoding import MAX_PIXELS

if TYPE_CHECKING:
    from av import VideoFrame


class VideoError(ValueError):
    """The error for an unusable video file. Its message states the file and the reason."""


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video file.

    Attributes:
        duration: Seconds from the first frame to the end of the last frame.
        frame_rate: Frames per second, on average.
        height: Height of a displayed frame, in pixels.
        width: Width of a displayed frame, in pixels.
    """

    duration: float
    frame_rate: float
    height: int
    width: int


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Return the `VideoInfo` of a file. Only its first frame is decoded.

    Args:
        path: Path of a video file of any kind that FFmpeg reads.

    Raises:
        VideoError: If the file is missing, damaged, without a video stream, or has frames
            that are too large.
        ImportError: If PyAV, the extra `video`, is not installed.

    Example:

    >>> probe("videos/dark/0.mp4")
    VideoInfo(duration=3.0, frame_rate=10.0, height=32, width=48)
    """
    with _Reader(path) as reader:
        first = reader.frame_at(0.0)
        return VideoInfo(reader.duration, reader.frame_rate, first.shape[0], first.shape[1])


def read_frames(path: str | os.PathLike[str], times: Sequence[float] | np.ndarray) -> np.ndarray:
    """Decode the frames that a player shows at given times, and as few other frames as possible.

    Times also work for videos with a variable frame rate. Between two times, the reader jumps to a
    later keyframe, if any. Frames are rotated, mirrored and stretched to square pixels, as players
    display them.

    Args:
        path: Path of a video file.
        times: Sequence of seconds from the first frame, in any order. Times between the last frame
            and the end of the video return the last frame.

    Returns:
        Array of type uint8 and shape (len(times), height, width, 3).

    Raises:
        VideoError: If the file is missing, damaged, has no video stream, or ends long before one of
            the times. Also if frames are too large or differ in size.
        ImportError: If PyAV, the extra `video`, is not installed.

    Example:

    >>> read_frames("videos/dark/0.mp4", [0.0, 1.5]).shape
    (2, 32, 48, 3)
    """
    times = np.asarray(times, "float64")
    order = np.argsort(times, kind="stable")
    shown: dict[int, np.ndarray] = {}
    with _Reader(path) as reader:
        for place in order:
            shown[int(place)] = reader.frame_at(float(times[place]))
    frames = [shown[place] for place in range(len(times))]
    if len({frame.shape for frame in frames}) > 1:
        raise VideoError(
            f"{path}: all frames of the video must have the same size; encode it again"
        )
    return np.stack(frames)


def apply_display_matrix(pixels: np.ndarray, matrix: bytes) -> np.ndarray:
    """Rotate and mirror a frame by its display matrix, in steps of 90 degrees.

    With `(a, b, u, c, d, v, x, y, w)`, a stored position (column, row) is displayed at
    (a * column + c * row, b * column + d * row). Front cameras mirror the frame. An angle alone,
    such as PyAV's `rotation`, cannot express a mirrored frame.

    Args:
        pixels: Array of shape (height, width, channels).
        matrix: Bytes of the nine numbers, of type int32.

    Example:

    >>> mirrored = np.array([-1, 0, 0, 0, 1, 0, 0, 0, 1], "int32") << 16
    >>> apply_display_matrix(np.array([[[1], [2], [3]]]), mirrored.tobytes())[..., 0].tolist()
    [[3, 2, 1]]

    Source: `libavutil/display.h` of FFmpeg, and ISO/IEC 14496-12, the track header's matrix.
    """
    a, b, _, c, d, *_ = np.frombuffer(matrix, "int32").tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    if a < 0:
        pixels = pixels[:, ::-1]
    if d < 0:
        pixels = pixels[::-1]
    return pixels


class _Reader:
    """Reads forward through the first video stream of a file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.av = require("av", "video")
        self.path = path
        self.failure: Exception | None = None

    def __enter__(self) -> Self:
        try:
            self.container = self.av.open(str(self.path))
        except (self.av.FFmpegError, OSError, ValueError) as error:
            raise VideoError(
                f"{self.path}: the file must be a readable video; check the file: {error}"
            ) from error
        if not self.container.streams.video:
            self.container.close()
            raise VideoError(f"{self.path}: the file must have a video stream")
        self.stream = self.container.streams.video[0]
        try:
            self._check_pixels(self.stream.width, self.stream.height)
        except VideoError:
            self.container.close()
            raise
        # FFmpeg checks the size of every frame: the size may change within the file.
        self.stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        self.stream.thread_type = "AUTO"
        self.start = float((self.stream.start_time or 0) * self.stream.time_base)
        self.frame_rate = float(self.stream.average_rate or self.stream.guessed_rate or 25)
        self.duration = self._duration()
        self.keyframes = sorted(
            float(entry.timestamp * self.stream.time_base) - self.start
            for entry in self.stream.index_entries
            if entry.is_keyframe
        )
        self.decoded = self._decode()
        self.current: tuple[float, VideoFrame] | None = None
        self.next: tuple[float, VideoFrame] | None = None
        self.image: np.ndarray | None = None
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    def _duration(self) -> float:
        if self.stream.duration:
            return float(self.stream.duration * self.stream.time_base)
        if self.container.duration:
            return self.container.duration / self.av.time_base - self.start
        ends = [  # some formats do not state the duration: read the packets, without decoding them
            float((packet.pts + (packet.duration or 0)) * self.stream.time_base)
            for packet in self.container.demux(self.stream)
            if packet.pts is not None
        ]
        self.container.seek(0)
        return max(ends, default=0.0) - self.start

    def _decode(self) -> "Iterator[tuple[float, VideoFrame]]":
        """Yield frames with their times, until the file ends or a frame cannot be decoded."""
        try:
            for frame in self.container.decode(self.stream):
                if frame.time is not None:
                    yield frame.time - self.start, frame
        except (self.av.FFmpegError, EOFError) as error:
            self.failure = error

    def frame_at(self, time: float) -> np.ndarray:
        """Return the frame that a player shows at `time`, in seconds.

        `time` must not decrease from call to call.
        """
        time += 1e-6  # times of frames are rounded to floating point
        self._jump(time)
        if self.next is None:
            self.next = next(self.decoded, None)
        while self.next is not None and (self.current is None or self.next[0] <= time):
            self.current, self.image = self.next, None
            self.next = next(self.decoded, None)
        if self.current is None:
            raise VideoError(
                f"{self.path}: at least one frame must be decodable; check the file{self._reason()}"
            )
        late = time - self.current[0]
        if self.next is None and late > max(2.5 / self.frame_rate, 0.25):
            raise VideoError(
                f"{self.path}: the file must have frames for its duration of {self.duration:.1f} s;"
                f" check the file. The last frame is {late:.1f} s before the requested time of "
                f"{time:.1f} s{self._reason()}"
            )
        if self.image is None:
            self.image = self._shown(self.current[1])
        return self.image

    def _shown(self, frame: "VideoFrame") -> np.ndarray:
        """Return a frame as players show it: with square pixels, rotated and mirrored."""
        width = max(round(frame.width * float(self.stream.sample_aspect_ratio or 1)), 1)
        self._check_pixels(width, frame.height)
        size: dict[str, Any] = {}
        if width != frame.width:
            size = {"width": width, "height": frame.height}
        pixels = frame.to_ndarray(format="rgb24", **size)
        matrix = cast(SupportsBytes | None, frame.side_data.get("DISPLAYMATRIX"))
        return pixels if matrix is None else apply_display_matrix(pixels, bytes(matrix))

    def _check_pixels(self, width: int, height: int) -> None:
        if width * height > MAX_PIXELS:
            raise VideoError(
                f"{self.path}: a frame must have at most {MAX_PIXELS} pixels; resize the video; "
                f"got {width} x {height} pixels"
            )

    def _jump(self, time: float) -> None:
        """Skip to the last keyframe before a time, if this keyframe is after the next frame."""
        place = bisect.bisect_right(self.keyframes, time) - 1
        ahead = self.next[0] if self.next is not None else -1.0
        if place <= 0 or self.keyframes[place] <= ahead + 1 / self.frame_rate:
            return
        offset = (self.keyframes[place] + self.start) / self.stream.time_base
        self.container.seek(round(offset), stream=self.stream)
        self.decoded = self._decode()
        self.next = None

    def _reason(self) -> str:
        return "" if self.failure is None else f": {self.failure}"
