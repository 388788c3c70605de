from pathlib import Path

from keras_tokenlearner.data.video.lists import from_csv, from_folder


def open_videos(path):
    """List the training and the test videos of a folder.

    Args:
        path: Path of a folder with folders `train` and `test` (or `val`), as `from_folder` reads
            them, or with files `train.csv` and `test.csv` (or `val.csv`) for `from_csv`.

    Returns:
        Two `VideoList` of the same classes.

    Raises:
        ValueError: If there are no such folders or files, or their classes differ.
    """
    path = Path(path)
    if (path / "train.csv").is_file():
        train = from_csv(path / "train.csv")
        return train, from_csv(_test(path, ".csv"), class_names=train.class_names)
    train, test = from_folder(path / "train"), from_folder(_test(path, ""))
    if train.class_names != test.class_names:
        raise ValueError(
            "open_videos: the folders of training and of test videos must have the same classes. "
            f"Received: {train.class_names} and {test.class_names}"
        )
    return train, test


def _test(path, suffix):
    found = [path / f"{name}{suffix}" for name in ("test", "val")]
    return next((one for one in found if one.exists()), found[0])
