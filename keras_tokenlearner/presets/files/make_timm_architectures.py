"""Writes `timm_architectures.csv`: settings of timm's ViTs that no checkpoint states.

`python make_timm_architectures.py` instantiates every architecture of timm's ViT modules, without
memory for weights. It writes a row for each architecture.
"""

import csv
import sys
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models._registry import get_arch_pretrained_cfgs

MODULES = (
    "beit",
    "deepseek_vit",
    "deit",
    "eva",
    "gemma4_vit",
    "hiera",
    "naflexvit",
    "qwen3_vit",
    "vision_transformer",
    "vision_transformer_hybrid",
    "vision_transformer_relpos",
    "vision_transformer_sam",
)
ACTIVATIONS = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu", "SiLU": "silu"}
NORMS = {"LayerNorm": "layer_norm", "RmsNorm": "rms_norm"}
CLIP = ("_clip_", "_mci_", "_pe_core_")  # parts of the names of image towers
PLAIN = {
    "cls": ("VisionTransformer", "VisionTransformerDistilled", "Eva", "Beit"),
    "block": ("Block", "EvaBlock"),
    "attention": ("Attention", "EvaAttention", "AttentionRope"),
    "embedding": ("PatchEmbed",),
}
ROPE = {
    "rope": lambda rope: type(rope).__name__.removeprefix("RotaryEmbedding"),
    "rope_theta": lambda rope: getattr(rope, "temperature", ""),
    "rope_reference": lambda rope: (getattr(rope, "ref_feat_shape", None) or [""])[0],
    "rope_offset": lambda rope: getattr(rope, "grid_offset", ""),
    "rope_indexing": lambda rope: getattr(rope, "grid_indexing", ""),
    "rope_in_pixels": lambda rope: getattr(rope, "in_pixels", ""),
    "rope_rotate_half": lambda rope: getattr(rope, "rotate_half", ""),
}


def row(name: str) -> dict[str, str | int | float]:
    """Return the settings of an architecture. The column `missing` lists its unsupported parts."""
    with torch.device("meta"):
        model: Any = timm.create_model(name)
    found: dict[str, str | int | float] = {"architecture": name, "missing": ""}
    kinds = {"cls": type(model).__name__, "block": "", "attention": "", "embedding": ""}
    if getattr(model, "blocks", None) is None:
        return found | {"missing": f"the architecture {kinds['cls']}"}
    block = model.blocks[0]
    attention: Any = getattr(block, "attn", None)
    embedding = getattr(model, "patch_embed", None)
    kinds |= {"block": type(block).__name__, "attention": type(attention).__name__}
    kinds["embedding"] = type(embedding).__name__
    lacking = [
        f"the {part} {kinds[part]}" for part, known in PLAIN.items() if kinds[part] not in known
    ]
    if getattr(attention, "relative_position_bias_table", None) is not None or getattr(
        model, "rel_pos_bias", None
    ):
        lacking.append("relative positions")
    if getattr(attention, "gate", None) is not None:
        lacking.append("gated attention")
    if any(_is_grouped(getattr(part, "attn", None)) for part in model.blocks):
        lacking.append("grouped attention")
    kept = {type(part).__name__ for part in model.blocks}
    if len(kept) > 1:
        lacking.append(f"blocks of several kinds {sorted(kept)}")
    found["missing"] = "; ".join(lacking)
    if lacking:
        return found
    norm, mlp = block.norm1, block.mlp
    activation = type(mlp.act).__name__
    if type(norm).__name__ not in NORMS or activation not in ACTIVATIONS:
        return found | {"missing": f"the norm {type(norm).__name__} or activation {activation}"}
    pool = getattr(model, "attn_pool", None)
    found |= {
        "num_heads": attention.num_heads,
        "activation": ACTIVATIONS[activation],
        "norm": NORMS[type(norm).__name__],
        "layer_norm_epsilon": norm.eps,
        "pooling": "map" if pool is not None else model.global_pool,
        "pool_heads": pool.num_heads if pool is not None else "",
        "pool_prefix": int(bool(getattr(model, "pool_include_prefix", False))),
        "gate_last": int(bool(getattr(mlp, "gate_last", False))),
        "head_dim": attention.head_dim if hasattr(attention, "head_dim") else "",
        "final_norm": int(type(model.norm).__name__ != "Identity"),
        "fc_norm_epsilon": getattr(getattr(model, "fc_norm", None), "eps", ""),
        "final_norm_epsilon": getattr(model.norm, "eps", ""),
        "pre_norm_epsilon": getattr(getattr(model, "norm_pre", None), "eps", ""),
        "pool_activation": ACTIVATIONS.get(type(pool.mlp.act).__name__, "")
        if pool is not None
        else "",
        "scale_norm": int(
            type(getattr(attention, "norm", None)).__name__ not in ("NoneType", "Identity")
        ),
        "projection": projection(name),
        "rope": "",
    }
    rope = getattr(model, "rope", None)
    if rope is not None:
        found |= {column: value(rope) for column, value in ROPE.items()}
        found["rope_rotate_half"] = int(bool(getattr(attention, "rotate_half", False)))
    return found


def projection(name: str) -> int | str:
    """Return the width of the embeddings that an image tower of CLIP computes, or ""."""
    if not any(part in name for part in CLIP):
        return ""
    found = get_arch_pretrained_cfgs(name).items()
    widths = {cfg.num_classes for tag, cfg in found if "_ft_" not in tag} - {0}
    return widths.pop() if len(widths) == 1 else ""


def _is_grouped(attention: Any) -> bool:
    """Return whether several heads of an attention share a key and a value."""
    heads = getattr(attention, "num_heads", 0)
    return getattr(attention, "num_kv_heads", heads) != heads


def main() -> None:
    """Write the table next to this script."""
    names = [name for module in MODULES for name in timm.list_models(module=module)]
    rows = []
    for name in sorted(set(names)):
        try:
            rows.append(row(name))
        except Exception as error:  # the architecture needs further arguments
            rows.append({"architecture": name, "missing": f"an error of timm ({error})"})
    columns = list(dict.fromkeys(column for one in rows for column in one))
    path = Path(__file__).with_name("timm_architectures.csv")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    sys.stdout.write(f"{len(rows)} rows of timm {timm.__version__} in {path}\n")


if __name__ == "__main__":
    main()
