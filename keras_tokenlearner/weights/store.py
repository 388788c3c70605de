"""The table of included weights, and functions that find or download their files."""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath
from urllib.parse import quote, urlsplit

import keras

from keras_tokenlearner._files import move
from keras_tokenlearner.data.cifar10 import CLASS_NAMES as CIFAR10
from keras_tokenlearner.data.fashion_mnist import CLASS_NAMES as FASHION_MNIST
from keras_tokenlearner.models.preprocessing import Preprocessing
from keras_tokenlearner.weights.formats.entries import PathLike
from keras_tokenlearner.weights.int8 import SUFFIX, from_int8
from keras_tokenlearner.weights.saving import load_weights, sha256

# Characters of paths and queries, besides letters and digits, that `_ascii` does not encode. They
# include "%", which starts an encoded character.
_ALLOWED = "-._~/:?#[]@!$&'()*+,;=%"
_SUBFOLDER = "models/keras_tokenlearner"  # a folder in Keras's cache


@dataclass(frozen=True)
class StoredWeights:
    """A row of the table of included weights.

    Attributes:
        model: Name of the model in the catalogue.
        uri: Address of the `.weights.h5` or `.int8.h5` file, or `package:NAME` for an included
            file.
        sha256: sha256 of the file.
        size: Size of the file, in bytes.
        input_shape: `(height, width, channels)` of the training images.
        classes: Number of classes.
        class_names: Names of the classes, in order.
        licence: Licence of the weights, and of the training data.
        metric: Accuracy or another metric, with the data on which it was measured.
        command: The command that trained the weights.
        preprocessing: The `Preprocessing` of the images, or `None` for pixels in [-1, 1].

    Example:

    >>> find("tokenlearner_nano4_8at2", "fashion_mnist").classes
    10
    """

    model: str
    uri: str
    sha256: str
    size: int
    input_shape: tuple[int, ...]
    classes: int
    class_names: tuple[str, ...]
    licence: str
    metric: str
    command: str
    preprocessing: Preprocessing | None = None


STORE = {
    ("tokenlearner_nano4_8at2", "fashion_mnist"): StoredWeights(
        model="tokenlearner_nano4_8at2",
        uri="package:tokenlearner_nano4_8at2_fashion_mnist.weights.h5",
        sha256="3ce6cbc78dfbd6df148244cd669215623dee5287bde7f2455411126e4cdf40ae",
        size=3394360,
        input_shape=(28, 28, 1),
        classes=10,
        class_names=FASHION_MNIST,
        licence="Apache-2.0, trained on Fashion-MNIST (MIT)",
        metric="94.05% top-1 accuracy on the 10,000 test images",
        command="keras-tokenlearner train fashion_mnist --set data=fashion_mnist:FOLDER",
    ),
    ("tokenlearner_nano4_8at2", "cifar10"): StoredWeights(
        model="tokenlearner_nano4_8at2",
        uri="package:tokenlearner_nano4_8at2_cifar10.weights.h5",
        sha256="ccd57704709e6fd7dfd095ec6bd20aeb36dad1ce072e5ab121f66ccca4491185",
        size=3403256,
        input_shape=(32, 32, 3),
        classes=10,
        class_names=CIFAR10,
        licence="Apache-2.0, trained on CIFAR-10 (Krizhevsky, 2009, to be cited)",
        metric="86.23% top-1 accuracy on the 10,000 test images",
        command="KERAS_BACKEND=torch keras-tokenlearner train cifar10 --set data=cifar10:FOLDER",
    ),
    ("tokenlearner_s14_16at5", "cifar10"): StoredWeights(
        model="tokenlearner_s14_16at5",
        uri="package:tokenlearner_s14_16at5_cifar10.int8.h5",
        sha256="d7b22665c9c7f4ee87e06314aacd217d104e907da2dcc45acfce60d8e5608b50",
        size=20458279,
        input_shape=(112, 112, 3),
        classes=10,
        class_names=CIFAR10,
        licence="Apache-2.0, trained from DINOv2 (Meta, Apache-2.0) on CIFAR-10 (Krizhevsky, 2009, "
        "to be cited)",
        metric="94.59% top-1 accuracy on the 10,000 test images",
        command="KERAS_BACKEND=torch python -m benchmarks.retrofit_ablation dinov2s.pt "
        "cifar10:FOLDER --tuned-from 5 --teacher-epochs 1 --epochs 6 --places 5 16 --seeds 1",
        preprocessing=Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    ),
}


def names(model: str) -> list[str]:
    """Return the names of the included weights for a model of the catalogue."""
    return [name for stored_model, name in STORE if stored_model == model]


def find(model: str, name: str) -> StoredWeights:
    """Return the `StoredWeights` of a model by name, or raise `ValueError`."""
    if (model, name) not in STORE:
        known = [None, *names(model)]
        raise ValueError(
            f"create_model({model!r}): `weights` must be one of {known}, a `.weights.h5` file, or "
            f"a file with its source, such as 'timm:FILE'. Received: weights={name!r}"
        )
    return STORE[model, name]


