import math

import keras

from keras_tokenlearner.layers import activations
from keras_tokenlearner.models.config import HEAD_READS

_PLAIN = ("embedding", "positions", "class_token", "register_tokens", "pre_norm", "norm", "head")


class Layout:
    """Parts of one of our vision transformers that hold weights.

    Args:
        owner: String, who asks, for error messages.
        model: A `keras.Model` that `vision_transformer` built.

    Attributes:
        variables: The weights of the model, by path.
        num_blocks: Integer.
        heads: Integer, of every block.
        hidden_dim: Integer, channels of a token.
        num_prefix_tokens: Integer, class token and registers.
        grid: `(H, W)` or `(T, H, W)` of the positions.
        head_reads: Input of the head in addition to the class token, as in the config.
        added: The layers that a plain ViT lacks: reducers and fusers.
    """

    def __init__(self, owner, model):
        names = {layer.name for layer in getattr(model, "layers", ())}
        missing = {"embedding", "positions", "block_0", "norm"} - names
        if missing:
            raise ValueError(
                f"{owner}: the model must be one that create_model or vision_transformer built; it "
                f"has no layers {sorted(missing)}. Received: {model!r}"
            )
        self.variables = {weight.path: weight for weight in model.weights}
        self.model = model
        self.num_blocks = sum(name.startswith("block_") for name in names)
        self.block = model.get_layer("block_0")
        self.heads = self.block.num_heads
        *self.grid, self.hidden_dim = model.get_layer("positions").table.shape
        self.grid = tuple(self.grid)
        self.num_prefix_tokens = sum(
            model.get_layer(name).num_tokens
            for name in ("class_token", "register_tokens")
            if name in names
        )
        self.head_reads = next((name for name in HEAD_READS if name in names), None)
        self.added = [
            layer
            for layer in model.layers
            if layer.weights
            and layer.name not in _PLAIN
            and not layer.name.removeprefix("block_").isdigit()
        ]

    def numbered(self, kind):
        """Return the names of the added layers of a kind, in the order of the depth."""
        names = [layer.name for layer in self.added if layer.name.startswith(kind)]
        return in_order(kind, names)

    def arrays(self):
        """Return the weights of the model as numpy arrays, by path."""
        return {path: keras.ops.convert_to_numpy(v) for path, v in self.variables.items()}

    def settings(self):
        """Return the fields of the config that no weight shows and that sources differ in."""
        settings = {
            "activation": activations.serialize(self.block.activation),
            "layer_norm_epsilon": self.block.layer_norm_epsilon,
        }
        if "head" in {layer.name for layer in self.model.layers}:
            settings["head_reads"] = self.head_reads
        for layer in self.added:
            if layer.name.startswith("token_learner") and layer.attention == "conv":
                settings["token_pooling"] = layer.pooling
        return settings

    def disagreements(self, wanted):
        """Return the fields that differ from those wanted, as text."""
        have = self.settings()
        return [
            f"{name} is {have[name]!r} and must be {value!r}"
            for name, value in wanted.items()
            if name in have and not _same(have[name], value)
        ]


def in_order(kind, names):
    """Return names such as `token_learner_3`, or the kind alone, by their numbers."""
    return sorted(names, key=lambda name: int("0" + name.removeprefix(kind).strip("_")))


def _same(one, other):
    if isinstance(one, float):
        return math.isclose(one, other, rel_tol=1e-3)
    return one == other
