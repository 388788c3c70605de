"""Lists of labelled videos: the files of a data set and their labels."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self, TypedDict

import numpy as np

from keras_tokenlearner._checks import check_labels
from keras_tokenlearner.data.folders import class_files
from keras_tokenlearner.data.video.decoding import VideoInfo, probe, read_frames

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")


class Views(TypedDict, total=False):
    """The optional arguments of `keras_tokenlearner.evaluation.predict_videos`."""

    stride: int
    frame_rate: float | None
    clips: int | Literal["segments"]
    crops: int
    merge: str
    batch_size: int
    on_error: str
    threads: int
    verbose: int


@dataclass(frozen=True)
class VideoList:
    """A list of labelled videos: files, labels and class names.

    Attributes:
        files: Paths, as a tuple of strings.
        labels: Integer array of shape (n,), or array of 0 and 1 of shape (n, classes) for several
            labels per video.
        class_names: Names of the classes, in order.
        protocol: Arguments that `keras_tokenlearner.evaluation.evaluate_videos` passes to
            `predict_videos`, instead of the default values.

    Raises:
        ValueError: If the numbers of files and labels differ, or a label is not the number of a
            class.

    Example:

    >>> videos = VideoList(("a.mp4", "b.mp4"), np.array([0, 1]), ("dark", "light"))
    >>> videos.take([1]).files
    ('b.mp4',)
    """

    files: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    protocol: Views = field(default_factory=Views)

    def __post_init__(self) -> None:
        # A Series of pandas would look up the label of a row, not its number.
        object.__setattr__(self, "files", tuple(self.files))
        object.__setattr__(self, "class_names", tuple(self.class_names))
        labels, shape = np.asarray(self.labels), (len(self.files), len(self.class_names))
        if labels.shape != shape:  # one label for each video
            labels = check_labels("VideoList", "labels", labels, *shape)
        object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        return len(self.files)

    def probe(self, place: int) -> VideoInfo:
        """Return the `VideoInfo` of a video."""
        return probe(self.files[place])

    def read_frames(self, place: int, times: Sequence[float] | np.ndarray) -> np.ndarray:
        """Decode the frames of a video that are shown at given times."""
        return read_frames(self.files[place], times)

    def take(self, places: Sequence[int]) -> Self:
        """Return a list of the videos with the given indices."""
        files = tuple(self.files[place] for place in places)
        return replace(self, files=files, labels=self.labels[list(places)])


def from_folder(path: str | Path) -> VideoList:
    """List the videos of a folder that has one subfolder per class.

    Hidden folders and files, whose names start with a dot, are skipped.

    Args:
        path: Path of the folder.

    Returns:
        A `VideoList`, sorted by the names of subfolders and files.

    Raises:
        ValueError: If the folder has no subfolders, or a subfolder has no videos.

    Example:

    >>> from_folder("videos").class_names  # of videos/dark/*.mp4 and videos/light/*.mp4
    ('dark', 'light')
    """
    files, labels, class_names = class_files(path, SUFFIXES, "videos")
    return VideoList(files, np.array(labels), class_names)


def from_csv(
    path: str | Path,
    root: str | Path | None = None,
    file_column: str = "file",
    label_column: str = "label",
    class_names: Sequence[str] | None = None,
) -> VideoList:
    """List the videos of a CSV file that has a header, and a row for each video.

    Args:
        path: Path of the CSV file.
        root: Folder to which the file names are relative. Defaults to the folder of the CSV file.
        file_column: Name of the column with the names of the files.
        label_column: Name of the column with the labels.
        class_names: The names of the classes, in order. For test videos, pass the `class_names` of
            the training videos. Defaults to the labels of the file, sorted.

    Returns:
        A `VideoList`.

    Raises:
        ValueError: If the file cannot be read, a column is missing, or a label is not in
            `class_names`.

    Example:

    >>> print(Path("videos.csv").read_text())
    file,label
    videos/dark/0.mp4,dark
    videos/light/0.mp4,light
    >>> from_csv("videos.csv").labels.tolist()
    [0, 1]
    """
    rows = _rows("from_csv", path, (file_column, label_column))
    root = Path(path).parent if root is None else Path(root)
    files = [root / row[file_column] for row in rows]
    return _with_names("from_csv", files, [row[label_column] for row in rows], class_names)


def from_avid(
    path: str | Path,
    root: str | Path,
    class_names: Sequence[str] | None = None,
    frame_rate: float = 12,
) -> VideoList:
    """List the videos of AViD from a JSON file that maps each video file to a label.

    Tests use one clip of each video, as in the paper.

    Args:
        path: Path of `avid_train.json` or `avid_val.json`: `{"abcdefgh.mp4": "tap dancing"}`.
        root: Folder of the videos.
        class_names: The names of the classes, in order. For validation videos, pass the
            `class_names` of the training videos. Defaults to the labels of the file, sorted.
        frame_rate: Frames per second in tests. The paper does not state this rate.

    Returns:
        A `VideoList`.

    Raises:
        ValueError: If the file cannot be read, has another format, or a label is not in
            `class_names`.

    Example:

    >>> print(Path("avid.json").read_text())
    {"dark/0.mp4": "dark", "light/0.mp4": "light"}
    >>> from_avid("avid.json", "videos").labels.tolist()
    [0, 1]
    """
    try:
        labels = json.loads(Path(path).read_text())
        files = [Path(root) / name for name in labels]
        labels = [str(labels[name]) for name in labels]
    except (OSError, ValueError, TypeError, IndexError) as error:
        raise ValueError(
            "from_avid: `path` must be a JSON file with an object that maps files to labels. "
            f"Received: path={str(path)!r}: {error}"
        ) from error
    protocol: Views = {"clips": 1, "crops": 1, "stride": 1, "frame_rate": frame_rate}
    return replace(_with_names("from_avid", files, labels, class_names), protocol=protocol)


def from_charades(path: str | Path, root: str | Path, frame_rate: float = 12) -> VideoList:
    """List the videos of Charades from a CSV file. Each video has the labels of all its actions.

    The column `actions` has entries such as `"c092 11.90 21.20;c147 0.00 12.60"`: an action, its
    start and its end in seconds. All actions of a video are its labels, as in the v1 classification
    setting. The evaluation merges the predictions of consecutive clips, as in the paper.

    Args:
        path: Path of `Charades_v1_train.csv` or `Charades_v1_test.csv`.
        root: Folder of the videos, `ID.mp4`.
        frame_rate: Frames per second at evaluation. The paper uses 6 and 12.

    Returns:
        A `VideoList` with labels of shape (n, 157).

    Raises:
        ValueError: If the file cannot be read, a column is missing, or an action is not one of c000
            to c156.

    Example:

    >>> print(Path("charades.csv").read_text())
    id,actions
    0,c092 11.90 21.20;c147 0.00 12.60
    >>> np.flatnonzero(from_charades("charades.csv", "videos/dark").labels[0]).tolist()
    [92, 147]
    """
    rows = _rows("from_charades", path, ("id", "actions"))
    class_names = tuple(f"c{number:03}" for number in range(157))
    numbers = {name: number for number, name in enumerate(class_names)}
    labels = np.zeros((len(rows), 157), "float32")
    for row, label in zip(rows, labels, strict=True):
        for action in filter(str.strip, row["actions"].split(";")):
            name = action.split()[0]
            if name not in numbers:
                raise ValueError(
                    "from_charades: actions in the CSV file must be c000 to c156. "
                    f"Received: {action!r} for the video {row['id']!r}"
                )
            label[numbers[name]] = 1
    files = tuple(str(Path(root) / f"{row['id']}.mp4") for row in rows)
    protocol: Views = {"clips": "segments", "crops": 1, "stride": 1, "frame_rate": frame_rate}
    return VideoList(files, labels, class_names, protocol)


def _with_names(
    owner: str, files: Sequence[Path], labels: Sequence[str], class_names: Sequence[str] | None
) -> VideoList:
    class_names = tuple(sorted(set(labels)) if class_names is None else class_names)
    numbers = {name: number for number, name in enumerate(class_names)}
    unknown = sorted(set(labels) - set(numbers))
    if unknown:
        raise ValueError(
            f"{owner}: every label must be one of the {len(numbers)} `class_names`. "
            f"Received: {len(unknown)} unknown labels, the first are {unknown[:3]}"
        )
    return VideoList(
        tuple(str(file) for file in files),
        np.array([numbers[label] for label in labels], "int64"),
        class_names,
    )


def _rows(owner: str, path: str | Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with open(path, newline="") as stream:
            reader = csv.DictReader(stream)
            rows, found = list(reader), reader.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{owner}: `path` must be a readable CSV file. Received: path={str(path)!r}: {error}"
        ) from error
    if not set(columns) <= set(found):
        raise ValueError(
            f"{owner}: {path} must have the columns {columns}. Received: columns {list(found)}"
        )
    for row in rows:
        if any(row[column] is None for column in columns):
            raise ValueError(
                f"{owner}: each row of {path} must have the columns {columns}. "
                f"Received: a row of {list(row.values())}"
            )
    return rows
