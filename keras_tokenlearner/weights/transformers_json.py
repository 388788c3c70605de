"""Reads the settings of transformers: config.json and the JSON of a processor, or a module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from keras_tokenlearner._json import JSON
from keras_tokenlearner.models.config_fields import FieldValue
from keras_tokenlearner.models.preprocessing import Preprocessing
from keras_tokenlearner.weights.formats.read import CheckpointLike
from keras_tokenlearner.weights.json_values import Object, numbers_of, preprocessing_of
from keras_tokenlearner.weights.statement import Statement

_SOURCES = {
    "vit": "huggingface_vit",
    "deit": "huggingface_deit",
    "dinov2": "huggingface_dinov2",
    "dinov2_with_registers": "huggingface_dinov2",
    "dinov3_vit": "huggingface_dinov3",
    "clip": "huggingface_clip",
    "clip_vision_model": "huggingface_clip",
    "siglip": "huggingface_siglip",
    "siglip_vision_model": "huggingface_siglip",
    "siglip2": "huggingface_siglip2",
    "siglip2_vision_model": "huggingface_siglip2",
    "aimv2": "huggingface_aimv2",
    "aimv2_vision_model": "huggingface_aimv2",
    "vivit": "huggingface_vivit",
    "videomae": "huggingface_videomae",
    "vjepa2": "huggingface_vjepa2",
}
VIDEO_TYPES = ("vivit", "videomae", "vjepa2")
# Default numbers of attention heads. A config with a vision part omits the defaults of that part.
_HEADS = {
    "huggingface_clip": 12,
    "huggingface_siglip": 12,
    "huggingface_siglip2": 12,
    "huggingface_aimv2": 8,
}
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "silu": "silu",
    "swish": "silu",
}
# Starts of the names of the processors that resize both edges to a `size` of one integer.
_SQUARE = ("vit", "deit", "dinov3")
# Pillow's numbers of the interpolation methods.
_PILLOW = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def of_transformers(owner: str, said: Object, pixels: Object) -> Statement:
    """Return the settings in a config.json of transformers and in the JSON of a processor."""
    kind = str(said["model_type"])
    if kind not in _SOURCES:
        raise ValueError(
            f"{owner}: `model_type` in config.json must be one of {list(_SOURCES)}. "
            f"Received: model_type={kind!r}"
        )
    source = _SOURCES[kind]
    part = said.get("vision_config")
    vision: Object = {**said, **part} if isinstance(part, Mapping) else said
    size = _size(vision.get("crop_size" if kind == "vjepa2" else "image_size"))
    patch = _patch(vision)
    if patch and any(not isinstance(n, int) or n < 1 for n in patch):
        raise ValueError(
            f"{owner}: the sizes of a patch in the settings of {kind!r} must be positive integers. "
            f"Received: tubelet_size={vision.get('tubelet_size')!r} and "
            f"patch_size={vision.get('patch_size')!r}"
        )
    frames = vision.get("frames_per_clip" if kind == "vjepa2" else "num_frames")
    clip = (frames, *size) if size and patch and isinstance(frames, int) else None
    channels = cast("int", vision.get("in_chans", vision.get("num_channels", 3)))
    preprocessing = _preprocessing(owner, kind, pixels)
    activation = _activation(source, vision)
    shape = (*clip, channels) if clip else None
    if kind not in VIDEO_TYPES and preprocessing and preprocessing.size:
        # DINOv2 has positions for images of 518 pixels, and is evaluated at 224 pixels.
        shape = (*preprocessing.size, channels)
    return Statement(
        source=source,
        fields=_fields(source, vision, activation),
        unknown_activation=None if activation in _ACTIVATIONS else activation,
        preprocessing=preprocessing,
        class_names=_class_names(said.get("id2label")),
        grid=tuple(n // p for n, p in zip(clip, patch, strict=True)) if clip and patch else None,
        input_size=size,
        input_shape=shape,
        missing=_missing(source, vision),
        is_config=True,
    )


def of_transformers_module(owner: str, module: CheckpointLike) -> Statement | None:
    """Return the settings of a module of transformers, or `None` for other checkpoints."""
    config: Any = getattr(module, "config", None)
    if getattr(config, "model_type", None) not in _SOURCES:
        return None
    said = {**config.to_dict(), "architectures": [type(module).__name__]}
    return of_transformers(owner, said, {})


def _activation(source: str, vision: Object) -> str | None:
    """Return the activation in a config of transformers, or `None` if it is not stated."""
    activation = vision.get("hidden_act")
    if vision.get("use_swiglu_ffn"):  # the gated MLP does not read `hidden_act`
        return None
    if activation is None:
        return "quick_gelu" if source == "huggingface_clip" else None
    return str(activation)


def _fields(source: str, vision: Object, activation: str | None) -> dict[str, FieldValue]:
    """Return a config of transformers as fields of `VisionTransformerConfig`."""
    fields: dict[str, FieldValue] = {}
    heads = vision.get("num_attention_heads", _HEADS.get(source))
    if isinstance(heads, int):
        fields["num_heads"] = heads
    epsilon = vision.get("layer_norm_eps", vision.get("rms_norm_eps"))
    if isinstance(epsilon, float):
        fields["layer_norm_epsilon"] = epsilon
    if activation in _ACTIVATIONS:
        fields["activation"] = _ACTIVATIONS[activation]
    theta = vision.get("rope_theta")
    if source == "huggingface_dinov3" and isinstance(theta, (int, float)):
        fields["rotary_theta"] = float(theta)
    return fields


def _classifies(said: Object) -> bool:
    names = said.get("architectures")
    return any("Classification" in str(name) for name in names) if isinstance(names, list) else True


def _missing(source: str, vision: Object) -> tuple[str, ...]:
    """Return descriptions of the parts of a config that this package does not support."""
    found = []
    activation = vision.get("pooler_act", "tanh")
    if activation != "tanh" and not _classifies(vision):
        found.append(f"a pooler with the activation {activation!r}")
    if source == "huggingface_aimv2" and vision.get("is_native"):
        found.append("positions that are computed for any size (is_native)")
    no_mean = source == "huggingface_videomae" and vision.get("use_mean_pooling") is False
    if no_mean and _classifies(vision):
        found.append("a head that reads the first patch")
    return tuple(found)


def _size(image: JSON) -> tuple[int, ...] | None:
    size = tuple(image) if isinstance(image, Sequence) else (image, image)
    return cast("tuple[int, ...]", size) if all(isinstance(n, int) for n in size) else None


def _patch(vision: Object) -> tuple[int, ...] | None:
    """Return the patch size of a video model, from one field (ViViT) or two fields (others)."""
    tubelet = vision.get("tubelet_size")
    if isinstance(tubelet, Sequence):
        return cast("tuple[int, ...]", tuple(tubelet))
    size = _size(vision.get("patch_size"))
    return (tubelet, *size) if isinstance(tubelet, int) and size else None


def _class_names(labels: JSON) -> tuple[str, ...] | None:
    if not isinstance(labels, Mapping):
        return None
    if all(str(value) == f"LABEL_{key}" for key, value in labels.items()):
        return None
    try:
        return tuple(str(labels[key]) for key in sorted(labels, key=int))
    except ValueError:
        return None


def _preprocessing(owner: str, kind: str, said: Object) -> Preprocessing | None:
    if "image_mean" not in said or "image_std" not in said:
        return None
    mean, std = _scaling(owner, said)
    size, crop = said.get("size"), said.get("crop_size")
    edge = _edge(size) if said.get("do_resize", True) else None
    wanted = _edge(crop) if said.get("do_center_crop", crop is not None) else edge
    name = str(said.get("image_processor_type") or said.get("feature_extractor_type") or kind)
    shortest = not name.lower().startswith(_SQUARE)
    if isinstance(size, Mapping):
        shortest = "shortest_edge" in size
    resample = said.get("resample")
    return preprocessing_of(
        owner,
        mean=mean,
        std=std,
        size=wanted,
        resize_mode="shortest" if shortest else "squash",
        interpolation=_PILLOW.get(resample, "bilinear")
        if isinstance(resample, int)
        else "bilinear",
        crop_fraction=wanted[0] / edge[0] if wanted and edge and wanted[0] <= edge[0] else 1.0,
    )


def _scaling(owner: str, said: Object) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Convert a processor's scaling to the mean and std for pixels in [0, 1].

    transformers computes `(pixel * factor - offset - mean) / std`. The offset is 0 or 1.
    Only ViViT's image processor has an offset by default. Its video processor always has one.
    """
    of_videos = said.get("video_processor_type") == "VivitVideoProcessor"
    is_vivit = of_videos or said.get("image_processor_type") == "VivitImageProcessor"
    factor = said.get("rescale_factor", 1 / 127.5 if is_vivit else 1 / 255)
    offset = float(of_videos or bool(said.get("offset", is_vivit)))
    if said.get("do_rescale") is False:
        factor, offset = 1.0, 0.0
    if not isinstance(factor, (int, float)) or factor <= 0:
        raise ValueError(
            f"{owner}: `rescale_factor` of a processor must be positive; correct its JSON file. "
            f"Received: rescale_factor={factor!r}"
        )
    scale = 255.0 * factor
    if abs(scale - 1) < 1e-6:  # 1 / 255, rounded in the file
        scale = 1.0
    if said.get("do_normalize") is False:
        return (offset / scale,), (1.0 / scale,)
    try:
        means, stds = numbers_of(said["image_mean"]), numbers_of(said["image_std"])
        return tuple((m + offset) / scale for m in means), tuple(s / scale for s in stds)
    except TypeError as error:
        raise ValueError(
            f"{owner}: the settings of an image or video processor are damaged; download or save "
            f"its JSON file again. Reason: {error}"
        ) from error


def _edge(size: JSON) -> tuple[int, int] | None:
    if isinstance(size, int):
        return (size, size)
    if isinstance(size, Mapping):
        edge, height, width = (size.get(key) for key in ("shortest_edge", "height", "width"))
        if isinstance(edge, int):
            return (edge, edge)
        if isinstance(height, int) and isinstance(width, int):
            return (height, width)
    return None
