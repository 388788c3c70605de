import copy
import dataclasses
from dataclasses import dataclass
from typing import cast

from keras_tokenlearner._checks import (
    check_bool,
    check_choice,
    check_heads,
    check_int,
    check_ints,
    check_number,
    check_pairs,
    check_positive,
    check_rate,
)
from keras_tokenlearner.layers import activations
from keras_tokenlearner.layers.layer_normalization import NORMS
from keras_tokenlearner.layers.multi_head_attention import QKV_BIASES
from keras_tokenlearner.layers.rotary import LAYOUTS, ORDERS
from keras_tokenlearner.models.config_fields import (
    FUSERS,
    HEAD_READS,
    POOLS,
    POSITIONS,
    REDUCERS,
    ROTARY,
    ROTARY_TOKENS,
    Fields,
    FieldValue,
    VisionTransformerFields,
)
from keras_tokenlearner.models.config_rules import check_reduction, check_rules

OWNER = "VisionTransformerConfig"
# Fields in which newer families differ from the ViT of 2021.
NEWER = (
    "embedding_norm",
    "rotary",
    "pool_prefix",
    "final_norm",
    "final_norm_epsilon",
    "pre_logits",
    "head_bias",
    "norm",
    "qk_norm",
    "qkv_bias",
    "attention_bias",
    "mlp_bias",
    "attention_inner_norm",
    "mlp_inner_norm",
)


