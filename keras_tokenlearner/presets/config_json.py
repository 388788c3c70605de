"""Config files next to weights on a hub: of timm, transformers and Keras, told apart.

A config file overrides the usual settings of a source. timm's files have many families under one
set of names. Their missing settings are in `files/timm_architectures.csv`.
"""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TypeAlias, cast

from keras_tokenlearner.models.preprocessing import Preprocessing
from keras_tokenlearner.weights.statement import Statement

Json: TypeAlias = str | int | float | bool | None | Sequence["Json"] | Mapping[str, "Json"]
Object: TypeAlias = dict[str, Json]

_MOST_BYTES = 8 << 20
_RESIZES = {"center": "shortest", "squash": "squash", "border": "longest"}
_INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos")
_PILLOW = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "silu": "silu",
    "swish": "silu",
}
_TRANSFORMERS = {
    "vit": "huggingface_vit",
    "deit": "huggingface_deit",
    "dinov2": "huggingface_dinov2",
    "dinov2_with_registers": "huggingface_dinov2",
    "dinov3_vit": "huggingface_dinov3",
    "clip": "huggingface_clip",
    "clip_vision_model": "huggingface_clip",
    "siglip": "huggingface_siglip",
    "siglip_vision_model": "huggingface_siglip",
    "vivit": "huggingface_vivit",
    "videomae": "huggingface_videomae",
}


def read_statement(owner: str, configs: Mapping[str, Path]) -> Statement:
    """Return the statement of the JSON files next to weights.

    Args:
        owner: Name of the function that the user called, for error messages.
        configs: Paths by name: config.json, preprocessor_config.json and Keras's.

    Raises:
        ValueError: If config.json is damaged, or of an unsupported model.
    """
    if "config.json" not in configs:
        return Statement()
    said = read_json(owner, configs["config.json"])
    if "architecture" in said and ("pretrained_cfg" in said or "num_features" in said):
        return _of_timm(owner, said)
    if "model_type" in said:
        extra = configs.get("preprocessor_config.json")
        return _of_transformers(owner, said, read_json(owner, extra) if extra else {})
    if "class_name" in said or "registered_name" in said:
        extra = configs.get("image_converter.json")
        return _of_keras(owner, said, read_json(owner, extra) if extra else {})
    raise ValueError(
        f"{owner}: config.json is of none of timm, transformers and Keras; it has "
        f"{sorted(said)[:8]}. Pass the path of the weights alone, with their source before it"
    )


def read_json(owner: str, path: Path) -> Object:
    """Return the object of a JSON file of bounded size, or raise `ValueError`."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES} bytes")
        said = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(said, dict):
            raise ValueError("it is no object")
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"{owner}: {path.name} is damaged: {error}") from error
    return said


@functools.cache
def timm_architectures() -> dict[str, dict[str, str]]:
    """Return the rows of `files/timm_architectures.csv` by the architecture's name."""
    path = resources.files("keras_tokenlearner.presets") / "files" / "timm_architectures.csv"
    with cast("Path", path).open(encoding="utf-8", newline="") as file:
        return {row["architecture"]: row for row in csv.DictReader(file)}


def _of_timm(owner: str, said: Object) -> Statement:
    name = str(said["architecture"])
    row = timm_architectures().get(name)
    if row is None:
        raise ValueError(
            f"{owner}: config.json is of timm's {name!r}, which is no supported ViT. Received: "
            f"architecture={name!r}"
        )
    if row["missing"]:
        raise ValueError(
            f"{owner}: timm's {name!r} has {row['missing']}, which our models lack. Received: "
            f"architecture={name!r}"
        )
    arguments = said.get("model_args")
    arguments = dict(arguments) if isinstance(arguments, Mapping) else {}
    known = {"depth", "img_size", "num_classes", "global_pool", "dynamic_img_size", "in_chans"}
    unknown = sorted(set(arguments) - known - {"dynamic_img_pad", "drop_rate", "drop_path_rate"})
    if unknown:
        raise ValueError(
            f"{owner}: config.json changes timm's {name!r} in ways that we do not know: "
            f"{ {one: arguments[one] for one in unknown} }"
        )
    pretrained = said.get("pretrained_cfg")
    pretrained = dict(pretrained) if isinstance(pretrained, Mapping) else {}
    pooling = str(arguments.get("global_pool") or said.get("global_pool") or row["pooling"])
    fields: dict = {
        "num_heads": int(row["num_heads"]),
        "activation": row["activation"],
        "layer_norm_epsilon": float(row["layer_norm_epsilon"]),
    }
    features, missing = _timm_features(row, pooling)
    fields |= features
    labels = pretrained.get("label_names") or said.get("label_names")
    size = pretrained.get("input_size")
    has_size = isinstance(size, Sequence) and len(size) == 3
    return Statement(
        source="timm",
        fields=fields,
        preprocessing=_timm_preprocessing(owner, pretrained),
        class_names=tuple(map(str, labels)) if isinstance(labels, Sequence) else None,
        grid=None,
        input_size=tuple(cast("Sequence[int]", size)[1:]) if has_size else None,
        missing=missing,
        is_config=True,
    )


