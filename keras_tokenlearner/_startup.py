"""Check Keras and its backend before the rest of the package is imported."""

import importlib
import os
import sys
from importlib import metadata, util
from pathlib import Path

OLDEST_KERAS = (3, 15)
BACKENDS = ("tensorflow", "jax", "torch")


def is_command_line() -> bool:
    """Return whether this process runs `keras-tokenlearner`, whose help needs no Keras."""
    program = Path(sys.argv[0]).name
    if program == "-m":  # `python -m`, before Python has found the module
        return "keras_tokenlearner.cli" in sys.orig_argv
    return program in ("keras-tokenlearner", "keras-tokenlearner.exe")


_waits = is_command_line()


def is_wanted() -> bool:
    """Return whether this process needs the whole package, including Keras, from the start."""
    return not _waits


def start() -> None:
    """Import the rest of the package, which the command line has delayed."""
    global _waits
    if _waits:
        _waits = False
        importlib.reload(sys.modules["keras_tokenlearner"])


def check_keras() -> None:
    """Import Keras, or raise an error that states the fix.

    Raises:
        ImportError: If Keras is older than the package needs, or its backend does not start.
        SystemExit: On the command line, with the text of the `ImportError`.
    """
    try:
        _check_version()
        _check_backend()
    except ImportError as error:
        if is_command_line():
            raise SystemExit(f"keras-tokenlearner: {error}") from error
        raise


def _check_version() -> None:
    try:
        found = metadata.version("keras")
    except metadata.PackageNotFoundError:  # installed under another name, such as keras-nightly
        return
    if tuple(int(part) for part in found.split(".")[:2]) < OLDEST_KERAS:
        needed = ".".join(str(part) for part in OLDEST_KERAS)
        raise ImportError(
            f"keras_tokenlearner needs Keras {needed} or newer; "
            f"run: pip install --upgrade keras. Found: keras {found}"
        )


def _check_backend() -> None:
    try:
        import keras  # noqa: F401
    except (ImportError, ValueError) as error:
        here = [name for name in BACKENDS if util.find_spec(name)]
        fix = (
            f"set KERAS_BACKEND={here[0]}" + "".join(f" or {name}" for name in here[1:])
            if here
            else "no backend is installed; run pip install jax and set KERAS_BACKEND=jax, "
            "or do the same with tensorflow or torch"
        )
        raise ImportError(
            f"Keras does not start ({error}): {fix}. "
            f"Received: KERAS_BACKEND={os.environ.get('KERAS_BACKEND')!r}"
        ) from error
