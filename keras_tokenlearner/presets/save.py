"""Saves a model as a folder for `from_preset`, and uploads it to a hub."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Unpack

import keras

from keras_tokenlearner._checks import check_path
from keras_tokenlearner._errors import errors_of, own_errors
from keras_tokenlearner._extras import require
from keras_tokenlearner._files import write_text
from keras_tokenlearner._version import __version__
from keras_tokenlearner.models.config_fields import PresetArguments
from keras_tokenlearner.models.state import quantization_of
from keras_tokenlearner.models.vision_model import VisionModel
from keras_tokenlearner.presets.addresses import parse_address
from keras_tokenlearner.presets.from_preset import PresetName, from_preset
from keras_tokenlearner.presets.hub import WEIGHTS as NAMES
from keras_tokenlearner.presets.kaggle import status_of, upload_to_kaggle
from keras_tokenlearner.weights import save_weights
from keras_tokenlearner.weights.saving import integer_weights

CONFIG, WEIGHTS, CLASSES, CARD = "config.json", "model.weights.h5", "class_names.json", "README.md"
_HIDING = NAMES[: NAMES.index(WEIGHTS)]  # from_preset would read these files instead of WEIGHTS


@own_errors
def save_to_preset(model: VisionModel, folder: str | os.PathLike[str]) -> Path:
    """Save a model as a folder for `from_preset`: config, weights, class names and model card.

    Args:
        model: A `VisionTransformer` or `X2Plus1D`.
        folder: Path of the folder. A missing folder is created. Files with the same names are
            replaced, and old class names are deleted.

    Returns:
        The path of the folder.

    Raises:
        ValueError: If the model is of another class or quantized, or the folder has weights in
            another format.

    Example:

    >>> folder = save_to_preset(create_model("vit_pico8", classes=10), "my_preset")
    >>> sorted(file.name for file in folder.iterdir())[:3]
    ['README.md', 'config.json', 'model.weights.h5']
    """
    if not isinstance(model, VisionModel):
        raise ValueError(
            "save_to_preset: `model` must be a VisionTransformer or X2Plus1D; save other models "
            f"with model.save. Received: a model of class {type(model).__name__}"
        )
    if (mode := quantization_of(model)) or integer_weights(model):
        raise ValueError(
            "save_to_preset: `model` must have float weights; save a quantized model with "
            f"model.save. Received: model {model.name!r}, quantized to {mode or 'integers'}"
        )
    folder = check_path("save_to_preset", "folder", folder)
    _check_hiding("save_to_preset", folder)
    folder.mkdir(parents=True, exist_ok=True)
    said = {
        "module": type(model).__module__,
        "class_name": type(model).__name__,
        "registered_name": f"keras_tokenlearner>{type(model).__name__}",
        "keras_version": keras.__version__,
        "keras_tokenlearner_version": __version__,
        "config": model.get_config(),
    }
    save_weights(model, folder / WEIGHTS)
    write_text(folder / CONFIG, json.dumps(said, indent=2))
    if model.class_names:
        write_text(folder / CLASSES, json.dumps(list(model.class_names), indent=2))
    else:  # an earlier preset in this folder may have had names
        (folder / CLASSES).unlink(missing_ok=True)
    write_text(folder / CARD, _card(model))
    return folder


def upload_preset(uri: str, folder: str | os.PathLike[str]) -> None:
    """Upload a folder of `save_to_preset` to a hub, with the account that is logged in.

    Args:
        uri: `"hf://ORG/NAME"` or `"kaggle://OWNER/MODEL/FRAMEWORK/VARIATION"`.
        folder: Path of the folder.

    Raises:
        ImportError: If the hub's library is not installed (the extras `hf` and `kaggle`).
        ValueError: If the folder contains no preset, or the address is not on a hub. Also if
            `from_preset` would read other weights in the folder or in the Hugging Face repository.
        PermissionError: If the account may not write to this address.
        ConnectionError: If the upload fails.
    """
    folder = check_path("upload_preset", "folder", folder)
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"upload_preset: `folder` must contain {missing}; write the files with "
            f"model.save_to_preset(folder). Received: folder={str(folder)!r}"
        )
    _check_hiding("upload_preset", folder)
    address = parse_address("upload_preset", uri)
    if address.kind not in ("hf", "kaggle"):
        raise ValueError(
            "upload_preset: `uri` must be 'hf://ORG/NAME' or "
            f"'kaggle://OWNER/MODEL/FRAMEWORK/VARIATION'. Received: uri={uri!r}"
        )
    if address.kind == "kaggle":
        upload_to_kaggle("upload_preset", address.place, folder)
        return
    hub = require("huggingface_hub", "hf")
    try:
        api = hub.HfApi(library_name="keras_tokenlearner", library_version=__version__)
        api.create_repo(address.place, exist_ok=True)
        files = api.list_repo_files(address.place, revision=address.revision)
        if hiding := [name for name in _HIDING if name in files]:
            raise ValueError(
                "upload_preset: the repository must not have other weights; pass another address, "
                f"or delete {hiding} on the hub. Received: uri={uri!r}"
            )
        api.upload_folder(
            repo_id=address.place,
            folder_path=folder,
            revision=address.revision,
            delete_patterns=None if (folder / CLASSES).is_file() else [CLASSES],
            commit_message="Upload a preset of keras_tokenlearner",
        )
    except ValueError:  # an invalid address, or other weights
        raise
    except Exception as error:  # any error of the library or the network
        status = status_of(error)
        if status in (401, 403):
            raise PermissionError(
                f"upload_preset: your account cannot write to hf://{address.place}; log in with "
                "`hf auth login`, or set HF_TOKEN to a token with write access"
            ) from None
        found = f"HTTP status {status}" if status else type(error).__name__
        raise ConnectionError(
            f"upload_preset: the upload to hf://{address.place} failed ({found}); check the "
            "network and try again"
        ) from None


def _check_hiding(owner: str, folder: Path) -> None:
    """Raise `ValueError` if a folder has weights that `from_preset` would read instead."""
    hiding = [name for name in _HIDING if (folder / name).exists()]
    if hiding:
        raise ValueError(
            f"{owner}: `folder` must not have other weights; pass another folder, or delete "
            f"{hiding}. Received: folder={str(folder)!r}"
        )


def _card(model: VisionModel) -> str:
    """Return the README.md of a preset, starting with the metadata that the hub reads."""
    what = "videos" if len(model.input_shape) == 5 else "images"
    task = "video-classification" if what == "videos" else "image-classification"
    if not model.include_top:
        task = "image-feature-extraction"
    lines = [
        "---",
        _card_data(task),
        "---",
        "",
        f"# {model.name}",
        "",
        f"A `{type(model).__name__}` of keras_tokenlearner for {what} of "
        f"{tuple(model.input_shape[1:])}.",
        "",
        "```python",
        "import keras_tokenlearner as kt",
        "",
        "model = kt.from_preset(PATH_OR_ADDRESS_OF_THIS_FOLDER)",
        "```",
        "",
        f"* Classes: {model.classes or 'none, it returns features'}",
        f"* Parameters: {model.count_params():,}",
        f"* Learned tokens: {'yes' if model.token_learners else 'no'}",
        f"* Pixels: mean {model.preprocessing.mean}, std {model.preprocessing.std}",
        "",
    ]
    return "\n".join(lines)


def _card_data(task: str) -> str:
    tags = ["keras", "token-learner"]
    try:
        hub = require("huggingface_hub", "hf")
    except ImportError:  # write the same lines without the library
        listed = "\n".join(f"- {tag}" for tag in tags)
        return f"library_name: keras_tokenlearner\npipeline_tag: {task}\ntags:\n{listed}"
    data = hub.ModelCardData(library_name="keras_tokenlearner", pipeline_tag=task, tags=tags)
    return data.to_yaml()


def _class_from_preset(
    cls: type[VisionModel], preset: PresetName, **arguments: Unpack[PresetArguments]
) -> VisionModel:
    with errors_of(f"{cls.__name__}.from_preset"):
        model = from_preset(preset, **arguments)
    if not isinstance(model, cls):
        raise ValueError(
            f"{cls.__name__}.from_preset: `preset` must be a {cls.__name__}; call "
            f"{type(model).__name__}.from_preset instead. "
            f"Received: preset={str(preset)!r}, a {type(model).__name__}"
        )
    return model


# `models` may not import `presets`, so this file attaches the methods.
_METHODS = {"save_to_preset": save_to_preset, "from_preset": classmethod(_class_from_preset)}
for _name, _method in _METHODS.items():
    setattr(VisionModel, _name, _method)