@dataclass(frozen=True)
class VisionTransformerConfig:
    """The choices that decide the graph of a vision transformer, for images and for videos.

    A reducer, such as the TokenLearner, replaces the patch tokens by fewer tokens. A fuser writes
    these tokens back to all patches.

    Without a `reducer`, the model is a ViT, or a ViViT if the patches have three axes. With a
    reducer, the model is model (a) of the paper: blocks from `at` on run on the reduced tokens.
    With a reducer and a `fuser`, the model is model (b). Every block from `at` on then has its own
    reducer before it and its own fuser after it.

    Attributes:
        hidden_dim: Channels of a token (C).
        num_layers: Number of transformer blocks.
        num_heads: Number of attention heads of each block; must divide `hidden_dim`.
        patch_size: `(height, width)` in pixels, or `(frames, height, width)` for videos.
        mlp_dim: Hidden units of the blocks' MLPs; `None` for four times `hidden_dim`.
        gated_mlp: Whether the blocks' MLPs are gated: SwiGLU, with the activation `"silu"`.
        reducer: `None`, `"token_learner"`, or an alternative of the paper:
            `"spatial_pooling"`, `"fixed_grid"`, `"direct_tokens"`, `"pooled_tokens"`.
        num_tokens: Tokens of each image or frame after the reducer (S), or of the whole video with
            `over="space_time"`. Spatial pooling does not use this field.
        pool_size: `(height, width)` of the window of spatial pooling, in tokens.
        at: Number of blocks before the reducer, 0 to `num_layers`; `None` for half of the blocks.
        token_attention: `"conv"` or `"mlp"`, the TokenLearner's form of attention.
        token_pooling: `"mean"` or `"sum"`, the TokenLearner's pooling. `"sum"` needs
            `token_attention="conv"`.
        token_start: `"random"` or `"grid"`. With `"grid"`, each token starts as the average of one
            rectangular cell of the image, by a position bias. `"grid"` needs
            `token_attention="mlp"`.
        proportional_attention: Whether attention after the reducer weighs a token by the number of
            patches that the token replaces. Needs a class token or registers to have an effect.
        over: `"frame"` or `"space_time"`, the positions that one map of the TokenLearner covers.
        fuser: `None`, `"token_fuser"`, or an alternative of the paper: `"unpool"`, `"reproject"`.
            `"unpool"` needs the TokenLearner's maps.
        fuser_beta: `"linear"` or `"mlp"`, the TokenFuser's beta, of the paper or of the authors'
            later code.
        fuser_norm: Norms of the TokenFuser. `"all"` is for the released code, `"inputs"` for the
            released code with `use_normalization=False`, and `"none"` for the paper's text.
        stem: `None`, or the `convs` of a `ConvStem` instead of the patch embedding. The product of
            the strides must be the patch size. Patches of videos must then have one frame.
        embedding_norm: Whether a norm follows the patch embedding, before the positions (AIMv2).
        positions: `"normal"` or `"sincos"`, the initial values of the learned table of positions.
            `"sequence"` for fixed sines and cosines of the index in the sequence (VideoMAE). `None`
            for no positions (DINOv3, V-JEPA 2).
        rotary: `None`, or the rotation of queries and keys, as in `RotaryPositions`. `"index"` is
            for EVA-02, Perception Encoder and V-JEPA 2, `"centred"` for DINOv3. `"learned"` has
            learned frequencies for every head and block (RoPE-ViT).
        rotary_theta: Base of the frequencies.
        rotary_layout: `"interleaved"`, `"half"` (DINOv3) or `"tiled"` (V-JEPA 2).
        rotary_order: `"height_first"`, or `"width_first"` (Perception Encoder, RoPE-ViT).
        rotary_offset: Number added to each index (Perception Encoder).
        rotary_grid: Indices are scaled to the range of this grid, for example the training grid
            (EVA-02). `None` for no scaling.
        rotary_tokens: Rotation of learned tokens: `"none"`, or `"centre_of_mass"`, by the centre of
            mass of the token's map. `None` is `"centre_of_mass"`, except with `rotary="learned"`
            and for videos with `over="frame"`. In these cases, `None` is `"none"`.
        class_token: Whether the model has a class token, the default input of the head.
        register_tokens: Number of learned register tokens.
        head_reads: Input of the head. `None` is the class token. Without a class token, `None` is
            the average of the patches. `"class_and_registers"` is for distilled DeiT, whose
            distillation token is a register. `"class_and_average"` is for DINOv2's classifiers.
            `"average"`, `"max"` and `"attention"` (SigLIP, Perception Encoder) pool the patches.
        pool_prefix: Whether the average, maximum or attention pooling also includes the prefix
            tokens: class token and registers.
        pooling_num_heads: Heads of the attention pooling; `None` for `num_heads`.
        pooling_mlp_dim: Hidden units of the pooling's MLP; `None` for `mlp_dim`, 0 for no MLP.
        final_norm: Place of the last norm: `"tokens"`, before the pooling, or `"pooled"`, after the
            pooling (timm's `fc_norm`). `None` for no last norm.
        final_norm_epsilon: Epsilon of the last norm; `None` for `layer_norm_epsilon`. VideoMAE has
            1e-5 here, and 1e-12 in other norms.
        pre_logits: Units of a dense layer with tanh before the head, as in the first ViTs, or
            `None`.
        head_bias: Whether the head has a bias.
        pre_norm: Whether a norm precedes the first block, as in CLIP.
        block_attention: `"dot_product"` or `"vector"`, the attention in the blocks.
        dropout_rate: Rate after the embedding, the attentions and each dense layer of the MLPs, and
            in the TokenFusers.
        attention_dropout_rate: Rate on attention weights, of `block_attention="dot_product"`.
        drop_path_rate: Stochastic depth rate of the last block. The rates grow linearly from 0 at
            the first block.
        layer_scale: Initial value of the LayerScale factors, or `None` for no LayerScale.
        activation: Activation of the MLPs, of the stem and between the TokenLearner's convolutions.
            `"pooled_tokens"` always uses `"gelu_tanh"`.
        layer_norm_epsilon: Epsilon of every norm, except the last norm with `final_norm_epsilon`.
        norm: `"layer_norm"` or `"rms_norm"` (AIMv2), the norms of the plain ViT. The norms of
            stem, reducers and fusers are always LayerNorms.
        qk_norm: Whether each head's queries and keys are normalised.
        qkv_bias: `"all"`, `"query_value"` (EVA-02) or `"none"`, the projections with a bias.
        attention_bias: Whether the output projections of the attentions have a bias.
        mlp_bias: Whether the MLPs have biases.
        attention_inner_norm: Whether a norm precedes the attentions' output projections (BEiT-3).
        mlp_inner_norm: Whether a norm precedes the MLPs' last dense layer (EVA-02).

    Raises:
        ValueError: If a value is out of range, or two values contradict each other. Also if a
            value has no effect, such as `num_tokens` without a `reducer`.

    Example:

    >>> config = VisionTransformerConfig(32, 4, 2, (4, 4), reducer="token_learner", num_tokens=4)
    >>> VisionTransformer(config, (16, 24, 3), classes=10).output_shape
    (None, 10)
    """

    hidden_dim: int
    num_layers: int
    num_heads: int
    patch_size: tuple[int, ...]
    mlp_dim: int | None = None
    gated_mlp: bool = False
    reducer: str | None = None
    num_tokens: int = 8
    pool_size: tuple[int, ...] = (2, 2)
    at: int | None = None
    token_attention: str = "conv"
    token_pooling: str = "mean"
    token_start: str = "random"
    proportional_attention: bool = False
    over: str = "frame"
    fuser: str | None = None
    fuser_beta: str = "linear"
    fuser_norm: str = "all"
    stem: tuple[tuple[int, int], ...] | None = None
    embedding_norm: bool = False
    positions: str | None = "normal"
    rotary: str | None = None
    rotary_theta: float = 10000.0
    rotary_layout: str = "interleaved"
    rotary_order: str = "height_first"
    rotary_offset: float = 0.0
    rotary_grid: tuple[int, ...] | None = None
    rotary_tokens: str | None = None
    class_token: bool = False
    register_tokens: int = 0
    head_reads: str | None = None
    pool_prefix: bool = False
    pooling_num_heads: int | None = None
    pooling_mlp_dim: int | None = None
    final_norm: str | None = "tokens"
    final_norm_epsilon: float | None = None
    pre_logits: int | None = None
    head_bias: bool = True
    pre_norm: bool = False
    block_attention: str = "dot_product"
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    layer_scale: float | None = None
    activation: str = "gelu_tanh"
    layer_norm_epsilon: float = 1e-6
    norm: str = "layer_norm"
    qk_norm: bool = False
    qkv_bias: str = "all"
    attention_bias: bool = True
    mlp_bias: bool = True
    attention_inner_norm: bool = False
    mlp_inner_norm: bool = False

    def __post_init__(self) -> None:
        self._check_fields()
        check_rules(OWNER, *self._values_and_defaults())

    def _values_and_defaults(self) -> tuple[VisionTransformerFields, VisionTransformerFields]:
        defaults = {one.name: one.default for one in dataclasses.fields(self)}
        values = {name: getattr(self, name) for name in defaults}
        return cast(VisionTransformerFields, values), cast(VisionTransformerFields, defaults)

    def _check_fields(self) -> None:
        """Check each field on its own."""
        owner = OWNER
        # The checks return Python numbers, which JSON can hold.
        for name in ("hidden_dim", "num_layers", "num_heads", "num_tokens"):
            self._set(name, check_int(owner, name, getattr(self, name)))
        self._set("register_tokens", check_int(owner, "register_tokens", self.register_tokens, 0))
        for one in dataclasses.fields(self):
            if one.type is bool:
                self._set(one.name, check_bool(owner, one.name, getattr(self, one.name)))
        for name, lengths in (("patch_size", (2, 3)), ("pool_size", (2,))):
            self._set(name, check_ints(owner, name, getattr(self, name), lengths))
        for name in ("dropout_rate", "attention_dropout_rate", "drop_path_rate"):
            self._set(name, check_rate(owner, name, getattr(self, name)))
        check_choice(owner, "reducer", self.reducer, (None, *REDUCERS))
        check_choice(owner, "fuser", self.fuser, (None, *FUSERS))
        check_choice(owner, "token_attention", self.token_attention, ("conv", "mlp"))
        check_choice(owner, "token_pooling", self.token_pooling, ("mean", "sum"))
        check_choice(owner, "token_start", self.token_start, ("random", "grid"))
        check_choice(owner, "over", self.over, ("frame", "space_time"))
        check_choice(owner, "fuser_beta", self.fuser_beta, ("linear", "mlp"))
        check_choice(owner, "fuser_norm", self.fuser_norm, ("all", "inputs", "none"))
        check_choice(owner, "positions", self.positions, (None, *POSITIONS))
        check_choice(owner, "rotary", self.rotary, (None, *ROTARY))
        check_choice(owner, "rotary_layout", self.rotary_layout, LAYOUTS)
        check_choice(owner, "rotary_order", self.rotary_order, ORDERS)
        check_choice(owner, "rotary_tokens", self.rotary_tokens, (None, *ROTARY_TOKENS))
        check_choice(owner, "final_norm", self.final_norm, (None, "tokens", "pooled"))
        check_choice(owner, "norm", self.norm, NORMS)
        check_choice(owner, "qkv_bias", self.qkv_bias, QKV_BIASES)
        self._set("rotary_theta", check_positive(owner, "rotary_theta", self.rotary_theta))
        offset = check_number(owner, "rotary_offset", self.rotary_offset)
        self._set("rotary_offset", offset)
        if self.final_norm_epsilon is not None:
            epsilon = check_positive(owner, "final_norm_epsilon", self.final_norm_epsilon)
            self._set("final_norm_epsilon", epsilon)
        for name, minimum in (("pooling_num_heads", 1), ("pooling_mlp_dim", 0), ("pre_logits", 1)):
            if getattr(self, name) is not None:
                self._set(name, check_int(owner, name, getattr(self, name), minimum))
        check_choice(owner, "head_reads", self.head_reads, (None, *HEAD_READS))
        check_choice(owner, "block_attention", self.block_attention, ("dot_product", "vector"))
        if self.mlp_dim is not None:
            self._set("mlp_dim", check_int(owner, "mlp_dim", self.mlp_dim))
        check_heads(owner, self.num_heads, self.hidden_dim, "hidden_dim")
        epsilon = check_positive(owner, "layer_norm_epsilon", self.layer_norm_epsilon)
        self._set("layer_norm_epsilon", epsilon)
        activations.get(self.activation, owner)
        if self.layer_scale is not None:
            self._set("layer_scale", check_positive(owner, "layer_scale", self.layer_scale))
        if self.at is not None:
            self._set("at", check_int(owner, "at", self.at, minimum=0))
        if self.stem is not None:
            self._set("stem", check_pairs(owner, "stem", self.stem))
        if self.rotary_grid is not None:
            axes = (len(self.patch_size),)
            self._set("rotary_grid", check_ints(owner, "rotary_grid", self.rotary_grid, axes))

    def _set(self, name: str, value: FieldValue) -> None:
        """Set a field of the frozen dataclass."""
        object.__setattr__(self, name, value)

    @property
    def place(self) -> int:
        """Number of blocks before the reducer. Without a reducer, the number of all blocks."""
        if self.reducer is None:
            return self.num_layers
        return self.num_layers // 2 if self.at is None else self.at

    @property
    def rotates_tokens(self) -> bool:
        """Whether learned tokens rotate by the centres of mass of their maps."""
        per_frame = len(self.patch_size) == 3 and self.over == "frame"
        fixed = self.rotary is not None and self.rotary != "learned"
        return (
            self.reducer == "token_learner"
            and fixed
            and not per_frame
            and self.rotary_tokens != "none"
        )

    @property
    def newer(self) -> list[str]:
        """Fields whose values differ from the ViT of 2021, as `name=value`."""
        default = {field.name: field.default for field in dataclasses.fields(self)}
        values = {name: getattr(self, name) for name in NEWER}
        found = [f"{name}={v!r}" for name, v in values.items() if v != default[name]]
        if self.positions in (None, "sequence"):
            found.append(f"positions={self.positions!r}")
        return found

    @property
    def pools(self) -> bool:
        """Whether the head reads the average, maximum or attention pooling of the patches."""
        return self.head_reads in POOLS or (self.head_reads is None and not self.class_token)

    @property
    def num_prefix_tokens(self) -> int:
        """Number of tokens before the patch tokens: class token and registers."""
        return int(self.class_token) + self.register_tokens


def check_fields(config: VisionTransformerConfig, changes: Fields) -> VisionTransformerConfig:
    """Check changed fields before a checkpoint is known, and return a config with these fields.

    Fields of reducer and fuser must fit together, `at` must fit `num_layers`, and `stem` must fit
    `patch_size`. Other fields are checked on their own, because a checkpoint may set the fields
    that contradict them.
    """
    changed = copy.copy(config)
    for name, value in changes.items():
        changed._set(name, value)
    changed._check_fields()
    check_reduction(OWNER, *changed._values_and_defaults())
    return changed
