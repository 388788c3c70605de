"""Models of this package as checkpoints, for another grid, head or number of frames."""

from __future__ import annotations

from keras_tokenlearner.models.names import in_order
from keras_tokenlearner.weights.sources.source import Arrays, Entries, Named, Source

_NUMBERED = ("token_learner", "token_fuser")


def convert(entries: Entries) -> Arrays:
    """Return the entries by their own names, TokenLearners and TokenFusers numbered from 0."""
    names = {name.partition("/")[0] for name in entries}
    numbered = {
        kind: in_order(kind, [name for name in names if name.startswith(kind)])
        for kind in _NUMBERED
    }
    arrays: Arrays = {}
    for name in list(entries):
        layer, _, rest = name.partition("/")
        for kind, layers in numbered.items():
            if layer in layers:
                layer = f"{kind}_{layers.index(layer)}"
        if rest and not rest.startswith("seed_generator"):
            arrays[f"{layer}/{rest}"] = Named(entries.take(name), entries.full_name(name))
    return arrays


OWN = Source(
    convert, anchors=("positions/table",), marks=("self_attention/query",), resize="bilinear"
)
