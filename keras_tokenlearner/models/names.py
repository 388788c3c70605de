"""The layer names of our models. Only the tables of `weights/sources` repeat these names."""

import re
from collections.abc import Iterable

from keras_tokenlearner.models import config_fields

INPUTS = "inputs"
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
TOKEN_LEARNER = "token_learner"
TOKEN_FUSER = "token_fuser"
JOIN = "join"  # puts the prefix tokens before learned tokens
REJOIN = "rejoin"  # puts the prefix tokens before fused tokens
NORM = "norm"
POOLING = "pooling"
PRE_LOGITS = "pre_logits"
HEAD = "head"
PREDICTIONS = "predictions"
FLAT_REGISTERS = "registers"
BLOCK = "block_"  # start of the names of blocks
BLOCKS = rf"{BLOCK}\d+"  # a regular expression
# The layers with weights whose names have the number of a block. Keras numbers other layers too.
_KINDS = ("block", ROTARY, f"{ROTARY}_tokens", *config_fields.REDUCERS, *config_fields.FUSERS)
_NUMBERED = re.compile(rf"(?:{'|'.join(_KINDS)})_(\d+)/")

# X(2+1)D, in addition to `unit_name`.
STEM = "stem"
STEM_CONV2D = "stem_conv2d"
STEM_CONV1D = "stem_conv1d"
FEATURES = "features"
PRE_HEAD = "pre_head"

# Paths of weights that identify the content of a weights file.
EMBEDDING_KERNEL = f"{EMBEDDING}/projection/kernel"
POSITION_TABLE = f"{POSITIONS}/table"
CLASS_TOKENS = f"{CLASS_TOKEN}/tokens"
REGISTERS = f"{REGISTER_TOKENS}/tokens"
LATENT = f"{POOLING}/latent"
NORM_GAMMA = f"{NORM}/gamma"
HEAD_KERNEL = f"{HEAD}/kernel"
HEAD_BIAS = f"{HEAD}/bias"

# Ends of the paths of weights with a vector for each position. Loading resizes these weights.
TABLE = "/table"
POSITION_BIAS = "/position_bias"
# End of the path of a position bias's tree of cells, which is saved but is no weight.
PARENTS = "/parents"
# End of the paths of the weights of proportional attention. No other weights are scalars.
PATCH_BIAS = "/patch_bias"

# Layers of checkpoints that our models lack or name differently.
FC_NORM = "fc_norm"
PROJECTION = "projection"


def parents_path(bias: str) -> str:
    """Return the path of the tree of cells of a position bias, from the path of the bias."""
    return f"{bias.removesuffix(POSITION_BIAS)}{PARENTS}"


def block_name(index: int) -> str:
    """Return the name of a transformer block, counted from 0."""
    return f"{BLOCK}{index}"


def block_index(name: str) -> int | None:
    """Return the block number in the first layer name of a path; `None` for other layers."""
    first = name.partition("/")[0]
    return int(first.rpartition("_")[2]) if re.fullmatch(BLOCKS, first) else None


def layer_number(path: str) -> int | None:
    """Return the number of the block in the first layer name of a weight's path, or `None`.

    Numbers that Keras gives to other layers, such as `dense_1`, are no numbers of blocks.
    """
    found = _NUMBERED.match(path)
    return int(found[1]) if found else None


def unit_name(stage: int, unit: int) -> str:
    """Return the name of a unit of an X(2+1)D. The names of the unit's layers start with it."""
    return f"stage_{stage}_unit_{unit}"


def numbered(kind: str, index: int | None) -> str:
    """Return the name of a reducer or fuser: its kind, then the number of its block, if any."""
    return kind if index is None else f"{kind}_{index}"


def in_order(kind: str, names: Iterable[str]) -> list[str]:
    """Return names such as `token_learner` and `token_learner_3`, sorted by their numbers."""
    return sorted(names, key=lambda name: int("0" + name.removeprefix(kind).strip("_")))


def are_of_a_model(names: Iterable[str]) -> bool:
    """Return whether layers with these names are part of a vision transformer or X(2+1)D."""
    found = set(names)
    return {EMBEDDING, TOKENS} <= found or {STEM_CONV2D, STEM_CONV1D} <= found
