"""Reads the config files of timm, transformers and Keras, which are next to weights on a hub.

A config file overrides the usual settings of a source.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from keras_tokenlearner.presets.timm_json import of_timm
from keras_tokenlearner.weights.json_values import Object, read_json
from keras_tokenlearner.weights.keras_json import of_keras
from keras_tokenlearner.weights.statement import Statement
from keras_tokenlearner.weights.transformers_json import VIDEO_TYPES, of_transformers


def read_statement(owner: str, configs: Mapping[str, Path]) -> Statement:
    """Return the settings in the JSON files next to weights.

    Args:
        owner: Name of the function that the user called, for error messages.
        configs: Paths of the JSON files by name, for example config.json.

    Raises:
        ValueError: If config.json is damaged, or is for an unsupported model.
    """
    if "config.json" not in configs:
        return Statement()
    said = read_json(owner, configs["config.json"])
    if "architecture" in said:
        return of_timm(owner, said)
    if "model_type" in said:
        return of_transformers(owner, said, _processor(owner, str(said["model_type"]), configs))
    if "class_name" in said or "registered_name" in said:
        names = ("image_converter.json", "task.json")
        extras = (read_json(owner, configs[name]) if name in configs else {} for name in names)
        return of_keras(owner, said, *extras)
    raise ValueError(
        f"{owner}: config.json must be from timm, transformers or Keras. For other weights, pass "
        f"their path with a source, as in 'timm:FILE'. Received: keys {sorted(said)[:8]}"
    )


def _processor(owner: str, model_type: str, configs: Mapping[str, Path]) -> Object:
    """Return the settings of a processor of transformers, or an empty dictionary without them.

    Since release 5, transformers can write all processors to processor_config.json, and reads this
    file first.
    """
    image, video = (
        ("image_processor", "preprocessor_config.json"),
        ("video_processor", "video_preprocessor_config.json"),
    )
    places = (video, image) if model_type in VIDEO_TYPES else (image, video)
    name = "processor_config.json"
    inside = read_json(owner, configs[name]) if name in configs else {}
    for key, file in places:
        if isinstance(found := inside.get(key), dict):
            return found
        if file in configs:
            return read_json(owner, configs[file])
    return {}
