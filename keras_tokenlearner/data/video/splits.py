from pathlib import Path

from keras_tokenlearner._checks import check_path
from keras_tokenlearner._errors import own_errors
from keras_tokenlearner.data.folders import held_out, split_folders
from keras_tokenlearner.data.video.lists import (
    VideoList,
    from_avid,
    from_charades,
    from_csv,
    from_folder,
)
from keras_tokenlearner.data.video.tfds import load_tfds


@own_errors
def open_videos(path: str | Path) -> tuple[VideoList, VideoList]:
    """List the training videos and the test videos of a folder or data set.

    Args:
        path: Path of a folder, with or without the prefix `folder:`. Or `"tfds:NAME"`, for a data
            set that tensorflow-datasets prepared. The folder has one of these:

            * Folders `train` and `test` (or `val`) for `from_folder`.
            * Files `train.csv` and `test.csv` (or `val.csv`) for `from_csv`.
            * Charades: `Charades_v1_train.csv`, `Charades_v1_test.csv`, and videos in
              `Charades_v1_480`.
            * AViD: `avid_train.json`, `avid_val.json`, and videos in `videos`.

    Returns:
        Two `VideoList` with the same classes: training videos and test videos.

    Raises:
        ValueError: If the folder has none of these folders or files, or the classes of training
            videos and test videos differ.
    """
    if str(path).startswith("tfds:"):
        return load_tfds(str(path).removeprefix("tfds:"))
    folder = check_path("open_videos", "path", str(path).removeprefix("folder:"))
    if (folder / "Charades_v1_train.csv").is_file():
        files = [folder / f"Charades_v1_{split}.csv" for split in ("train", "test")]
        train, test = (from_charades(file, folder / "Charades_v1_480") for file in files)
        return train, test
    if (folder / "avid_train.json").is_file():
        train = from_avid(folder / "avid_train.json", folder / "videos")
        return train, from_avid(folder / "avid_val.json", folder / "videos", train.class_names)
    if (folder / "train.csv").is_file():
        train = from_csv(folder / "train.csv")
        return train, from_csv(held_out(folder, ".csv"), class_names=train.class_names)
    return split_folders("open_videos", "path", path, from_folder, "videos")
