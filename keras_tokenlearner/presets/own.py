"""Loads the model of a preset that `save_to_preset` wrote."""

from __future__ import annotations

from keras_tokenlearner._errors import errors_of
from keras_tokenlearner.models import VisionTransformer, X2Plus1D, names
from keras_tokenlearner.models.state import freeze_parts, frozen_parts
from keras_tokenlearner.models.vision_model import VisionModel
from keras_tokenlearner.presets.hub import PresetFiles
from keras_tokenlearner.presets.sizes import check_own_sizes
from keras_tokenlearner.weights import load_weights
from keras_tokenlearner.weights.json_values import read_json
from keras_tokenlearner.weights.saving import saved_shapes

# Our model classes by their registered names.
KINDS = {f"keras_tokenlearner>{kind.__name__}": kind for kind in (VisionTransformer, X2Plus1D)}


def own_model(owner: str, files: PresetFiles) -> VisionModel | None:
    """Load the model of a preset that `save_to_preset` wrote.

    Return `None` if config.json is missing or does not name a class of this package.
    """
    path = files.configs.get("config.json")
    said = read_json(owner, path) if path else {}
    registered = said.get("registered_name")
    if not isinstance(registered, str) or not registered.startswith("keras_tokenlearner>"):
        return None
    config = said.get("config")
    if registered not in KINDS or not isinstance(config, dict):
        raise ValueError(
            f"{owner}: config.json must name one of {list(KINDS)} and have a dictionary "
            "`config`; save the preset again with save_to_preset. Received: "
            f"registered_name={registered!r}, and a config of class {type(config).__name__}"
        )
    shapes = saved_shapes(files.weights, owner)
    try:
        check_own_sizes(owner, KINDS[registered], config, files.weights.name, shapes.values())
        model = KINDS[registered].from_config(config)
    except Exception as error:  # an edited config can raise any error
        raise ValueError(
            f"{owner}: config.json is damaged; download or save it again. Reason: {error}"
        ) from error
    with errors_of(owner):
        load_weights(model, files.weights)
    return model


def freeze_as(saved: VisionModel, model: VisionModel, is_new_head: bool) -> None:
    """Freeze the parts of `model` that are frozen in `saved`. A new head stays trainable."""
    frozen = frozen_parts(saved)
    if is_new_head:
        frozen = {path: x for path, x in frozen.items() if path.partition("/")[0] != names.HEAD}
    freeze_parts(model, saved.trainable or is_new_head, frozen)
