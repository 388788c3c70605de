import keras

from keras_tokenlearner._checks import check_int
from keras_tokenlearner.layers import activations
from keras_tokenlearner.models import VisionTransformerConfig
from keras_tokenlearner.models.reduction import reduce_and_fuse, reduce_tokens
from keras_tokenlearner.training.precision import dtype_policy
from keras_tokenlearner.training.token_start import start_from_clusters
from keras_tokenlearner.weights.layout import Layout


def retrofit(
    model,
    at,
    num_tokens=8,
    fuser=False,
    attention="mlp",
    images=None,
    reducer="token_learner",
    name=None,
):
    """Fit learned tokens into a ViT that exists: the student of `distill`.

    The new model is the old one, weights, head and preprocessing included, with a TokenLearner
    before block `at`: from there on its blocks run on `num_tokens` tokens, beside the class token
    and the registers. The old model stays as it is. The blocks behind the TokenLearner meet tokens
    that they have not seen, so that the new model is to be trained: `distill` does it best.

    With `images` the TokenLearner starts where training goes on quickly. The features of these
    images at its place are clustered, and each token begins as the average of the positions that
    are like one cluster. Without, its maps start at random and its tokens nearly alike.

    Args:
        model: A plain ViT or ViViT that `create_model` or `vision_transformer` built, or one loaded
            from a `.keras` file of such a model.
        at: Integer, full-token blocks before the TokenLearner, 0 to all.
        num_tokens: Integer, tokens to learn from each image or frame (S).
        fuser: Boolean, whether a TokenFuser follows every block from `at` on, model (b), so that
            all tokens come out of the model.
        attention: `"mlp"`, the authors' later maps, or `"conv"`, the paper's.
        images: Array of a few hundred images, as the model takes them, to start from; for
            `attention="mlp"`. It needs scikit-learn, the extra `distill`.
        reducer: `"token_learner"`, or one of what the paper compares it with in its place, as
            `keras_tokenlearner.models.VisionTransformerConfig` has them.
        name: Name of the new model. Defaults to that of `model` with `_8at6` behind it.

    Returns:
        A functional `keras.Model` of the same inputs; its outputs are of the same shape, but for a
        model without top and pooling, whose tokens become fewer.

    Raises:
        ValueError: If the model is none of ours or has learned tokens already, or an argument is
            out of range.

    Example:

    >>> teacher = create_model("vit_pico8", classes=10)
    >>> student = retrofit(teacher, at=1, num_tokens=4)
    >>> student.name, costs(student).macs < costs(teacher).macs
    ('vit_pico8_4at1', True)

    Source: model (a) and (b) of Figure 3 of the paper; the clusters are ours.
    """
    layout = Layout("retrofit", model)
    if layout.added:
        raise ValueError(
            "retrofit: the model must be a plain ViT. Received: model "
            f"{model.name!r} with {', '.join(layer.name for layer in layout.added)}"
        )
    check_int("retrofit", "at", at, minimum=0)
    config = VisionTransformerConfig(
        hidden_dim=layout.hidden_dim,
        num_layers=layout.num_blocks,
        num_heads=layout.heads,
        patch_size=(1,) * len(layout.grid),
        mlp_dim=layout.block.mlp_dim,
        reducer=reducer,
        num_tokens=num_tokens,
        at=at,
        token_attention=attention,
        fuser="token_fuser" if fuser else None,
        register_tokens=layout.num_prefix_tokens,
        dropout_rate=layout.block.dropout_rate,
        activation=activations.serialize(layout.block.activation),
        layer_norm_epsilon=layout.block.layer_norm_epsilon,
    )
    name = name or f"{model.name}_{num_tokens}at{at}"
    student = _with_tokens(model, config, layout.grid, layout.block.dtype_policy, name)
    for layer in model.layers:
        student.get_layer(layer.name).set_weights(layer.get_weights())
    if images is not None:
        start_from_clusters(student, images)
    return student


def _with_tokens(model, config, grid, policy, name):
    """Return a copy of the graph of `model`, of new weights, that reduces its tokens."""

    behind = [f"block_{index}" for index in range(config.place, config.num_layers)]
    first = behind[0] if behind else "norm"

    def call(layer, *args, **kwargs):
        if config.fuser and layer.name in behind:
            index = config.place + behind.index(layer.name)
            return reduce_and_fuse(config, grid, index, layer, *args)
        if not config.fuser and layer.name == first:
            args = (reduce_tokens(config, grid, *args),)
        return layer(*args, **kwargs)

    with dtype_policy(policy):
        copy = keras.models.clone_model(model, call_function=call)
    return keras.Model(copy.input, copy.output, name=name)
