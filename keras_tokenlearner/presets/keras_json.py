"""The config.json of Keras and KerasHub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from keras_tokenlearner.presets.json_values import Object
from keras_tokenlearner.weights.statement import Statement


def of_keras(owner: str, said: Object, pixels: Object) -> Statement:
    name = str(said.get("registered_name") or said.get("class_name"))
    if "ViT" not in name:
        raise ValueError(
            f"{owner}: config.json is of Keras's {name!r}; supported is keras-hub's ViTBackbone. "
            f"Received: class_name={name!r}"
        )
    inner = said.get("config")
    inner = dict(inner) if isinstance(inner, Mapping) else {}
    fields: dict = {}
    if isinstance(inner.get("num_heads"), int):
        fields["num_heads"] = inner["num_heads"]
    if isinstance(inner.get("layer_norm_epsilon"), float):
        fields["layer_norm_epsilon"] = inner["layer_norm_epsilon"]
    image = inner.get("image_shape")
    has_size = isinstance(image, Sequence) and len(image) == 3
    size = tuple(cast("Sequence[int]", image)[:2]) if has_size else None
    return Statement(source="keras_hub", fields=fields, input_size=size, is_config=True)