def _timm_features(row: Mapping[str, str], pooling: str) -> tuple[dict, tuple[str, ...]]:
    """Return fields of our config, and features that it lacks, of a row of the architectures."""
    fields: dict = {"norm": row["norm"]} if row["norm"] != "layer_norm" else {}
    missing = []
    has_rotary = bool(row["rope"])
    if pooling == "map":
        fields["head_reads"] = "attention"
        fields["pooling_num_heads"] = int(row["pool_heads"] or row["num_heads"])
        # timm's Eva, which alone has rotary positions, pools all tokens.
        fields["pool_prefix"] = has_rotary or row["pool_prefix"] == "1"
        if row["pool_activation"] and row["pool_activation"] != row["activation"]:
            missing.append("an attention pooling with an activation of its own")
    elif pooling in ("avg", "max"):
        fields["head_reads"] = {"avg": "average", "max": "max"}[pooling]
    elif pooling != "token":
        missing.append(f"the pooling {pooling!r}")
    if row["final_norm"] == "0" and not row["fc_norm_epsilon"]:
        fields["final_norm"] = None
    last = row["fc_norm_epsilon"] or row["final_norm_epsilon"]
    if last and float(last) != float(row["layer_norm_epsilon"]):
        fields["final_norm_epsilon"] = float(last)
    if row["pre_norm_epsilon"] and row["pre_norm_epsilon"] != row["layer_norm_epsilon"]:
        missing.append("a first norm with an epsilon of its own")
    return fields | _timm_rotary(row, missing), tuple(missing)


def _timm_rotary(row: Mapping[str, str], missing: list[str]) -> dict:
    """Return the fields of rotary positions."""
    kinds = {"Cat": "index", "DinoV3": "centred", "Mixed": "learned"}
    if not row["rope"]:
        return {}
    if row["rope"] not in kinds or row["rope_in_pixels"] == "True":
        missing.append("rotary positions in pixels or of an unknown kind")
        return {}
    fields: dict = {
        "rotary": kinds[row["rope"]],
        "rotary_theta": float(row["rope_theta"]),
        "rotary_layout": "half" if row["rope_rotate_half"] == "1" else "interleaved",
        "rotary_order": "width_first" if row["rope_indexing"] == "xy" else "height_first",
    }
    if row["rope"] != "Mixed":
        fields["rotary_offset"] = float(row["rope_offset"] or 0)
    if row["rope"] == "Cat" and row["rope_reference"]:
        fields["rotary_grid"] = (int(row["rope_reference"]),) * 2
    return fields


def _timm_preprocessing(owner: str, said: Mapping[str, Json]) -> Preprocessing | None:
    if "mean" not in said or "std" not in said:
        return None
    size = said.get("input_size")
    has_size = isinstance(size, Sequence) and len(size) == 3
    return _preprocessing(
        owner,
        mean=said["mean"],
        std=said["std"],
        size=cast("tuple[int, int]", tuple(cast("Sequence[int]", size)[1:])) if has_size else None,
        resize_mode=_RESIZES.get(str(said.get("crop_mode") or "center"), "shortest"),
        interpolation=str(said.get("interpolation") or "bicubic"),
        crop_fraction=said.get("crop_pct") or 0.875,
    )


