"""Videos of tensorflow-datasets (extra `tfds`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from keras_tokenlearner._errors import errors_of
from keras_tokenlearner._extras import require
from keras_tokenlearner.data.tfds import open_records, splits_of
from keras_tokenlearner.data.video.decoding import VideoError, VideoInfo
from keras_tokenlearner.data.video.lists import VideoList


class Records(Protocol):
    """A sequence of records from tensorflow-datasets."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> Mapping[str, Sequence[bytes]]: ...


class FrameDecoder(Protocol):
    """A feature of tensorflow-datasets that decodes a frame."""

    def decode_example_np(self, example: bytes, /) -> np.ndarray: ...


@dataclass(frozen=True)
class TfdsVideos(VideoList):
    """A list of videos from tensorflow-datasets, with the features `video` and `label`.

    A record stores each frame as an image. Only the frames of a clip are decoded.

    Attributes:
        records: Sequence of records. The inherited attribute `files` holds their indices as
            strings.
        frame: The feature that decodes a frame.
        name: Name and version of the data set, such as `"ucf101/ucf101_1/2.0.0"`.
        split: Name of the split, with a slice if any.
        frame_rate: Frames per second, the same for all videos.
    """

    records: Records = field(kw_only=True)
    frame: FrameDecoder = field(kw_only=True)
    name: str = field(kw_only=True)
    split: str = field(kw_only=True)
    frame_rate: float = 25.0

    def probe(self, place: int) -> VideoInfo:
        """Return the `VideoInfo` of a video."""
        frames = self._frames(place)
        height, width, _ = self.frame.decode_example_np(frames[0]).shape
        return VideoInfo(len(frames) / self.frame_rate, self.frame_rate, height, width)

    def read_frames(self, place: int, times: Sequence[float] | np.ndarray) -> np.ndarray:
        """Decode the frames of a video that are shown at given times."""
        frames = self._frames(place)
        numbers = (np.asarray(times) * self.frame_rate + 1e-6).astype(int)
        numbers = np.minimum(numbers, len(frames) - 1)
        decoded = {n: self.frame.decode_example_np(frames[n]) for n in np.unique(numbers)}
        return np.stack([decoded[number] for number in numbers])

    def _frames(self, place: int) -> Sequence[bytes]:
        frames = self.records[int(self.files[place])]["video"]
        if not len(frames):
            raise VideoError(f"record {self.files[place]}: the video must have at least one frame")
        return frames


def from_tfds(name: str, split: str, frame_rate: float = 25.0) -> TfdsVideos:
    """List the videos of a split of a data set that tensorflow-datasets prepared.

    Args:
        name: Name of the data set, such as `"ucf101"`.
        split: Name of the split, with a slice if wanted, such as `"train[:1000]"`.
        frame_rate: Frames per second, which the records do not state. UCF101 has 25.

    Returns:
        A `TfdsVideos`.

    Raises:
        ValueError: If the data set does not exist or was not prepared. Also if the data set has no
            feature `video`, or no feature `label` with names of classes. Also if a video has no
            label.
        ImportError: If tensorflow-datasets is not installed.
    """
    tfds: Any = require("tensorflow_datasets", "tfds")

    class Encoded(tfds.decode.SkipDecoding):
        """A decoder that leaves frames encoded. `SkipDecoding` fails for sequences of frames."""

        def decode_batch_example_np(self, serialized_example: Sequence[bytes]) -> Sequence[bytes]:
            return serialized_example

    builder, records = open_records("from_tfds", name, split, "videos", {"video": Encoded()})
    features = builder.info.features
    with errors_of("from_tfds"):
        return TfdsVideos(
            files=tuple(str(place) for place in range(len(records))),
            labels=np.array([int(record["label"]) for record in records], "int64"),
            class_names=tuple(features["label"].names),
            records=records,
            frame=features["video"].feature,
            name=builder.info.full_name,
            split=split,
            frame_rate=frame_rate,
        )


def load_tfds(name: str) -> tuple[TfdsVideos, TfdsVideos]:
    """Return the training and the test split of a data set, as two `TfdsVideos`."""
    train, test = (from_tfds(name, split) for split in splits_of("from_tfds", name, "videos"))
    return train, test
