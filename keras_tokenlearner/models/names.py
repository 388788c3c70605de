"""The names of the layers of our models. Nothing else in the package spells them."""

import re
from collections.abc import Iterable

PREPROCESSING = "preprocessing"
EMBEDDING = "embedding"
EMBEDDING_NORM = "embedding_norm"
POSITIONS = "positions"
ROTARY = "rotary"
TOKENS = "tokens"
CLASS_TOKEN = "class_token"
REGISTER_TOKENS = "register_tokens"
DROPOUT = "dropout"
PRE_NORM = "pre_norm"
NORM = "norm"
POOLING = "pooling"
PRE_LOGITS = "pre_logits"
HEAD = "head"
PREDICTIONS = "predictions"
_BLOCK = re.compile(r"block_(\d+)")


def block_name(index: int) -> str:
    """Return the name of a transformer block, counted from 0."""
    return f"block_{index}"


def block_index(name: str) -> int | None:
    """Return the number of the block that a layer's name or a weight's path starts with."""
    found = _BLOCK.fullmatch(name.partition("/")[0])
    return int(found[1]) if found else None


def numbered(kind: str, index: int | None) -> str:
    """Return the name of a reducer or fuser: its kind, with the block's number if it has one."""
    return kind if index is None else f"{kind}_{index}"


def in_order(kind: str, names: Iterable[str]) -> list[str]:
    """Return names such as `token_learner` and `token_learner_3`, sorted by their numbers."""
    return sorted(names, key=lambda name: int("0" + name.removeprefix(kind).strip("_")))