def _of_transformers(owner: str, said: Object, pixels: Object) -> Statement:
    kind = str(said["model_type"])
    if kind not in _TRANSFORMERS:
        raise ValueError(
            f"{owner}: config.json is of transformers' {kind!r}; supported are "
            f"{list(_TRANSFORMERS)}. Received: model_type={kind!r}"
        )
    vision = said.get("vision_config")
    vision = {**said, **vision} if isinstance(vision, Mapping) else said
    fields: dict = {}
    if isinstance(vision.get("num_attention_heads"), int):
        fields["num_heads"] = vision["num_attention_heads"]
    elif kind == "clip" or kind.startswith("siglip") or kind == "clip_vision_model":
        # Configs of transformers leave out defaults, B/32 for CLIP and B/16.
        fields["num_heads"] = 12
    epsilon = vision.get("layer_norm_eps")
    if isinstance(epsilon, float):
        fields["layer_norm_epsilon"] = epsilon
    activation = vision.get("hidden_act")
    if kind.startswith("clip") and activation is None:
        activation = "quick_gelu"
    if activation is not None and not vision.get("use_swiglu_ffn"):
        if str(activation) not in _ACTIVATIONS:
            raise ValueError(
                f"{owner}: the activation of config.json must be one of {list(_ACTIVATIONS)}. "
                f"Received: hidden_act={activation!r}"
            )
        fields["activation"] = _ACTIVATIONS[str(activation)]
    if kind == "dinov3_vit":
        theta = vision.get("rope_theta", 100.0)
        fields |= {
            "positions": None,
            "rotary": "centred",
            "rotary_theta": float(theta) if isinstance(theta, (int, float)) else 100.0,
            "rotary_layout": "half",
        }
    if kind == "videomae":
        fields["positions"] = "sequence"
    labels = said.get("id2label")
    image = vision.get("image_size")
    size = tuple(image) if isinstance(image, Sequence) else (image, image) if image else None
    names = None
    if isinstance(labels, Mapping) and not _is_placeholder(labels):
        try:
            names = tuple(str(labels[key]) for key in sorted(labels, key=int))
        except ValueError:
            names = None
    return Statement(
        source=_TRANSFORMERS[kind],
        fields=fields,
        preprocessing=_transformers_preprocessing(owner, pixels),
        class_names=names,
        input_size=cast("tuple[int, ...]", size)
        if size and all(isinstance(n, int) for n in size)
        else None,
        is_config=True,
    )


def _is_placeholder(labels: Mapping[str, Json]) -> bool:
    return all(str(value) == f"LABEL_{key}" for key, value in labels.items())


def _transformers_preprocessing(owner: str, said: Object) -> Preprocessing | None:
    if "image_mean" not in said or "image_std" not in said:
        return None
    scale = said.get("rescale_factor", 1 / 255)
    if said.get("do_rescale", True) and isinstance(scale, float) and abs(scale * 255 - 1) > 1e-3:
        raise ValueError(
            f"{owner}: preprocessor_config.json must scale pixels by 1 / 255. "
            f"Received: rescale_factor={scale}"
        )
    mean, std = said["image_mean"], said["image_std"]
    if said.get("do_normalize") is False:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    size, crop = said.get("size"), said.get("crop_size")
    edge = _edge(size)
    wanted = _edge(crop) if said.get("do_center_crop", crop is not None) else edge
    shortest = isinstance(size, Mapping) and "shortest_edge" in size
    cropped = bool(said.get("do_center_crop", crop is not None)) and crop is not None
    resample = said.get("resample")
    return _preprocessing(
        owner,
        mean=mean,
        std=std,
        size=wanted,
        resize_mode="shortest" if shortest or cropped else "squash",
        interpolation=_PILLOW.get(resample, "bilinear")
        if isinstance(resample, int)
        else "bilinear",
        crop_fraction=wanted[0] / edge[0] if wanted and edge and wanted[0] <= edge[0] else 1.0,
    )


def _edge(size: Json) -> tuple[int, int] | None:
    if isinstance(size, int):
        return (size, size)
    if isinstance(size, Mapping):
        edge, height, width = (size.get(key) for key in ("shortest_edge", "height", "width"))
        if isinstance(edge, int):
            return (edge, edge)
        if isinstance(height, int) and isinstance(width, int):
            return (height, width)
    return None


def _of_keras(owner: str, said: Object, pixels: Object) -> Statement:
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


def _numbers(value: Json) -> tuple[float, ...]:
    if isinstance(value, Sequence):
        return tuple(cast("Sequence[float]", value))
    return (float(cast("float", value)),)


def _preprocessing(
    owner: str,
    mean: Json,
    std: Json,
    size: tuple[int, int] | None,
    resize_mode: str,
    interpolation: str,
    crop_fraction: Json,
) -> Preprocessing:
    if interpolation not in _INTERPOLATIONS:
        interpolation = "bicubic"  # timm's "random" and "hamming", which are of training
    try:
        return Preprocessing(
            mean=_numbers(mean),
            std=_numbers(std),
            size=size,
            resize_mode=resize_mode,
            interpolation=interpolation,
            crop_fraction=cast("float", crop_fraction),
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{owner}: the preprocessing of the config is invalid: {error}") from error
