import dataclasses
import math
from dataclasses import dataclass

from keras_tokenlearner._checks import (
    check_bool,
    check_choice,
    check_heads,
    check_int,
    check_ints,
    check_pairs,
    check_positive,
    check_rate,
)
from keras_tokenlearner.layers import activations

REDUCERS = ("token_learner", "spatial_pooling", "fixed_grid", "direct_tokens", "pooled_tokens")
FUSERS = ("token_fuser", "unpool", "reproject")
HEAD_READS = ("class_and_registers", "class_and_average")


@dataclass(frozen=True)
class VisionTransformerConfig:
    """Everything that decides the graph of a vision transformer, for images and for videos.

    Without a `reducer` it is ViT, or ViViT where the patches have three axes. With one it is the
    paper's model (a): from block `at` on, the blocks run on the reduced tokens. With a `fuser` it
    is model (b): every block from `at` on is between its own reducer and fuser.

    Attributes:
        hidden_dim: Channels of a token (C).
        num_layers: Transformer blocks.
        num_heads: Heads of each block; they must divide `hidden_dim`.
        patch_size: `(height, width)` in pixels, or `(frames, height, width)` for videos.
        mlp_dim: Hidden units of the blocks' MLPs; `None` for four times `hidden_dim`.
        gated_mlp: Whether the blocks' MLPs are gated: SwiGLU, with the activation `"silu"`.
        reducer: `None`, `"token_learner"`, or an alternative of the paper:
            `"spatial_pooling"`, `"fixed_grid"`, `"direct_tokens"`, `"pooled_tokens"`.
        num_tokens: Tokens per frame after the reducer (S), except for spatial pooling.
        pool_size: `(height, width)` of the window of spatial pooling, in tokens.
        at: Full-token blocks before the reducer, 0 to `num_layers`; `None` for half of them.
        token_attention: `"conv"` or `"mlp"`, the TokenLearner's form of attention.
        token_pooling: `"mean"` or `"sum"`, the TokenLearner's pooling.
        over: `"frame"` or `"space_time"`, the positions of a map of the TokenLearner.
        fuser: `None`, `"token_fuser"`, or an alternative of the paper: `"unpool"`,
            which needs the TokenLearner's maps, and `"reproject"`.
        fuser_beta: `"linear"` or `"mlp"`, the TokenFuser's beta: the paper's, or the authors'
            later one.
        fuser_norm: `"all"`, `"inputs"` or `"none"`, where the TokenFuser normalises: the released
            code's default, its `use_normalization=False`, or the paper's text.
        stem: `None`, or the `convs` of a `ConvStem` instead of the patch embedding, whose strides
            multiply to the patch size; a patch of a video is one frame deep then.
        positions: `"normal"` or `"sincos"`, where the table of positions starts.
        class_token: Whether a class token is learned and read by the head, instead of the average.
        register_tokens: How many register tokens are learned besides.
        head_reads: `None` for the class token or, without one, the average of the patches; or the
            tokens next to the class token: `"class_and_registers"`, as in distilled DeiT, whose
            distillation token is a register, or `"class_and_average"`, as in DINOv2's classifiers.
        pre_norm: Whether a LayerNorm precedes the first block, as in CLIP.
        block_attention: `"dot_product"` or `"vector"`.
        dropout_rate: Rate after the embedding, the attentions and the MLPs.
        attention_dropout_rate: Rate on attention weights.
        drop_path_rate: Rate of the last block; it grows linearly from 0 at the first.
        layer_scale: Where LayerScale factors start, or `None` for no LayerScale.
        activation: Of the MLPs and between the TokenLearner's convolutions.
        layer_norm_epsilon: Of every LayerNorm.

    Raises:
        ValueError: If a value is out of range or two of them contradict each other.

    Example:

    >>> config = VisionTransformerConfig(32, 4, 2, (4, 4), reducer="token_learner", num_tokens=4)
    >>> VisionTransformer(config, (16, 24, 3), classes=10).output_shape
    (None, 10)
    """

    hidden_dim: int
    num_layers: int
    num_heads: int
    patch_size: tuple
    mlp_dim: int | None = None
    gated_mlp: bool = False
    reducer: str | None = None
    num_tokens: int = 8
    pool_size: tuple = (2, 2)
    at: int | None = None
    token_attention: str = "conv"
    token_pooling: str = "mean"
    over: str = "frame"
    fuser: str | None = None
    fuser_beta: str = "linear"
    fuser_norm: str = "all"
    stem: tuple | None = None
    positions: str = "normal"
    class_token: bool = False
    register_tokens: int = 0
    head_reads: str | None = None
    pre_norm: bool = False
    block_attention: str = "dot_product"
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    layer_scale: float | None = None
    activation: str = "gelu_tanh"
    layer_norm_epsilon: float = 1e-6

    def __post_init__(self):
        owner = "VisionTransformerConfig"
        # Checked numbers are returned as Python numbers, which JSON can hold.
        for name in ("hidden_dim", "num_layers", "num_heads", "num_tokens"):
            self._set(name, check_int(owner, name, getattr(self, name)))
        self._set("register_tokens", check_int(owner, "register_tokens", self.register_tokens, 0))
        for name in ("gated_mlp", "class_token", "pre_norm"):
            self._set(name, check_bool(owner, name, getattr(self, name)))
        for name, lengths in (("patch_size", (2, 3)), ("pool_size", (2,))):
            self._set(name, check_ints(owner, name, getattr(self, name), lengths))
        for name in ("dropout_rate", "attention_dropout_rate", "drop_path_rate"):
            self._set(name, check_rate(owner, name, getattr(self, name)))
        check_choice(owner, "reducer", self.reducer, (None, *REDUCERS))
        check_choice(owner, "fuser", self.fuser, (None, *FUSERS))
        check_choice(owner, "token_attention", self.token_attention, ("conv", "mlp"))
        check_choice(owner, "token_pooling", self.token_pooling, ("mean", "sum"))
        check_choice(owner, "over", self.over, ("frame", "space_time"))
        check_choice(owner, "fuser_beta", self.fuser_beta, ("linear", "mlp"))
        check_choice(owner, "fuser_norm", self.fuser_norm, ("all", "inputs", "none"))
        check_choice(owner, "positions", self.positions, ("normal", "sincos"))
        check_choice(owner, "head_reads", self.head_reads, (None, *HEAD_READS))
        check_choice(owner, "block_attention", self.block_attention, ("dot_product", "vector"))
        if self.mlp_dim is not None:
            self._set("mlp_dim", check_int(owner, "mlp_dim", self.mlp_dim))
        check_heads(owner, self.num_heads, self.hidden_dim)
        epsilon = check_positive(owner, "layer_norm_epsilon", self.layer_norm_epsilon)
        self._set("layer_norm_epsilon", epsilon)
        activations.get(self.activation, owner)
        if self.layer_scale is not None:
            self._set("layer_scale", check_positive(owner, "layer_scale", self.layer_scale))
        self._check_unread(owner)
        self._check_place(owner)
        self._check_fuser(owner)
        self._check_stem(owner)
        self._check_head(owner)
        if self.over == "space_time" and len(self.patch_size) == 2:
            raise ValueError(
                f"{owner}: over='space_time' is for videos, whose `patch_size` has three sizes. "
                f"Received: patch_size={self.patch_size}"
            )

    def _set(self, name, value):
        """Set a field, which a frozen dataclass allows in this way alone."""
        object.__setattr__(self, name, value)

    def _check_unread(self, owner):
        """Refuse a value that decides nothing, since it is a mistake in another field."""
        learner = self.reducer == "token_learner"
        readers = {
            "num_tokens": self.reducer not in (None, "spatial_pooling"),
            "pool_size": self.reducer == "spatial_pooling",
            "token_attention": learner,
            "token_pooling": learner,
            "over": learner,
            "fuser_beta": self.fuser == "token_fuser",
            "fuser_norm": self.fuser == "token_fuser",
        }
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not readers.get(field.name, True) and value != field.default:
                raise ValueError(
                    f"{owner}: nothing reads `{field.name}` with reducer={self.reducer!r} and "
                    f"fuser={self.fuser!r}; leave it out. Received: {field.name}={value!r}"
                )

    def _check_stem(self, owner):
        if self.stem is None:
            return
        stem = check_pairs(owner, "stem", self.stem)
        self._set("stem", stem)
        pixels = math.prod(stride for _, stride in stem)
        if self.patch_size not in ((pixels, pixels), (1, pixels, pixels)):
            raise ValueError(
                f"{owner}: the strides of `stem` must multiply to `patch_size`, here "
                f"{(pixels, pixels)}, or {(1, pixels, pixels)} for videos. "
                f"Received: stem={stem}, patch_size={self.patch_size}"
            )

    def _check_head(self, owner):
        if self.head_reads is None:
            return
        needs_registers = self.head_reads == "class_and_registers"
        if not self.class_token or (needs_registers and not self.register_tokens):
            registers = " and register_tokens=1 or more" if needs_registers else ""
            raise ValueError(
                f"{owner}: head_reads={self.head_reads!r} needs class_token=True{registers}. "
                f"Received: class_token={self.class_token}, register_tokens={self.register_tokens}"
            )

    def _check_place(self, owner):
        if self.at is None:
            return
        self._set("at", check_int(owner, "at", self.at, minimum=0))
        if self.reducer is None:
            raise ValueError(
                f"{owner}: `at` is the place of a reducer, and there is none; pass "
                f"reducer='token_learner' or leave `at` out. Received: at={self.at}"
            )
        if self.at > self.num_layers:
            raise ValueError(
                f"{owner}: `at` must be a place in the depth, 0 to num_layers={self.num_layers}. "
                f"Received: at={self.at}"
            )

    def _check_fuser(self, owner):
        if self.fuser is None:
            return
        if self.reducer is None:
            raise ValueError(
                f"{owner}: a fuser needs a reducer; pass reducer='token_learner'. "
                f"Received: fuser={self.fuser!r}, reducer=None"
            )
        if self.fuser == "unpool" and (self.reducer, self.over) != ("token_learner", "frame"):
            raise ValueError(
                f"{owner}: fuser='unpool' reads the maps of a TokenLearner over frames. "
                f"Received: reducer={self.reducer!r}, over={self.over!r}"
            )
        if self.fuser == "token_fuser" and self.over == "space_time":
            raise ValueError(
                f"{owner}: the TokenFuser works frame by frame, and tokens learned over space-time "
                "belong to none; pass fuser='reproject'. Received: over='space_time'"
            )
        if self.place == self.num_layers:
            raise ValueError(
                f"{owner}: a fuser needs a block after `at`, 0 to {self.num_layers - 1}. "
                f"Received: at={self.at}"
            )

    @property
    def place(self):
        """Full-token blocks before the reducer, or all of them where there is none."""
        if self.reducer is None:
            return self.num_layers
        return self.num_layers // 2 if self.at is None else self.at

    @property
    def num_prefix_tokens(self):
        """Tokens before the patch tokens: class token and registers."""
        return int(self.class_token) + self.register_tokens