def load_stored(model: keras.Model, stored: StoredWeights) -> None:
    """Load included weights into a model, from the package, the cache or the network."""
    path = fetch(stored.uri, stored.sha256)
    if not path.name.endswith(SUFFIX):
        load_weights(model, path, expected_sha256=stored.sha256)
        return
    if (digest := sha256(path)) != stored.sha256:
        raise ValueError(
            f"load_stored: {path} is damaged or was changed: its sha256 must be {stored.sha256}. "
            f"Install the package again. Received: sha256 {digest}"
        )
    with tempfile.TemporaryDirectory() as folder:
        floats = Path(folder) / path.name.replace(SUFFIX, ".weights.h5")
        from_int8(path, floats)
        load_weights(model, floats)


def fetch(uri: str, expected_sha256: str, cache_dir: PathLike | None = None) -> Path:
    """Return the local path of a file. Download the file if it is not in Keras's cache yet.

    An incomplete or damaged download is never used: the next call starts again. A cached file with
    the expected hash needs no network. A file of the package is never downloaded, and its hash is
    not checked here.

    Args:
        uri: `"package:NAME"` for a file in the package, or an address that
            `keras.utils.get_file` takes.
        expected_sha256: The sha256 of the file, as 64 hexadecimal digits.
        cache_dir: Folder instead of Keras's `~/.keras` or `$KERAS_HOME`.

    Returns:
        A `pathlib.Path`.

    Raises:
        ValueError: If the downloaded file has another sha256, or the address is invalid.
        ConnectionError: If the download fails.
    """
    scheme, _, name = uri.partition(":")
    if scheme == "package":
        return Path(str(resources.files("keras_tokenlearner.weights") / "files" / name))
    return download(uri, expected_sha256, cache_dir)


def download(
    uri: str, expected_sha256: str | None = None, cache_dir: PathLike | None = None
) -> Path:
    """Download a file once into Keras's cache, and return its local path.

    Args:
        uri: Address that `keras.utils.get_file` takes.
        expected_sha256: The sha256 of the file, or `None` if unknown.
        cache_dir: Folder instead of Keras's `~/.keras` or `$KERAS_HOME`.

    Raises:
        ValueError: If the file has another sha256, or the address is invalid.
        ConnectionError: If the download fails.
    """
    address = _ascii(uri)
    # Files at different addresses may have the same name: a hash in the name separates them.
    mark = expected_sha256 or hashlib.sha256(address.encode()).hexdigest()
    name = f"{mark[:8]}-{PurePosixPath(urlsplit(uri).path).name}"
    home = Path(cache_dir or os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
    new = name
    if not expected_sha256:
        # Without a hash, a later call could not distinguish a partial download from a complete
        # file. Processes that download at the same time need different names.
        for folder in _folders(home):
            if (folder / name).is_file():
                return folder / name
        new = f"{name}.{secrets.token_hex(4)}.part"
    try:
        path = keras.utils.get_file(
            new,
            origin=address,
            cache_dir=str(home),
            force_download=not expected_sha256,
            cache_subdir=_SUBFOLDER,
            file_hash=expected_sha256,
            hash_algorithm="sha256",
        )
    except ValueError as error:
        raise ValueError(
            f"download: the file at {uri} is damaged or was changed: its sha256 must be "
            f"{expected_sha256}. Try again, and report the error if it remains"
        ) from error
    except Exception as error:  # Keras raises a plain Exception here
        raise ConnectionError(
            f"download: {uri} could not be downloaded and is not in the cache; check the network "
            f"and try again. Reason: {error}"
        ) from error
    if not expected_sha256:
        whole = Path(path).with_name(name)
        move(Path(path), whole)
        return whole
    return Path(path)


def _folders(home: Path) -> list[Path]:
    """Return the folders in which `keras.utils.get_file` may keep the files of a cache."""
    homes = [home]
    if not os.access(home, os.W_OK):  # `get_file` then uses another folder
        homes.append(Path("/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir(), ".keras"))
    return [one / _SUBFOLDER for one in homes]


def _ascii(uri: str) -> str:
    """Return an address whose path and query have only characters that HTTP allows.

    Other characters are percent-encoded, as in a browser. An encoded address stays unchanged.
    """
    try:
        parts = urlsplit(uri)
        parts.port  # noqa: B018, reading the port raises an error for an invalid port
        (parts.hostname or "").encode("idna")  # raises an error for an invalid host
        path, query = (quote(part, safe=_ALLOWED) for part in (parts.path, parts.query))
    except ValueError as error:
        raise ValueError(
            f"download: `uri` must be the address of a file. Received: uri={uri!r} ({error})"
        ) from error
    return parts._replace(path=path, query=query).geturl()
