import math
from typing import cast

import keras
from keras import layers, ops

from keras_tokenlearner._checks import (
    check_bool,
    check_channels,
    check_choice,
    check_heads,
    check_int,
    check_positive,
    check_rate,
)
from keras_tokenlearner._json import JSON
from keras_tokenlearner._keras_faults import no_flash_attention_on_tpu
from keras_tokenlearner.layers import activations
from keras_tokenlearner.layers.composite import CompositeLayer
from keras_tokenlearner.layers.layer_normalization import NORMS, norm_layer
from keras_tokenlearner.layers.layer_scale import LayerScale
from keras_tokenlearner.layers.mlp import MLP
from keras_tokenlearner.layers.multi_head_attention import QKV_BIASES, MultiHeadAttention
from keras_tokenlearner.layers.rotary import LAYOUTS
from keras_tokenlearner.layers.sublayers import call_sublayer
from keras_tokenlearner.layers.vector_attention import VectorAttention


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class TransformerBlock(CompositeLayer):
    """A pre-norm transformer layer: attention over the tokens, then an MLP over the channels.

    `x <- x + Attention(Norm(x))`, then `x <- x + MLP(Norm(x))`.

    Each of M learned tokens replaces several patches, `num_patches / M` on average. Proportional
    attention weighs each token by this number. With `num_patches`, the block adds
    `log(num_patches / M) + b` to the attention logits of the M tokens after the prefix tokens. The
    learned scalar b starts at zero. Without prefix tokens, the added term would have no effect and
    is omitted.

    Args:
        num_heads: Integer, heads of the dot-product attention; must divide the channels. Vector
            attention has one head per channel and ignores this argument.
        mlp_dim: Integer, hidden units of the MLP. Defaults to four times the channels.
        gated_mlp: Boolean, whether the MLP is gated: SwiGLU, with the activation `"silu"`.
        attention: `"dot_product"` for `MultiHeadAttention`, `"vector"` for `VectorAttention`.
        dropout_rate: Float in [0, 1), the dropout rate after the attention and after each dense
            layer of the MLP.
        attention_dropout_rate: Float in [0, 1), the dropout rate on the attention weights of
            `"dot_product"`.
        drop_path_rate: Float in [0, 1), the rate at which an example skips a branch in training.
            On PyTorch, use `keras.RematScope` only with the modes `"activations"` and `None`. In
            other modes, Keras computes the gradient for other skipped branches.
        layer_scale: Float, initial value of a `LayerScale` after each branch, or `None` for none.
        activation: Name or callable, the activation of the MLP. Defaults to `"gelu_tanh"`, as in
            the JAX ViT.
        layer_norm_epsilon: Float, the epsilon of the norms.
        norm: `"layer_norm"` or `"rms_norm"`, the kind of all norms.
        qk_norm: Boolean, whether each head's queries and keys are normalised.
        qkv_bias: `"all"`, `"query_value"` or `"none"`, the projections with a bias.
        attention_bias: Boolean, whether the output projection of the attention has a bias.
        mlp_bias: Boolean, whether the MLP has biases.
        attention_inner_norm: Boolean, whether a norm precedes the output projection.
        mlp_inner_norm: Boolean, whether a norm precedes the MLP's last dense layer.
        rotary: `None`, or the layout of the `RotaryPositions` layer that computes `rotation`.
        num_patches: Integer, the number of patches that the learned tokens replace together, for
            proportional attention. `None` for equal weights. A number needs `"dot_product"`.
        num_prefix_tokens: Integer, tokens before the patches or learned tokens: the class token and
            registers.
        **kwargs: Arguments of `keras.layers.Layer`, for example `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape (B, N, C).
        rotation: Table of `RotaryPositions`, or `None` for no rotation.
        attention_mask: Boolean tensor of shape (B, N, N), `True` where a token (second axis) may
            attend to a token (third axis).
        training: Boolean, whether to apply dropout and stochastic depth.

    Returns:
        Tensor of shape (B, N, C).

    Raises:
        ValueError: If an argument is out of range or has no effect with `attention="vector"`. Also
            if `num_heads` does not divide the channels, or `rotation` is passed without `rotary`.

    Example:

    >>> tokens = keras.random.normal((2, 8, 32))
    >>> tuple(TransformerBlock(num_heads=4)(tokens).shape)
    (2, 8, 32)

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021. Stochastic depth: Huang et
    al., "Deep Networks with Stochastic Depth", 2016. Proportional attention: Bolya et al., "Token
    Merging: Your ViT But Faster", 2023, without the learned scalar.
    """

    def __init__(
        self,
        num_heads: int,
        mlp_dim: int | None = None,
        gated_mlp: bool = False,
        attention: str = "dot_product",
        dropout_rate: float = 0.0,
        attention_dropout_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale: float | None = None,
        activation: activations.Activation = "gelu_tanh",
        layer_norm_epsilon: float = 1e-6,
        norm: str = "layer_norm",
        qk_norm: bool = False,
        qkv_bias: str = "all",
        attention_bias: bool = True,
        mlp_bias: bool = True,
        attention_inner_norm: bool = False,
        mlp_inner_norm: bool = False,
        rotary: str | None = None,
        num_patches: int | None = None,
        num_prefix_tokens: int = 0,
        **kwargs: str | bool | keras.DTypePolicy | None,
    ) -> None:
        super().__init__(**kwargs)
        owner = "TransformerBlock"
        self.num_heads = check_int(owner, "num_heads", num_heads)
        self.mlp_dim = None if mlp_dim is None else check_int(owner, "mlp_dim", mlp_dim)
        self.gated_mlp = check_bool(owner, "gated_mlp", gated_mlp)
        self.attention = check_choice(owner, "attention", attention, ("dot_product", "vector"))
        self.dropout_rate = check_rate(owner, "dropout_rate", dropout_rate)
        self.attention_dropout_rate = check_rate(
            owner, "attention_dropout_rate", attention_dropout_rate
        )
        self.drop_path_rate = check_rate(owner, "drop_path_rate", drop_path_rate)
        self.layer_scale = (
            None if layer_scale is None else check_positive(owner, "layer_scale", layer_scale)
        )
        self.activation = activations.get(activation, "TransformerBlock")
        self.layer_norm_epsilon = check_positive(owner, "layer_norm_epsilon", layer_norm_epsilon)
        self.norm = check_choice(owner, "norm", norm, NORMS)
        self.qkv_bias = check_choice(owner, "qkv_bias", qkv_bias, QKV_BIASES)
        self.rotary = check_choice(owner, "rotary", rotary, (None, *LAYOUTS))
        self.qk_norm = check_bool(owner, "qk_norm", qk_norm)
        self.attention_bias = check_bool(owner, "attention_bias", attention_bias)
        self.mlp_bias = check_bool(owner, "mlp_bias", mlp_bias)
        self.attention_inner_norm = check_bool(owner, "attention_inner_norm", attention_inner_norm)
        self.mlp_inner_norm = check_bool(owner, "mlp_inner_norm", mlp_inner_norm)
        if attention == "vector":
            self._check_vector_attention()
        self.num_patches = (
            None if num_patches is None else check_int(owner, "num_patches", num_patches)
        )
        self.num_prefix_tokens = check_int(owner, "num_prefix_tokens", num_prefix_tokens, minimum=0)
        if self.num_patches is not None and self.attention == "vector":
            raise ValueError(
                f"{owner}: leave out `num_patches`, or pass attention='dot_product'. "
                f"Received: num_patches={num_patches} with attention='vector'"
            )

    def _check_vector_attention(self) -> None:
        """Raise `ValueError` for arguments that have no effect on vector attention."""
        default = {
            "qk_norm": False,
            "qkv_bias": "all",
            "attention_bias": True,
            "attention_inner_norm": False,
            "attention_dropout_rate": 0.0,
            "rotary": None,
        }
        for name, value in default.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"TransformerBlock: `{name}` must be {value!r} unless attention='dot_product'. "
                    f"Received: attention='vector', {name}={getattr(self, name)!r}"
                )

    def build(
        self,
        inputs_shape: tuple[int | None, ...],
        rotation_shape: tuple[int | None, ...] | None = None,
    ) -> None:
        channels = check_channels("TransformerBlock", inputs_shape, rank=3)
        self.attention_norm = self._norm(inputs_shape, "attention_norm")
        if self.attention == "vector":
            self.self_attention = VectorAttention(
                channels, dtype=self.dtype_policy, name="self_attention"
            )
        else:
            with no_flash_attention_on_tpu():
                self.self_attention = MultiHeadAttention(
                    self.num_heads,
                    key_dim=check_heads("TransformerBlock", self.num_heads, channels),
                    dropout=self.attention_dropout_rate,
                    kernel_initializer="glorot_uniform",
                    qkv_bias=self.qkv_bias,
                    output_bias=self.attention_bias,
                    qk_norm=self.norm if self.qk_norm else None,
                    inner_norm=self.norm if self.attention_inner_norm else None,
                    layer_norm_epsilon=self.layer_norm_epsilon,
                    rotary=self.rotary,
                    dtype=self.dtype_policy,
                    name="self_attention",
                )
        self.self_attention.build(inputs_shape, inputs_shape)
        self.self_attention_dropout = self._child(
            layers.Dropout, inputs_shape, "self_attention_dropout", rate=self.dropout_rate
        )
        self.mlp_norm = self._norm(inputs_shape, "mlp_norm")
        self.mlp = self._child(
            MLP,
            inputs_shape,
            "mlp",
            mlp_dim=self.mlp_dim or 4 * channels,
            activation=self.activation,
            dropout_rate=self.dropout_rate,
            gated=self.gated_mlp,
            use_bias=self.mlp_bias,
            inner_norm=self.norm if self.mlp_inner_norm else None,
            layer_norm_epsilon=self.layer_norm_epsilon,
        )
        self.patch_bias = None
        # Without prefix tokens the bias cancels in the softmax.
        if self.num_patches is not None and self.num_prefix_tokens:
            self.patch_bias = self.add_weight(shape=(), initializer="zeros", name="patch_bias")
        self.self_attention_branch = self._branch(inputs_shape, "self_attention")
        self.mlp_branch = self._branch(inputs_shape, "mlp")

    def _norm(self, shape: tuple[int | None, ...], name: str) -> keras.Layer:
        epsilon, policy = self.layer_norm_epsilon, self.dtype_policy
        layer = norm_layer("TransformerBlock", self.norm, epsilon, name, policy)
        layer.build(shape)
        return layer

    def _branch(self, shape: tuple[int | None, ...], name: str) -> list[keras.Layer]:
        """Return the layers between a branch and its residual sum: LayerScale, stochastic depth."""
        branch = []
        if self.layer_scale is not None:
            branch.append(
                self._child(LayerScale, shape, f"{name}_scale", initial_value=self.layer_scale)
            )
        if self.drop_path_rate:
            branch.append(
                self._child(
                    layers.Dropout,
                    shape,
                    f"{name}_stochastic_depth",
                    rate=self.drop_path_rate,
                    noise_shape=(None, 1, 1),
                )
            )
        return branch

    def _child(
        self,
        kind: type[keras.Layer],
        shape: tuple[int | None, ...],
        name: str,
        **arguments: int | float | str | tuple[int | None, ...] | activations.Activation,
    ) -> keras.Layer:
        child = kind(dtype=self.dtype_policy, name=name, **arguments)
        child.build(shape)
        return child

    def call(
        self,
        inputs: keras.KerasTensor,
        rotation: keras.KerasTensor | None = None,
        attention_mask: keras.KerasTensor | None = None,
        training: bool | None = None,
    ) -> keras.KerasTensor:
        if rotation is not None and self.rotary is None:
            raise ValueError(
                "TransformerBlock: `rotation` needs a block with `rotary`; create the block with "
                f"the layout of the rotary table, one of {LAYOUTS}. Received: rotary=None"
            )
        x = call_sublayer(self, self.attention_norm, inputs, training=training)
        options = {} if rotation is None else {"rotation": rotation}
        if self.patch_bias is not None:
            options["key_bias"] = self._key_bias(inputs)
        options |= {"attention_mask": attention_mask, "training": training}
        x = call_sublayer(self, self.self_attention, x, x, **options)
        if self.dropout_rate:
            x = call_sublayer(self, self.self_attention_dropout, x, training=training)
        for layer in self.self_attention_branch:
            x = call_sublayer(self, layer, x, training=training)
        inputs = inputs + x
        x = call_sublayer(self, self.mlp_norm, inputs, training=training)
        x = call_sublayer(self, self.mlp, x, training=training)
        for layer in self.mlp_branch:
            x = call_sublayer(self, layer, x, training=training)
        return inputs + x

    def _key_bias(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Return one number for each token, (N,), that is added to the attention logits."""
        patches, patch_bias = cast(int, self.num_patches), cast(keras.Variable, self.patch_bias)
        tokens = ops.shape(inputs)[1] - self.num_prefix_tokens
        if isinstance(tokens, int):  # a Python integer needs no copy to a GPU
            bias = patch_bias + math.log(patches / tokens)
        else:
            count = ops.cast(tokens, patch_bias.dtype)
            bias = patch_bias + ops.log(patches / count)
        return ops.pad(ops.broadcast_to(bias, (tokens,)), ((self.num_prefix_tokens, 0),))

    def compute_output_shape(
        self,
        inputs_shape: tuple[int | None, ...],
        rotation_shape: tuple[int | None, ...] | None = None,
    ) -> tuple[int | None, ...]:
        return inputs_shape

    def get_config(self) -> dict[str, JSON]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "mlp_dim": self.mlp_dim,
            "gated_mlp": self.gated_mlp,
            "attention": self.attention,
            "dropout_rate": self.dropout_rate,
            "attention_dropout_rate": self.attention_dropout_rate,
            "drop_path_rate": self.drop_path_rate,
            "layer_scale": self.layer_scale,
            "activation": activations.serialize(self.activation),
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "norm": self.norm,
            "qk_norm": self.qk_norm,
            "qkv_bias": self.qkv_bias,
            "attention_bias": self.attention_bias,
            "mlp_bias": self.mlp_bias,
            "attention_inner_norm": self.attention_inner_norm,
            "mlp_inner_norm": self.mlp_inner_norm,
            "rotary": self.rotary,
            "num_patches": self.num_patches,
            "num_prefix_tokens": self.num_prefix_tokens,
        }
