"""Reads the config.json of timm.

All families of timm share one file format. `files/timm_architectures.csv` has the settings that a
config.json omits.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import cast

from keras_tokenlearner._json import JSON
from keras_tokenlearner.models.config_fields import FieldValue
from keras_tokenlearner.models.preprocessing import Preprocessing
from keras_tokenlearner.weights.json_values import Object, preprocessing_of
from keras_tokenlearner.weights.statement import Statement

_RESIZES = {"center": "shortest", "squash": "squash", "border": "longest"}
# RADIO models whose positions timm resizes with aligned corners.
_ALIGNED = ("base_patch16_radio_v3", "huge_patch16_radio_v3")


@functools.cache
def timm_architectures() -> dict[str, dict[str, str]]:
    """Return the rows of `files/timm_architectures.csv` by the name of the architecture."""
    path = resources.files("keras_tokenlearner.presets") / "files" / "timm_architectures.csv"
    with cast("Path", path).open(encoding="utf-8", newline="") as file:
        return {row["architecture"]: row for row in csv.DictReader(file)}


def of_timm(owner: str, said: Object) -> Statement:
    """Return the settings in a config.json of timm.

    The head of a CLIP tower counts as the projection if it is as wide and has no label names. A
    fine-tuned tower may have an equal head, and then gives logits. For probabilities of such a
    tower, pass `classifier_activation="softmax"` to `from_preset`.
    """
    name = str(said["architecture"])
    row = timm_architectures().get(name)
    if row is None:
        raise ValueError(
            f"{owner}: config.json must be for a ViT of timm that this package supports; choose "
            f"another checkpoint. Received: architecture={name!r}"
        )
    if row["missing"]:
        raise ValueError(
            f"{owner}: this package does not support {row['missing']}; choose another checkpoint. "
            f"Received: architecture={name!r}"
        )
    arguments = said.get("model_args")
    arguments = dict(arguments) if isinstance(arguments, Mapping) else {}
    known = {"depth", "img_size", "num_classes", "global_pool", "dynamic_img_size", "in_chans"}
    unknown = sorted(set(arguments) - known - {"dynamic_img_pad", "drop_rate", "drop_path_rate"})
    if unknown:
        raise ValueError(
            f"{owner}: this package does not support some `model_args` in config.json; choose "
            f"another checkpoint. Received for timm's {name!r}: "
            f"{ {one: arguments[one] for one in unknown} }"
        )
    pretrained = said.get("pretrained_cfg", said)  # files of old releases are one dictionary
    pretrained = dict(pretrained) if isinstance(pretrained, Mapping) else {}
    pooling = str(arguments.get("global_pool") or said.get("global_pool") or row["pooling"])
    fields: dict[str, FieldValue] = {
        "num_heads": int(row["num_heads"]),
        "activation": row["activation"],
        "layer_norm_epsilon": float(row["layer_norm_epsilon"]),
    }
    features, missing = _timm_features(row, pooling)
    fields |= features
    # Old releases name the list `labels`.
    labels = pretrained.get("label_names") or said.get("label_names") or said.get("labels")
    size = pretrained.get("input_size")
    has_size = isinstance(size, Sequence) and len(size) == 3
    return Statement(
        source="timm",
        fields=fields,
        preprocessing=_timm_preprocessing(owner, pretrained),
        class_names=tuple(map(str, labels)) if isinstance(labels, Sequence) else None,
        grid=None,
        input_size=tuple(cast("Sequence[int]", size)[1:]) if has_size else None,
        resize=_timm_resize(name),
        projection=int(row["projection"]) if row["projection"] and not labels else None,
        missing=missing,
        is_config=True,
    )


def _timm_resize(name: str) -> str | None:
    """Return the method by which timm resizes the positions of an architecture.

    The result is `None` for the method of most architectures.
    """
    if any(part in name for part in _ALIGNED):
        return "bilinear"
    return "bilinear_half_pixel" if "flexi" in name or "radio" in name else None


def _timm_features(
    row: Mapping[str, str], pooling: str
) -> tuple[dict[str, FieldValue], tuple[str, ...]]:
    """Return the config fields of an architecture, and descriptions of unsupported features."""
    fields: dict[str, FieldValue] = {"norm": row["norm"]} if row["norm"] != "layer_norm" else {}
    missing = []
    has_rotary = bool(row["rope"])
    if pooling == "map":
        fields["head_reads"] = "attention"
        fields["pooling_num_heads"] = int(row["pool_heads"] or row["num_heads"])
        # Only timm's class `Eva` has rotary positions. Its attention pooling reads all tokens.
        fields["pool_prefix"] = has_rotary or row["pool_prefix"] == "1"
        if row["pool_activation"] and row["pool_activation"] != row["activation"]:
            missing.append("an attention pooling with an activation different from the MLPs")
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
        missing.append("a first norm with an epsilon different from other norms")
    return fields | _timm_rotary(row, missing), tuple(missing)


def _timm_rotary(row: Mapping[str, str], missing: list[str]) -> dict[str, FieldValue]:
    """Return the config fields of rotary positions, and add unsupported kinds to `missing`."""
    kinds = {"Cat": "index", "DinoV3": "centred", "Mixed": "learned"}
    if not row["rope"]:
        return {}
    if row["rope"] not in kinds or row["rope_in_pixels"] == "True":
        missing.append("rotary positions in pixels or of an unknown kind")
        return {}
    fields: dict[str, FieldValue] = {
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


def _timm_preprocessing(owner: str, said: Mapping[str, JSON]) -> Preprocessing | None:
    if "mean" not in said or "std" not in said:
        return None
    size = said.get("input_size")
    has_size = isinstance(size, Sequence) and len(size) == 3
    return preprocessing_of(
        owner,
        mean=said["mean"],
        std=said["std"],
        size=cast("tuple[int, int]", tuple(cast("Sequence[int]", size)[1:])) if has_size else None,
        resize_mode=_RESIZES.get(str(said.get("crop_mode") or "center"), "shortest"),
        interpolation=str(said.get("interpolation") or "bicubic"),
        crop_fraction=said.get("crop_pct") or 0.875,
    )
