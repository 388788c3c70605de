"""Small real clips as arrays: decoded videos, their motion, and folds for cross-validation."""

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from keras_tokenlearner._extras import require
from keras_tokenlearner.data import video

FRAMES, RATE, SIZE = 30, 15, 64
_GAP, _GAIN = 2, 4


@dataclass(frozen=True)
class Clips:
    """Two seconds of each video, grey and square.

    Attributes:
        pixels: Array of type uint8 and shape (n, 30, 64, 64, 1), 15 frames per second.
        labels: Integer array of shape (n,).
        recordings: Array of strings, the source recording of each clip.
        class_names: Names of the labels.
    """

    pixels: np.ndarray
    labels: np.ndarray
    recordings: np.ndarray
    class_names: tuple

    @property
    def motion(self):
        """Change of each pixel since two frames earlier, four times as bright."""
        frames = self.pixels.astype("int16")
        changed = np.abs(frames[:, _GAP:] - frames[:, :-_GAP])
        return np.minimum(_GAIN * changed, 255).astype("uint8")

    def __len__(self):
        return len(self.labels)

    def part(self, places):
        """Return the clips with the given indices."""
        chosen = self.pixels[places], self.labels[places], self.recordings[places]
        return Clips(*chosen, self.class_names)

    def folds(self, count, seed):
        """Return the indices `(train, test)` of each fold. No recording is split between folds."""
        selection = require("sklearn.model_selection", "dev")
        splitter = selection.StratifiedGroupKFold(count, shuffle=True, random_state=seed)
        return list(splitter.split(self.pixels, self.labels, self.recordings))


def load_clips(folder, cache):
    """Decode the videos of a folder with a `labels.csv`, or read the decoded videos.

    Every frame is resized to a square, since sizes differ by class.

    Args:
        folder: Path of a folder with files and `labels.csv`, of columns file, label, source_video.
        cache: Path of the `.npz` file of decoded videos.

    Returns:
        `Clips`.
    """
    table = Path(folder) / "labels.csv"
    videos = video.from_csv(table)
    with open(table, newline="") as stream:
        recordings = np.array([row["source_video"] for row in csv.DictReader(stream)])
    digest = hashlib.sha256(table.read_bytes()).hexdigest()
    if not Path(cache).is_file():
        pixels = np.stack([_decode(videos, place) for place in range(len(videos))])
        np.savez_compressed(cache, pixels=pixels, table=digest)
    with np.load(cache) as file:
        if "table" not in file or str(file["table"]) != digest:
            raise ValueError(
                f"load_clips: `cache` must be of {table}; delete the file or pass another path. "
                f"Received: cache={cache}"
            )
        return Clips(file["pixels"], videos.labels, recordings, videos.class_names)


def _decode(videos, place):
    times = video.uniform_clips(videos.probe(place).duration, FRAMES, 1 / RATE, count=1)[0]
    frames = videos.read_frames(place, times).astype("float32")
    frames = keras.ops.image.resize(frames, (SIZE, SIZE), antialias=True)
    grey = keras.ops.convert_to_numpy(keras.ops.image.rgb_to_grayscale(frames))
    return np.round(grey).clip(0, 255).astype("uint8")
