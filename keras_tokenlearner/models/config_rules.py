"""The rules between the fields of a `VisionTransformerConfig`.

`config.py` checks each field on its own first. `X2Plus1DConfig` has its own rules, and uses
`check_unread` too.
"""

import math
from collections.abc import Mapping
from typing import TypeAlias, cast

from keras_tokenlearner._checks import check_heads
from keras_tokenlearner.models.config_fields import (
    BESIDE_THE_CLASS_TOKEN,
    POOLS,
    Fields,
    VisionTransformerFields,
)

# For each field: whether the model uses the field, and the values of other fields that decide this.
Readers: TypeAlias = Mapping[str, tuple[bool, str]]
# Fields whose effect depends on reducer and fuser alone.
_OF_REDUCTION = ("num_tokens", "pool_size", "token_attention", "over", "fuser_beta", "fuser_norm")


def check_rules(
    owner: str, values: VisionTransformerFields, defaults: VisionTransformerFields
) -> None:
    """Raise `ValueError` if fields of a config contradict each other or have no effect."""
    check_unread(owner, cast(Fields, values), cast(Fields, defaults), _readers(values))
    _check_rotary(owner, values)
    _check_place(owner, values)
    _check_tokens(owner, values)
    _check_fuser(owner, values)
    _check_stem(owner, values)
    _check_head(owner, values)


def check_reduction(
    owner: str, values: VisionTransformerFields, defaults: VisionTransformerFields
) -> None:
    """Check the rules for place, reducer, fuser and stem. No checkpoint changes their result."""
    readers = {name: reader for name, reader in _readers(values).items() if name in _OF_REDUCTION}
    check_unread(owner, cast(Fields, values), cast(Fields, defaults), readers)
    _check_place(owner, values)
    if values["reducer"] is None:  # a checkpoint may set `token_attention` for a TokenLearner
        _check_tokens(owner, values)
    _check_fuser(owner, values)
    _check_stem(owner, values)


def check_unread(owner: str, values: Fields, defaults: Fields, readers: Readers) -> None:
    """Raise `ValueError` for a changed field without effect, because another field may be wrong.

    Args:
        owner: Name of the config, for the error message.
        values: The fields of a config.
        defaults: The default values of the fields. A default value is never refused.
        readers: Entries for the fields that only some configs use.
    """
    for name, value in values.items():
        is_read, given = readers.get(name, (True, ""))
        if not is_read and value != defaults[name]:
            raise ValueError(
                f"{owner}: leave out `{name}`, which has no effect with {given}. "
                f"Received: {name}={value!r}"
            )


def _readers(values: VisionTransformerFields) -> Readers:
    reducer, fuser = values["reducer"], values["fuser"]
    rotary, head_reads = values["rotary"], values["head_reads"]
    final_norm, block_attention = values["final_norm"], values["block_attention"]
    prefix = values["register_tokens"] + values["class_token"]
    pools = head_reads in POOLS or (head_reads is None and not values["class_token"])
    learner, dot_product = reducer == "token_learner", block_attention == "dot_product"
    by_reducer = f"reducer={reducer!r} and fuser={fuser!r}"
    by_rotary, by_head = f"rotary={rotary!r}", f"head_reads={head_reads!r}"
    by_attention = (dot_product, f"block_attention={block_attention!r}")
    token_attention = values["token_attention"]
    return {
        "num_tokens": (reducer not in (None, "spatial_pooling"), by_reducer),
        "pool_size": (reducer == "spatial_pooling", by_reducer),
        "token_attention": (learner, by_reducer),
        # Softmax maps, of the mlp form, sum to one. Pooling by them is already a weighted mean.
        "token_pooling": (
            learner and token_attention == "conv",
            f"{by_reducer} and token_attention={token_attention!r}",
        ),
        "over": (learner, by_reducer),
        "fuser_beta": (fuser == "token_fuser", by_reducer),
        "fuser_norm": (fuser == "token_fuser", by_reducer),
        "rotary": by_attention,
        "rotary_theta": (rotary is not None, by_rotary),
        "rotary_layout": (rotary is not None, by_rotary),
        "rotary_order": (rotary is not None, by_rotary),
        "rotary_offset": (rotary not in (None, "learned"), by_rotary),
        "rotary_grid": (rotary == "index", by_rotary),
        "rotary_tokens": (
            rotary is not None and learner,
            f"{by_rotary} and reducer={reducer!r}",
        ),
        "final_norm_epsilon": (final_norm is not None, f"final_norm={final_norm!r}"),
        "pool_prefix": (pools and prefix > 0, f"{by_head} and {prefix} prefix tokens"),
        "pooling_num_heads": (head_reads == "attention", by_head),
        "pooling_mlp_dim": (head_reads == "attention", by_head),
        "qk_norm": by_attention,
        "qkv_bias": by_attention,
        "attention_bias": by_attention,
        "attention_inner_norm": by_attention,
        "attention_dropout_rate": by_attention,
    }


