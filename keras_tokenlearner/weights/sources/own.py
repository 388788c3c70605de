"""Models of this package as checkpoints, for another grid, head or number of frames."""

from __future__ import annotations

from keras_tokenlearner.models import names
from keras_tokenlearner.weights.sources.source import Arrays, Entries, Named, Source

_NUMBERED = (names.TOKEN_LEARNER, names.TOKEN_FUSER)


def convert(entries: Entries) -> Arrays:
    """Return the entries under their own names, but number TokenLearners and TokenFusers from 0."""
    layers = {name.partition("/")[0] for name in entries}
    numbered = {
        kind: names.in_order(kind, [name for name in layers if name.startswith(kind)])
        for kind in _NUMBERED
    }
    arrays: Arrays = {}
    for name in list(entries):
        layer, _, rest = name.partition("/")
        for kind, found in numbered.items():
            if layer in found:
                layer = names.numbered(kind, found.index(layer))
        if rest and not rest.startswith("seed_generator"):
            array = entries.take(name, scalar=name.endswith(names.PATCH_BIAS))
            arrays[f"{layer}/{rest}"] = Named(array, entries.full_name(name))
    return arrays


OWN = Source(
    convert,
    # Models with rotary or fixed positions may have no table.
    anchors=(names.POSITION_TABLE, f"{names.block_name(0)}/self_attention/query/kernel"),
    marks=("self_attention/query",),
    resize="bilinear",
)
