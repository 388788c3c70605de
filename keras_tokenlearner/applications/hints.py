"""Error messages for argument names and values from other libraries, with our spelling."""

import os
from collections.abc import Sequence

from keras_tokenlearner._checks import check_choice, check_is
from keras_tokenlearner.applications.catalog import CATALOG
from keras_tokenlearner.models import VisionTransformerConfig
from keras_tokenlearner.models.config_fields import Fields, FieldValue
from keras_tokenlearner.presets.checkpoints import checkpoints_for
from keras_tokenlearner.weights import store

# Arguments of timm, transformers and torchvision, and our names for them.
OURS = {
    "num_classes": "classes",
    "num_labels": "classes",
    "pretrained": "weights",
    "checkpoint_path": "weights",
    "img_size": "input_shape",
    "image_size": "input_shape",
    "drop_rate": "dropout_rate",
    "dropout": "dropout_rate",
    "drop_path": "drop_path_rate",
    "embed_dim": "hidden_dim",
    "hidden_size": "hidden_dim",
    "depth": "num_layers",
}


def check_arguments(
    model: str,
    weights: str | os.PathLike[str] | None,
    changes: Fields,
    fields: Sequence[str],
) -> None:
    """Raise `ValueError` with the correct spelling for a misspelt argument of `create_model`.

    Args:
        model: Name in the catalogue.
        weights: The argument `weights`.
        changes: The other arguments of `create_model`, `**changes`.
        fields: Names of the fields of the model's config.
    """
    owner = f"create_model({model!r})"
    for name, value in changes.items():
        if name in fields:
            continue
        if name in OURS:
            example = value if OURS[name] not in ("weights", "input_shape") else None
            raise ValueError(
                f"{owner}: {_spelt(model, OURS[name], example)} Received: {name}={value!r}"
            )
        check_choice(owner, "argument", name, list(fields))
    if weights is not None and not isinstance(weights, bool):
        wanted = (
            "a string or a pathlib.Path; for arrays, call "
            "keras_tokenlearner.weights.load(model, source, arrays)"
        )
        check_is(owner, "weights", weights, (str, os.PathLike), wanted)
    if isinstance(weights, bool) or (weights == "imagenet" and weights not in store.names(model)):
        raise ValueError(f"{owner}: {_spelt(model, 'weights')} Received: weights={weights!r}")


def published(model: str) -> list[str]:
    """Return up to four names of published checkpoints with a classifier for a named model."""
    config = CATALOG[model].config
    if not isinstance(config, VisionTransformerConfig):
        return []
    rows = checkpoints_for(config.patch_size, config.hidden_dim, config.num_layers)
    return [row.name for row in rows][:4]


def _spelt(model: str, name: str, value: FieldValue = None) -> str:
    """Return the fix for a misspelt argument, as code to copy."""
    if name == "weights":
        names = store.names(model) + published(model)
        known = " or ".join(f"weights={found!r}" for found in names)
        own = "a file with its source, as in weights='timm:FILE' or weights='augreg:FILE.npz'."
        return f"pass {known}, or {own}" if known else f"no weights are included; pass {own}"
    if name == "input_shape":
        return "pass input_shape=(height, width, 3)."
    return f"pass {name}={value!r}."