def _check_rotary(owner: str, values: VisionTransformerFields) -> None:
    rotary, layout, over = values["rotary"], values["rotary_layout"], values["over"]
    patch_size = values["patch_size"]
    if rotary is None:
        return
    axes = len(patch_size)
    head_dim = values["hidden_dim"] // values["num_heads"]
    if head_dim % 2 or head_dim < 2 * axes:
        raise ValueError(
            f"{owner}: `rotary` needs an even number of channels per head, at least {2 * axes}; "
            f"change `hidden_dim` or `num_heads`. Received: rotary={rotary!r} with {head_dim} "
            "channels per head"
        )
    if rotary == "learned" and (axes == 3 or layout == "tiled"):
        raise ValueError(
            f"{owner}: rotary='learned' needs a `patch_size` of two sizes, and `rotary_layout` "
            "'half' or 'interleaved'. Received: "
            f"patch_size={patch_size}, rotary_layout={layout!r}"
        )
    frames = axes == 3 and over == "frame"
    if values["rotary_tokens"] == "centre_of_mass" and (frames or rotary == "learned"):
        raise ValueError(
            f"{owner}: leave out `rotary_tokens` with rotary='learned', and for videos with "
            "over='frame'. Received: rotary_tokens='centre_of_mass', "
            f"patch_size={patch_size}, over={over!r}, rotary={rotary!r}"
        )


def _check_place(owner: str, values: VisionTransformerFields) -> None:
    at, num_layers = values["at"], values["num_layers"]
    if at is None:
        return
    if values["reducer"] is None:
        raise ValueError(
            f"{owner}: `at` is the position of a reducer, but the config has no reducer; pass "
            f"reducer='token_learner' or leave `at` out. Received: at={at}"
        )
    if at > num_layers:
        raise ValueError(
            f"{owner}: `at` must be a number of blocks from 0 to num_layers={num_layers}. "
            f"Received: at={at}"
        )


def _check_tokens(owner: str, values: VisionTransformerFields) -> None:
    reducer, token_attention = values["reducer"], values["token_attention"]
    block_attention = values["block_attention"]
    learner = reducer == "token_learner" and token_attention == "mlp"
    if values["token_start"] == "grid" and not learner:
        raise ValueError(
            f"{owner}: token_start='grid' needs reducer='token_learner' and "
            f"token_attention='mlp'. Received: reducer={reducer!r}, "
            f"token_attention={token_attention!r}"
        )
    if values["proportional_attention"] and (reducer is None or block_attention != "dot_product"):
        raise ValueError(
            f"{owner}: `proportional_attention` needs a `reducer` and "
            "block_attention='dot_product'. Received: proportional_attention=True, "
            f"reducer={reducer!r}, block_attention={block_attention!r}"
        )
    if values["over"] == "space_time" and len(values["patch_size"]) == 2:
        raise ValueError(
            f"{owner}: over='space_time' needs the `patch_size` of a video model, (frames, height, "
            f"width). Received: patch_size={values['patch_size']}"
        )


def _check_fuser(owner: str, values: VisionTransformerFields) -> None:
    fuser, reducer, over = values["fuser"], values["reducer"], values["over"]
    if fuser is None:
        return
    if reducer is None:
        raise ValueError(
            f"{owner}: `fuser` needs a `reducer`; pass reducer='token_learner'. "
            f"Received: fuser={fuser!r}, reducer=None"
        )
    if fuser == "unpool" and (reducer, over) != ("token_learner", "frame"):
        raise ValueError(
            f"{owner}: fuser='unpool' needs reducer='token_learner' and over='frame'. "
            f"Received: reducer={reducer!r}, over={over!r}"
        )
    if fuser == "token_fuser" and over == "space_time":
        raise ValueError(
            f"{owner}: fuser='token_fuser' needs over='frame'; for over='space_time' pass "
            "fuser='reproject'. Received: over='space_time'"
        )
    if values["at"] == values["num_layers"]:
        raise ValueError(
            f"{owner}: `at` must be from 0 to {values['num_layers'] - 1} with a fuser, because a "
            f"fuser follows each block from `at` on. Received: at={values['at']}"
        )


def _check_stem(owner: str, values: VisionTransformerFields) -> None:
    stem, patch_size = values["stem"], values["patch_size"]
    if stem is None:
        return
    pixels = math.prod(stride for _, stride in stem)
    if patch_size not in ((pixels, pixels), (1, pixels, pixels)):
        raise ValueError(
            f"{owner}: `patch_size` must be the product of the strides of `stem`: "
            f"{(pixels, pixels)}, or {(1, pixels, pixels)} for videos. "
            f"Received: stem={stem}, patch_size={patch_size}"
        )


def _check_head(owner: str, values: VisionTransformerFields) -> None:
    reads, class_token = values["head_reads"], values["class_token"]
    register_tokens = values["register_tokens"]
    heads = values["pooling_num_heads"]
    if reads == "attention" and heads is not None:
        check_heads(owner, heads, values["hidden_dim"], "hidden_dim", "pooling_num_heads")
    if reads not in BESIDE_THE_CLASS_TOKEN:
        return
    if values["final_norm"] == "pooled":
        raise ValueError(
            f"{owner}: final_norm='pooled' needs a head that reads one vector; pass "
            f"final_norm='tokens'. Received: head_reads={reads!r}, which reads two vectors"
        )
    needs_registers = reads == "class_and_registers"
    if not class_token or (needs_registers and not register_tokens):
        registers = " and register_tokens=1 or more" if needs_registers else ""
        raise ValueError(
            f"{owner}: head_reads={reads!r} needs class_token=True{registers}. "
            f"Received: class_token={class_token}, register_tokens={register_tokens}"
        )
