import keras
import numpy as np
import pytest

from keras_tokenlearner.layers import TokenFuser
from tests.conformance import array
from tests.layers import helpers
from tests.layers.helpers import close, random_layer, refused, run


def equation_2(tokens, x, weights, mixing="frame", beta="linear", norm="all"):
    """Return the paper's output, frame by frame; tokens are (B, T * S, C), x (B, T, H, W, C)."""
    kernel, bias, *weights = weights
    count = {"all": 3, "inputs": 1, "none": 0}[norm]
    norms, beta_weights = weights[: 2 * count], weights[2 * count :]

    def normed(values, index):
        index -= 3 - count  # with fewer norms, the norm of X comes first
        if index < 0 or norm == "none":
            return values
        return helpers.layer_norm(values, *norms[2 * index : 2 * index + 2])

    frames = x.shape[1]
    groups = np.split(tokens, frames, axis=1) if mixing == "frame" else [tokens]
    mixed = [np.einsum("bsc,sm->bmc", normed(y, 0), kernel) + bias[:, None] for y in groups]
    mixed = np.split(normed(np.concatenate(mixed, axis=1), 1), frames, axis=1)
    output = np.empty_like(x)
    for frame in range(frames):
        logits = normed(x[:, frame], 2)
        logits = helpers.mlp(logits, *beta_weights) if beta == "mlp" else logits @ beta_weights[0]
        blend = np.einsum("bhws,bsc->bhwc", helpers.sigmoid(logits), mixed[frame])
        output[:, frame] = blend + x[:, frame]
    return output


FORMS = [
    {"mixing": mixing, "beta": beta, "norm": norm}
    for mixing in ("frame", "global")
    for beta in ("linear", "mlp")
    for norm in ("all", "inputs", "none")
]


def test_token_fuser_equals_the_code_of_the_authors():
    reference = helpers.Reference("fuser")
    tokens, x = reference.inputs
    layer = TokenFuser(beta="mlp", grid=(6, 6))
    layer.build(tokens.shape, x.shape)
    layer.set_weights(
        reference(
            "Dense_0/kernel",
            "Dense_0/bias",
            *(
                f"{norm}/{part}"
                for norm in ("fuser_mix_norm1", "fuser_mix_norm2", "LayerNorm_0")
                for part in ("scale", "bias")
            ),
            *(f"token_masking/Dense_{i}/{part}" for i in (0, 1) for part in ("kernel", "bias")),
        )
    )
    close(run(layer, tokens, x), x + reference.output)  # the authors' caller adds the residual


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_token_fuser_on_videos_equals_equation_2_of_the_paper(form):
    tokens, x = array((2, 6, 8), 0), array((2, 2, 4, 5, 8), 1)
    layer = random_layer(TokenFuser(dropout_rate=0.5, **form), tokens.shape, x.shape)
    expected = equation_2(tokens, x, layer.get_weights(), **form)
    close(run(layer, tokens, x, training=False), expected)
    sequence = x.reshape(2, 40, 8)
    for grid in ((4, 5), (2, 4, 5)):
        layer = random_layer(TokenFuser(grid=grid, **form), tokens.shape, sequence.shape)
        close(run(layer, tokens, sequence), expected.reshape(2, 40, 8))


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_token_fuser_on_images_equals_equation_2_of_the_paper(form):
    tokens, x = array((2, 3, 8), 0), array((2, 4, 5, 8), 1)
    layer = random_layer(TokenFuser(**form), tokens.shape, x.shape)
    close(run(layer, tokens, x), equation_2(tokens, x[:, None], layer.get_weights(), **form)[:, 0])


def test_token_fuser_global_mixing_has_weights_over_all_frames():
    layer = TokenFuser(mixing="global", norm="none")
    layer.build((2, 6, 8), (2, 2, 4, 5, 8))
    assert layer.mix.kernel.shape == (6, 6)
    assert layer.count_params() == 6 * 6 + 6 + 8 * 3


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_untrained_token_fuser_is_the_identity(form):
    tokens, x = array((2, 6, 8), 0), array((2, 2, 4, 5, 8), 1)
    np.testing.assert_array_equal(run(TokenFuser(**form), tokens, x), x)


def test_token_fuser_dropout_does_not_drop_the_residual():
    tokens, x = array((2, 3, 8), 0), array((2, 4, 5, 8), 1)
    layer = random_layer(TokenFuser(dropout_rate=0.5), tokens.shape, x.shape)
    added = run(layer, tokens, x) - x
    dropped = run(layer, tokens, x, training=True) - x
    zero = np.isclose(dropped, 0, atol=1e-6)
    assert 0.2 < zero.mean() < 0.8
    close(dropped[~zero], 2 * added[~zero], atol=1e-4)


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"mixing": "frames"}, ["mixing='frames'", "'frame'?"]),
        ({"norm": False}, ["norm=False", "'all', 'inputs', 'none'"]),
        ({"beta": "dense"}, ["beta='dense'", "'linear', 'mlp'"]),
        ({"grid": (4, 6, 2, 1)}, ["grid=(4, 6, 2, 1)"]),
        ({"bottleneck_dim": 0}, ["bottleneck_dim=0"]),
        ({"dropout_rate": -0.1}, ["dropout_rate=-0.1", "[0, 1)"]),
        ({"layer_norm_epsilon": "1e-6"}, ["layer_norm_epsilon='1e-6'"]),
    ],
    ids=str,
)
def test_token_fuser_with_wrong_arguments_raises(arguments, words):
    refused(lambda: TokenFuser(**arguments), "TokenFuser", "Received: ", *words)


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "tokens_shape, inputs_shape, words",
    [
        ((2, 5, 8), (2, 2, 4, 6, 8), ["(2, 5, 8)", "2 frames"]),
        ((2, 6, 7), (2, 4, 6, 8), ["(2, 6, 7)", "(2, 4, 6, 8)"]),
        ((2, 2, 3, 8), (2, 2, 4, 6, 8), ["(B, T * S, C)", "(2, 2, 3, 8)"]),
        ((2, 6, 8), (2, 24, 8), ["grid=None", "(2, 24, 8)"]),
        ((2, None, 8), (2, None, 4, 6, 8), ["(2, None, 4, 6, 8)"]),
    ],
    ids=str,
)
def test_token_fuser_with_wrong_shapes_raises(tokens_shape, inputs_shape, words):
    layer = TokenFuser()
    refused(lambda: layer.build(tokens_shape, inputs_shape), "TokenFuser", "Received: ", *words)


@pytest.mark.once("torch")
def test_token_fuser_with_channels_first_raises():
    keras.config.set_image_data_format("channels_first")
    refused(TokenFuser, "TokenFuser: ", "image_data_format='channels_first'")
