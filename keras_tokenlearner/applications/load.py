import os
from pathlib import Path
from typing import Any, Unpack, cast

import keras

from keras_tokenlearner._checks import check_choice, check_path
from keras_tokenlearner._errors import errors_of
from keras_tokenlearner.applications.arguments import LoadArguments
from keras_tokenlearner.applications.catalog import CATALOG
from keras_tokenlearner.applications.create import create_model
from keras_tokenlearner.applications.keras_file import check_keras_file
from keras_tokenlearner.models.features import with_plain_output
from keras_tokenlearner.presets.checkpoints import table
from keras_tokenlearner.presets.from_preset import from_preset
from keras_tokenlearner.weights import store

RANDOM = "random"


def load_model(
    model: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    owner: str = "load_model",
    **arguments: Unpack[LoadArguments],
) -> keras.Model:
    """Load a trained model by its path, address or name in the catalogue.

    Every command uses this function, so a name means the same model in every command. Random
    weights need `weights="random"`, because outputs of an untrained model look like predictions.

    Args:
        model: Path of a `.keras` file, or a name in the catalogue. Or an address, a folder or a
            name of `list_checkpoints()` for `from_preset`. For a folder whose name is in the
            catalogue, pass `"./NAME"`.
        weights: For a named model: the `weights` of `create_model`, or `"random"` for random
            weights. Defaults to the first included weights.
        owner: Name of the function or command that the user called, for error messages.
        **arguments: For a named model: other arguments of `create_model`, such as `classes`. For a
            preset: other arguments of `from_preset`. A `.keras` file takes none.

    Returns:
        A `keras.Model`, not compiled. Its `class_names` come from the weights or the file.

    Raises:
        ValueError: If the file or name does not exist, or the file is damaged. Also if a named
            model has no included weights and `weights` is `None`. Also if an argument does not suit
            the model.
        ImportError: If the model or its weights are on a hub whose library is not installed.
        PermissionError: If files on a hub are gated, or private on Kaggle.
        ConnectionError: If files cannot be downloaded and are not in the cache.

    Example:

    >>> model = load_model("tokenlearner_nano4_8at2")
    >>> model.output_shape, model.class_names[0]
    ((None, 10), 'T-shirt')
    """
    path = check_path(owner, "model", model)
    if is_preset(model):
        return _from_preset(model, weights, owner, arguments)
    if path.suffix == ".keras":
        return _from_file(path, weights, owner, arguments)
    named = resolve_weights(model, weights, owner)
    with errors_of(owner):
        return create_model(str(model), weights=named, **arguments)


def resolve_weights(
    model: str | os.PathLike[str], weights: str | os.PathLike[str] | None, owner: str
) -> str | os.PathLike[str] | None:
    """Return the argument `weights` of `create_model` for a named model; `None` for random weights.

    Args:
        model: Name in the catalogue.
        weights: The argument `weights` of `load_model`.
        owner: Name of the function or command that the user called, for error messages.

    Raises:
        ValueError: If the name does not exist. Also if the model has no included weights and
            `weights` is `None`.

    Example:

    >>> resolve_weights("tokenlearner_nano4_8at2", None, "predict")
    'fashion_mnist'
    """
    name = str(model)
    if name not in CATALOG and (Path(model).exists() or len(Path(model).parts) > 1):
        raise ValueError(
            f"{owner}: `model` must be a `.keras` file, an address, a folder with a config.json, "
            "or a name from `keras-tokenlearner models` or `keras-tokenlearner models --weights`. "
            f"`predict` also takes the folder of an exported model. Received: model={name!r}"
        )
    check_choice(owner, "model", name, list(CATALOG), "`keras-tokenlearner models`")
    if weights == RANDOM:
        return None
    found = next(iter(store.names(name)), None) if weights is None else weights
    if found is None:
        raise ValueError(
            f"{owner}: {name!r} has no included weights. Pass a checkpoint as `weights` "
            "(`--weights`), such as FILE.weights.h5 or 'timm:FILE'. For a dry run, pass "
            f"{RANDOM!r}. Or pass a `.keras` file as `model`. Received: weights=None"
        )
    return found


def is_preset(model: str | os.PathLike[str]) -> bool:
    """Return whether `model` is an address, a published checkpoint, or a folder with a config.json.

    The string `"NAME"` of a model in the catalogue is no folder, but `"./NAME"` can be one.

    Example:

    >>> is_preset("hf://timm/vit_tiny_patch16_224.augreg_in21k"), is_preset("vit_b16")
    (True, False)
    """
    if isinstance(model, str) and model in CATALOG:
        return False
    if "://" in str(model) or str(model) in table():
        return True
    return (Path(os.path.expanduser(model)) / "config.json").is_file()


def _from_preset(
    model: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None,
    owner: str,
    arguments: LoadArguments,
) -> keras.Model:
    """Load the model of an address, a published checkpoint or a folder."""
    if weights is not None:
        raise ValueError(
            f"{owner}: the preset {str(model)!r} has its own weights; leave `weights` out. "
            f"Received: weights={weights!r}"
        )
    with errors_of(owner):
        return from_preset(model, **cast(dict[str, Any], arguments))


def check_classifier(
    model: keras.Model, name: str | os.PathLike[str], owner: str, videos: bool = False
) -> keras.Model:
    """Return a model that outputs a vector of class scores for each image, or raise `ValueError`.

    The output is a tensor, not a list or dictionary.

    Args:
        model: A `keras.Model`.
        name: Name or path of the model, for the error message.
        owner: Name of the function or command that the user called, for error messages.
        videos: Boolean, whether to allow a classifier of videos too.
    """
    ranks = (4, 5) if videos else (4,)
    shapes = model.input_shape, model.output_shape
    if not all(isinstance(shape, tuple) for shape in shapes) or (
        len(shapes[1]) != 2 or len(shapes[0]) not in ranks
    ):
        raise ValueError(
            f"{owner}: `model` must be a classifier of images{' or videos' * videos}. Received: "
            f"model={str(name)!r} with inputs {shapes[0]} and outputs {shapes[1]}"
        )
    return with_plain_output(model)


def _from_file(
    model: Path,
    weights: str | os.PathLike[str] | None,
    owner: str,
    arguments: LoadArguments,
) -> keras.Model:
    """Load the model of a `.keras` file."""
    if not model.is_file():
        raise ValueError(
            f"{owner}: `model` must be the path of an existing file. Received: model={str(model)!r}"
        )
    passed = {**({} if weights is None else {"weights": weights}), **arguments}
    if passed:
        raise ValueError(
            f"{owner}: a `.keras` file has its own weights and input shape; leave {list(passed)} "
            f"out. Received: model={str(model)!r} with {passed}"
        )
    try:
        check_keras_file(owner, model)
        return keras.saving.load_model(model, compile=False, safe_mode=True)
    except Exception as error:  # noqa: BLE001, damaged files raise anything
        raise ValueError(
            f"{owner}: {str(model)!r} is not a readable `.keras` file; save or download it again: "
            f"{type(error).__name__}: {error}"
        ) from error
