"""Where the TokenLearners of a student start, so that its blocks meet tokens that they know."""

import keras
import numpy as np

from keras_tokenlearner._extras import require
from keras_tokenlearner.layers import TokenLearner

# Standard deviation over positions of the logits of a map: high enough that a token prefers its
# cluster, low enough that the softmax still has a gradient everywhere.
SPREAD = 2.0
_MOST_POSITIONS = 20_000


def start_from_clusters(model, images):
    """Let every TokenLearner of a model begin as the average of positions that are alike.

    The normalised features that it sees in `images` are clustered by k-means. The logits of map s
    become `(c_s - c) . x`, of centre `c_s` and the mean `c` of all, times one factor: positions
    near to a centre weigh more. The MLP inside computes that exactly, as
    `gelu(a) - gelu(-a) = a`, and learns on from there.

    Args:
        model: A model with TokenLearners of `attention="mlp"`, which get new weights.
        images: Array of images or videos, as the model takes them.

    Raises:
        ValueError: If the maps are convolutions, or more than the hidden units can hold.
        ImportError: If scikit-learn is not installed.
    """
    cluster = require("sklearn.cluster", "distill")
    learners = [layer for layer in model.layers if isinstance(layer, TokenLearner)]
    if not learners:
        raise ValueError(
            "retrofit: `images` are for a TokenLearner to start from. Received: images with "
            f"another reducer, in {model.name!r}"
        )
    for learner in learners:
        if learner.attention != "mlp" or 2 * learner.num_tokens > learner.bottleneck_dim:
            raise ValueError(
                "retrofit: `images` to start from need attention='mlp' and at most half as many "
                f"tokens as its hidden units. Received: attention={learner.attention!r}, "
                f"num_tokens={learner.num_tokens}"
            )
    for learner in learners:  # by depth: each takes the tokens of the one before
        features = keras.Model(model.input, learner.input).predict(images, verbose=0)
        x = keras.ops.convert_to_numpy(learner.norm(features)).astype("float32")
        x = x.reshape(-1, x.shape[-1])
        chosen = np.random.default_rng(0).permutation(len(x))[:_MOST_POSITIONS]
        means = cluster.KMeans(learner.num_tokens, n_init=4, random_state=0).fit(x[chosen])
        directions = (means.cluster_centers_ - x[chosen].mean(0)).T  # (C, S)
        directions *= SPREAD / np.maximum((x[chosen] @ directions).std(0), 1e-6)
        _set_maps(learner.mlp, directions)


def _set_maps(mlp, directions):
    """Make an MLP compute the products with `directions`, (C, S), without a bias."""
    tokens = directions.shape[1]
    kernel, bias = mlp.hidden.get_weights()
    kernel[:, :tokens], kernel[:, tokens : 2 * tokens] = directions, -directions
    mlp.hidden.set_weights([kernel, np.zeros_like(bias)])
    kernel, bias = mlp.output_dense.get_weights()
    kernel[:] = 0
    kernel[:tokens], kernel[tokens : 2 * tokens] = np.eye(tokens), -np.eye(tokens)
    mlp.output_dense.set_weights([kernel, np.zeros_like(bias)])
