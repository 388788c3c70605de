"""Weights from and to `.weights.h5` files, with what Keras leaves unchecked."""

import hashlib
from pathlib import Path

import numpy as np

KERNEL = "layers/dense/vars/0"  # of the classifier


def save_weights(model, path):
    """Save the weights of a model, and beside them their sha256 for `load_weights` to check.

    Args:
        model: A `keras.Model`.
        path: Path that ends in `.weights.h5`. The hash goes to the same path plus `.sha256`, in
            the format of the `sha256sum` command.

    Returns:
        The sha256, as 64 hexadecimal digits.

    Example:

    >>> model = create_model("vit_pico8", classes=10)
    >>> len(save_weights(model, "mine.weights.h5"))
    64
    """
    path = _checked_name("save_weights", path)
    model.save_weights(path)
    digest = sha256(path)
    _hash_file(path).write_text(f"{digest}  {path.name}\n")
    return digest


def load_weights(model, path, expected_sha256=None):
    """Load a `.weights.h5` file into a model of the same architecture, whole or not at all.

    Positions of another grid are resized. A model without top takes the file of one with top.
    Damaged bytes inside such a file load without an error in Keras: they are found if the sha256
    is known, from `expected_sha256` or a file beside it that `save_weights` or `sha256sum` made.

    Args:
        model: A built `keras.Model`.
        path: Path that ends in `.weights.h5`.
        expected_sha256: The sha256 that the file must have; by default the one in `PATH.sha256`,
            where there is such a file.

    Raises:
        ValueError: If the file is missing, damaged, or of another architecture or number of
            classes. The model is then as it was.

    Example:

    >>> digest = save_weights(create_model("vit_pico8", classes=10), "mine.weights.h5")
    >>> load_weights(create_model("vit_pico8", classes=10), "mine.weights.h5", digest)
    """
    path = _existing("load_weights", path)
    if expected_sha256 is None and _hash_file(path).is_file():
        expected_sha256 = _hash_file(path).read_text().split()[0]
    if expected_sha256 is not None and sha256(path) != expected_sha256:
        raise ValueError(
            f"load_weights: {path} is damaged or was changed; fetch or save it again. "
            f"Its sha256 is {sha256(path)}, expected was {expected_sha256}"
        )
    _check_layout(model, path)
    before = model.get_weights()
    try:
        model.load_weights(path)
        if not all(np.isfinite(array).all() for array in model.get_weights()):
            raise ValueError("it holds values that are not finite, so it is damaged")
    except (ValueError, OSError, KeyError) as error:
        model.set_weights(before)
        reason = str(error).split("value=[")[0]
        raise ValueError(
            f"load_weights: {path} does not fit the model {model.name!r}, which is unchanged: "
            f"{reason}"
        ) from error


def saved_classes(path):
    """Return how many classes a `.weights.h5` file was saved with, or `None` if without top.

    Raises:
        ValueError: If there is no such file, or it is damaged.

    Example:

    >>> create_model("vit_pico8", classes=10).save_weights("mine.weights.h5")
    >>> saved_classes("mine.weights.h5")
    10
    """
    path = _existing("saved_classes", path)
    kernel = _shapes("saved_classes", path).get(KERNEL)
    return kernel[-1] if kernel else None


def sha256(path):
    """Return the sha256 of a file, as 64 hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _hash_file(path):
    return path.with_name(path.name + ".sha256")


def _checked_name(owner, path):
    if not str(path).endswith(".weights.h5"):
        raise ValueError(
            f"{owner}: a path must end in '.weights.h5'; a whole model, '.keras', is for "
            f"keras.models.load_model. Received: path={str(path)!r}"
        )
    return Path(path)


def _existing(owner, path):
    path = _checked_name(owner, path)
    if not path.is_file():
        raise ValueError(f"{owner}: there is no such file. Received: path={str(path)!r}")
    return path


def _shapes(owner, path):
    """Return the shapes of the arrays in a file, a dictionary from their names."""
    import h5py  # a dependency of Keras, which reads these files with it

    shapes = {}

    def visit(name, item):
        # A compiled model's file also holds its optimizer, beside "layers", and dropout's seeds.
        of_layer = name.startswith("layers/") and "seed_generator" not in name
        if of_layer and isinstance(item, h5py.Dataset):
            shapes[name] = item.shape

    try:
        with h5py.File(path) as file:
            file.visititems(visit)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{owner}: {path} is damaged or no HDF5 file: {error}") from error
    return shapes


def _check_layout(model, path):
    """Compare what the file holds with what the model has, before the model is touched."""
    shapes = _shapes("load_weights", path)
    has_head = any(layer.name == "head" for layer in model.layers)
    kernel = shapes.get(KERNEL)
    if has_head and kernel:
        classes = model.get_layer("head").kernel.shape[-1]
        if kernel[-1] != classes:
            raise ValueError(
                f"load_weights: {path} was saved with {kernel[-1]} classes, the model has "
                f"{classes}; build it with classes={kernel[-1]} or include_top=False"
            )
    # The classifier's kernel and bias, and in X(2+1)D the kernel of the layer before it.
    spare = (2, 3) if kernel and not has_head else (0,)
    if len(shapes) - len(model.weights) not in spare:
        raise ValueError(
            f"load_weights: {path} holds {len(shapes)} arrays and the model {model.name!r} has "
            f"{len(model.weights)}: they are of different architectures"
        )
