"""Files by their address: included files and downloads."""

from importlib import resources
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import keras


def fetch(uri, expected_sha256, cache_dir=None):
    """Return the local path of a file, downloaded if it is not in Keras's cache yet.

    An interrupted or damaged download is never used: the next call starts again. A cached file with
    the correct hash is used without the network.

    Args:
        uri: `"package:NAME"` for an included file, or an address for `keras.utils.get_file`.
        expected_sha256: Expected hash of the file, as 64 hexadecimal digits.
        cache_dir: Folder in place of Keras's own, `~/.keras` or `$KERAS_HOME`.

    Returns:
        A `pathlib.Path`.

    Raises:
        ValueError: If the downloaded file has another hash.
        ConnectionError: If the download fails or is incomplete.
    """
    scheme, _, name = uri.partition(":")
    if scheme == "package":
        return Path(str(resources.files("keras_tokenlearner.weights") / "files" / name))
    # The hash in the name keeps files apart that are published under one.
    name = f"{expected_sha256[:8]}-{PurePosixPath(urlsplit(uri).path).name}"
    try:
        path = keras.utils.get_file(
            name,
            origin=uri,
            cache_dir=cache_dir,
            cache_subdir="models/keras_tokenlearner",
            file_hash=expected_sha256,
            hash_algorithm="sha256",
        )
    except ValueError as error:
        raise ValueError(
            f"{uri} is not the file that was expected, of sha256 {expected_sha256}; it is damaged "
            "or was changed there. Try again, and report it if it stays so"
        ) from error
    except Exception as error:  # Keras raises no specific class
        raise ConnectionError(
            f"{uri} could not be downloaded and is not in the cache; check the network and try "
            f"again: {error}"
        ) from error
    return Path(path)
