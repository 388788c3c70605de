"""Reads the config.json and image_converter.json of KerasHub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from keras_tokenlearner._json import JSON
from keras_tokenlearner.models.config_fields import FieldValue
from keras_tokenlearner.models.preprocessing import Preprocessing
from keras_tokenlearner.presets.json_values import Object, numbers_of, preprocessing_of
from keras_tokenlearner.weights.statement import Statement

_SOURCES = {
    "ViTBackbone": "keras_hub",
    "SigLIPBackbone": "keras_hub_siglip",
    "SigLIPVisionEncoder": "keras_hub_siglip",
    "DINOV3Backbone": "keras_hub_dinov3",
}
_ACTIVATIONS = {"gelu_approximate": "gelu_tanh", "gelu": "gelu", "silu": "silu", "swish": "silu"}


def of_keras(owner: str, said: Object, pixels: Object) -> Statement:
    """Return the settings in a config.json and an image_converter.json of KerasHub."""
    name = str(said.get("registered_name") or said.get("class_name"))
    source = _SOURCES.get(name.rpartition(">")[2])
    if source is None:
        raise ValueError(
            f"{owner}: the class in config.json must be one of keras-hub's {list(_SOURCES)}. "
            f"Received: class_name={name!r}"
        )
    inner = _config(said)
    if isinstance(inner.get("vision_encoder"), Mapping):
        inner = _config(cast("Object", inner["vision_encoder"]))
    fields: dict[str, FieldValue] = {}
    for ours, *theirs in (
        ("num_heads", "num_heads"),
        ("layer_norm_epsilon", "layer_norm_epsilon", "layer_norm_eps"),
        ("rotary_theta", "rope_theta"),
        ("register_tokens", "num_register_tokens"),
    ):
        found = [inner[name] for name in theirs if isinstance(inner.get(name), (int, float))]
        fields |= {ours: cast("float", found[0])} if found else {}
    activation = inner.get("intermediate_activation", inner.get("hidden_activation"))
    if activation is not None:
        if not isinstance(activation, str) or activation not in _ACTIVATIONS:
            raise ValueError(
                f"{owner}: the activation in config.json must be one of {list(_ACTIVATIONS)}. "
                f"Received: activation={activation!r}"
            )
        fields["activation"] = _ACTIVATIONS[activation]
    image = inner.get("image_shape")
    has_size = isinstance(image, Sequence) and len(image) == 3
    return Statement(
        source=source,
        fields=fields,
        preprocessing=_preprocessing(owner, _config(pixels)),
        input_size=tuple(cast("Sequence[int]", image)[:2]) if has_size else None,
        is_config=True,
    )


def _config(said: Object) -> Object:
    inner = said.get("config")
    return dict(inner) if isinstance(inner, Mapping) else {}


def _preprocessing(owner: str, said: Object) -> Preprocessing | None:
    """Return the `Preprocessing` of an image converter, which computes `pixel * scale + offset`."""
    if said.get("scale") is None and said.get("offset") is None:
        return None
    try:
        scales, offsets = _values(said.get("scale"), 1.0), _values(said.get("offset"), 0.0)
        count = max(len(scales), len(offsets))
        scales, offsets = (v * count if len(v) == 1 else v for v in (scales, offsets))
        stds = tuple(1 / (255 * scale) for scale in scales)
        means = tuple(-offset * std for offset, std in zip(offsets, stds, strict=True))
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(
            f"{owner}: image_converter.json is damaged; download or save it again: {error}"
        ) from error
    size = said.get("image_size")
    modes = [("crop_to_aspect_ratio", "shortest"), ("pad_to_aspect_ratio", "longest")]
    return preprocessing_of(
        owner,
        mean=means,
        std=stds,
        size=cast("tuple[int, int]", tuple(size)) if isinstance(size, Sequence) else None,
        resize_mode=next((mode for name, mode in modes if said.get(name)), "squash"),
        interpolation=str(said.get("interpolation") or "bilinear"),
        crop_fraction=1.0,
    )


def _values(value: JSON, default: float) -> tuple[float, ...]:
    return (default,) if value is None else numbers_of(value)
