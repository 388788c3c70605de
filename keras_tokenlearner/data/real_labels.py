import json
import os
import re
from collections.abc import Iterable

from keras_tokenlearner._checks import check_path

_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})\b")


def read_real_labels(path: str | os.PathLike[str], names: Iterable[str]) -> list[list[int]]:
    """Return the reassessed labels (ReaL) of images in ImageNet's validation set.

    Args:
        path: Path of `real.json`, from https://github.com/google-research/reassessed-imagenet. The
            file has a list of labels for each validation image, in the order of the image names.
        names: Names of the images, such as `"ILSVRC2012_val_00000001.JPEG"`, in any order.
            The attribute `names` of an `Images` has these names.

    Returns:
        A list of labels for each name, for `keras_tokenlearner.evaluation.real_accuracy`.

    Raises:
        ValueError: If the file is missing or damaged, or a name has no number of a validation
            image.

    Source: Beyer et al., "Are we done with ImageNet?", 2020.
    """
    path = check_path("read_real_labels", "path", path)
    try:
        lists = json.loads(path.read_text())
        lists = [[int(label) for label in labels] for labels in lists]
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            "read_real_labels: `path` must be a JSON file with a list of lists of labels; download "
            f"real.json again. Received: path={str(path)!r}: {error}"
        ) from error
    found = []
    for name in names:
        number = _NUMBER.search(name)
        if not number or not 1 <= int(number.group(1)) <= len(lists):
            raise ValueError(
                "read_real_labels: `names` must be file names of ImageNet's validation images, "
                f"such as ILSVRC2012_val_00000001.JPEG, with numbers up to {len(lists)}. "
                f"Received: {name!r}"
            )
        found.append(lists[int(number.group(1)) - 1])
    return found
