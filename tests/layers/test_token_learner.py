import keras
import numpy as np
import pytest

from keras_tokenlearner.layers import PooledTokens, TokenLearner
from keras_tokenlearner.layers.cells import ancestors, grid_cells
from keras_tokenlearner.layers.positions import resize_positions
from tests.conformance import array
from tests.layers import helpers
from tests.layers.helpers import close, random_layer, refused, run


def equation_1(x, weights, attention="conv", pooling="mean"):
    """Return tokens and maps as the paper writes them, token by token; x is (B, ..., C)."""
    gamma, beta, *alpha = weights
    maps, axes = helpers.layer_norm(x, gamma, beta), tuple(range(1, x.ndim - 1))
    if attention == "conv":
        for kernel in alpha[:-1]:
            maps = helpers.gelu_tanh(helpers.convolution(maps, kernel))
        maps = helpers.sigmoid(helpers.convolution(maps, alpha[-1]))
    else:
        logits = helpers.mlp(maps, *alpha)
        maps = helpers.softmax(logits.reshape(len(x), -1, logits.shape[-1]), 1)
        maps = maps.reshape(logits.shape)
    pool = np.mean if (attention, pooling) == ("conv", "mean") else np.sum
    tokens = [pool(maps[..., s : s + 1] * x, axis=axes) for s in range(maps.shape[-1])]
    return np.stack(tokens, axis=1), maps


FORMS = ({}, {"pooling": "sum"}, {"num_convs": 1, "kernel_size": 5}, {"attention": "mlp"})


def oracle(x, layer):
    return equation_1(x, layer.get_weights(), layer.attention, layer.pooling)


@pytest.mark.parametrize(
    "name, arguments",
    [("v10_sum", {"pooling": "sum"}), ("v10_mean", {}), ("v11", {"attention": "mlp"})],
)
def test_token_learner_equals_the_code_of_the_authors(name, arguments):
    reference = helpers.Reference(name)
    norm = reference("LayerNorm_0/scale", "LayerNorm_0/bias")
    if name == "v11":
        alpha = reference(
            *(f"token_masking/Dense_{i}/{part}" for i in (0, 1) for part in ("kernel", "bias"))
        )
    else:
        alpha = reference(*(f"Conv_{i}/kernel" for i in range(4)))
    layer = TokenLearner(4, **arguments)
    layer.build(reference.inputs[0].shape)
    layer.set_weights(norm + alpha)
    close(run(layer, *reference.inputs), reference.output)


@pytest.mark.parametrize("arguments", FORMS, ids=str)
def test_token_learner_on_images_equals_equation_1_of_the_paper(arguments):
    x = array((2, 4, 6, 8), 0)
    layer = random_layer(TokenLearner(3, **arguments), x.shape)
    tokens, maps = run(layer, x, return_maps=True)
    expected_tokens, expected_maps = oracle(x, layer)
    close(tokens, expected_tokens)
    close(maps, expected_maps)
    assert tokens.shape == (2, 3, 8) and maps.shape == (2, 4, 6, 3)


@pytest.mark.parametrize("arguments", FORMS, ids=str)
@pytest.mark.parametrize("grid", [(4, 6), (2, 4, 6)], ids=str)
def test_token_learner_on_videos_returns_tokens_in_frame_order(arguments, grid):
    x = array((2, 2, 4, 6, 8), 0)
    layer = random_layer(TokenLearner(3, **arguments), x.shape)
    tokens, maps = run(layer, x, return_maps=True)
    assert tokens.shape == (2, 6, 8) and maps.shape == (2, 2, 4, 6, 3)
    for frame in range(2):
        expected_tokens, expected_maps = oracle(x[:, frame], layer)
        close(tokens[:, 3 * frame : 3 * frame + 3], expected_tokens)
        close(maps[:, frame], expected_maps)
    sequence = random_layer(TokenLearner(3, grid=grid, **arguments), (2, 48, 8))
    sequence_tokens, sequence_maps = run(sequence, x.reshape(2, 48, 8), return_maps=True)
    close(sequence_tokens, tokens)
    close(sequence_maps, maps.reshape(2, 48, 3))


@pytest.mark.parametrize("arguments", FORMS, ids=str)
@pytest.mark.parametrize("shape", [(2, 4, 6, 8), (4, 6, 8)], ids=str)
def test_token_learner_over_space_time_has_maps_of_the_whole_video(arguments, shape):
    x = array((2, *shape), 0)
    layer = random_layer(TokenLearner(3, over="space_time", **arguments), x.shape)
    tokens, maps = run(layer, x, return_maps=True)
    volume = x if len(shape) == 4 else x[:, None]
    expected_tokens, expected_maps = oracle(volume, layer)
    close(tokens, expected_tokens)
    close(maps, expected_maps.reshape(maps.shape))
    assert tokens.shape == (2, 3, 8) and maps.shape == (2, *shape[:-1], 3)


# On TensorFlow, convolutions of empty batches fail in Keras.
@pytest.mark.parametrize(
    "attention", ["mlp"] if keras.backend.backend() == "tensorflow" else ["conv", "mlp"]
)
@pytest.mark.parametrize(
    "shape, grid", [((2, 4, 6, 8), None), ((48, 8), (4, 6)), ((48, 8), (2, 4, 6))], ids=str
)
def test_token_learner_of_an_empty_batch_returns_no_tokens(shape, grid, attention):
    layer = random_layer(TokenLearner(3, attention=attention, grid=grid), (2, *shape))
    tokens, maps = layer(np.zeros((0, *shape), "float32"), return_maps=True)
    assert tuple(tokens.shape) == (0, 2 * 3, 8)
    assert tuple(maps.shape) == (0, *shape[:-1], 3)


def test_token_learner_sum_pooling_equals_mean_pooling_times_the_number_of_positions():
    x = array((2, 4, 6, 8), 0)
    mean, total = (
        run(random_layer(TokenLearner(3, pooling=pooling), x.shape), x)
        for pooling in ("mean", "sum")
    )
    close(total, 24 * mean, atol=1e-4)


def test_token_learner_with_a_norm_pools_the_unnormalised_input():
    x = array((1, 4, 6, 8), 0)
    layer = random_layer(TokenLearner(3), x.shape)
    close(run(layer, 100 * x), 100 * run(layer, x), atol=1e-3)  # the norm removes the scale


def test_token_learner_dropout_acts_in_training_only():
    x = array((2, 4, 6, 8), 0)
    layer = random_layer(TokenLearner(3, attention="mlp", dropout=0.5), x.shape)
    close(run(layer, x, training=False), oracle(x, layer)[0])
    assert np.abs(run(layer, x, training=True) - run(layer, x)).max() > 1e-2


def averages(x, cells, axes):
    """Return the averages of x over cells, and the largest error from weights outside the cells."""
    masks = cells.masks(tuple(x.shape[axis] for axis in axes))
    strays = np.exp(-8) * (masks.size / masks.shape[-1] / masks.reshape(-1, masks.shape[-1]).sum(0))
    flat = x.reshape(len(x), -1, x.shape[-1])
    weights = masks.reshape(flat.shape[1], -1) / masks.reshape(flat.shape[1], -1).sum(0)
    spread = flat.max(1) - flat.min(1)
    return np.einsum("ns,bnc->bsc", weights, flat), spread[:, None] * strays[None, :, None] + 1e-5


@pytest.mark.parametrize("num_tokens", [1, 5, 8, 24])
def test_token_learner_with_untrained_position_bias_averages_one_grid_cell_per_token(num_tokens):
    x = array((2, 4, 6, 8), 0)
    layer = TokenLearner(num_tokens, "mlp", position_bias=True)
    cells = grid_cells((4, 6), num_tokens)
    expected, error = averages(x, cells, (1, 2))
    assert (np.abs(run(layer, x) - expected) <= error).all()
    maps = run(layer, x, return_maps=True)[1]
    close(maps.sum((1, 2)), np.ones((2, num_tokens)))


def test_untrained_position_bias_on_videos_averages_cells_of_a_frame_or_of_space_time():
    x = array((2, 2, 4, 6, 8), 0)
    tokens = run(TokenLearner(4, "mlp", position_bias=True), x)
    for frame in range(2):
        expected, error = averages(x[:, frame], grid_cells((4, 6), 4), (1, 2))
        assert (np.abs(tokens[:, 4 * frame : 4 * frame + 4] - expected) <= error).all()
    tokens = run(TokenLearner(4, "mlp", position_bias=True, over="space_time"), x)
    expected, error = averages(x, grid_cells((2, 4, 6), 4), (1, 2, 3))
    assert (np.abs(tokens - expected) <= error).all()


def test_token_learner_adds_its_position_bias_before_the_softmax():
    x = array((2, 4, 6, 8), 0)
    layer = random_layer(TokenLearner(5, "mlp", position_bias=True), x.shape)
    bias, gamma, beta, *mlp = layer.get_weights()
    logits = helpers.mlp(helpers.layer_norm(x, gamma, beta), *mlp) + bias
    maps = helpers.softmax(logits.reshape(2, 24, 5), 1)
    tokens, found = run(layer, x, return_maps=True)
    close(found, maps.reshape(2, 4, 6, 5))
    close(tokens, np.einsum("bns,bnc->bsc", maps, x.reshape(2, 24, 8)))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_first_m_tokens_of_an_untrained_token_learner_cover_the_whole_image(count):
    """The first m tokens are the averages of m cells. Each position is in one cell."""
    x = array((2, 4, 6, 8), 0)
    layer = TokenLearner(5, "mlp", position_bias=True)
    cells = grid_cells((4, 6), 5)
    owners = np.array(ancestors(cells.parents, count))
    masks = cells.masks((4, 6)).reshape(24, 5)
    merged = np.stack([masks[:, owners == token].any(1) for token in range(count)], 1)
    assert (merged.sum(1) == 1).all()
    tokens, maps = run(layer, x, num_tokens=count, return_maps=True)
    assert tokens.shape == (2, count, 8) and maps.shape == (2, 4, 6, count)
    strongest = maps.reshape(2, 24, count).argmax(-1)
    np.testing.assert_array_equal(strongest, np.tile(merged.argmax(1), (2, 1)))
    expected = merged / merged.sum(0)
    np.testing.assert_allclose(maps[0].reshape(24, count), expected, atol=24 * np.exp(-8))


def test_saved_position_bias_is_resized_for_another_grid(tmp_path):
    models = []
    for size in (4, 8):
        inputs = keras.Input((size, size, 8))
        layer = TokenLearner(4, "mlp", position_bias=True, name="learner")
        models.append(keras.Model(inputs, layer(inputs)))
    table = array((4, 4, 4), 3)
    models[0].get_layer("learner").bias.assign(table)
    models[0].save_weights(tmp_path / "a.weights.h5")
    models[1].load_weights(tmp_path / "a.weights.h5")
    found = keras.ops.convert_to_numpy(models[1].get_layer("learner").bias)
    close(found, resize_positions(table, (8, 8)))
    models[0].save(tmp_path / "a.keras")
    again = keras.saving.load_model(tmp_path / "a.keras").get_layer("learner")
    close(keras.ops.convert_to_numpy(again.bias), table)


def test_position_bias_loaded_without_a_cell_tree_has_the_cell_tree_of_the_grid_in_the_file():
    layer = TokenLearner(6, "mlp", position_bias=True)
    layer.build((2, 4, 6, 8))
    assert layer.parents == grid_cells((4, 6), 6).parents
    layer.load_own_variables({"position_bias": array((4, 4, 6), 0)})
    assert layer.parents == grid_cells((4, 4), 6).parents != grid_cells((4, 6), 6).parents


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("arguments", "shape", "words"),
    [
        ({}, (2, 2, 2, 8), ["num_tokens=5", "(2, 2, 2, 8)"]),
        ({}, (2, None, 4, 8), ["num_tokens=5", "(2, None, 4, 8)"]),
        ({"over": "space_time"}, (2, None, 4, 4, 8), ["over='space_time'", "(2, None, 4, 4, 8)"]),
    ],
    ids=str,
)
def test_position_bias_on_an_unknown_or_too_small_grid_raises(arguments, shape, words):
    layer = TokenLearner(5, "mlp", position_bias=True, **arguments)
    refused(lambda: layer.build(shape), "TokenLearner", "Received: ", *words)


def test_token_learner_call_with_num_tokens_out_of_range_raises():
    x = array((2, 4, 6, 8), 0)
    layer = TokenLearner(5, "mlp", position_bias=True)
    refused(lambda: layer(x, num_tokens=6), "TokenLearner", "num_tokens=6", "num_tokens=5")
    refused(lambda: layer(x, num_tokens=0), "TokenLearner", "num_tokens=0")
    other = TokenLearner(5, "mlp")
    refused(lambda: other(x, num_tokens=3), "TokenLearner", "position_bias=False")


@pytest.mark.parametrize("attention", ["conv", "mlp"])
def test_token_learner_allocates_no_tensor_of_maps_by_pixels_by_channels(attention):
    x = array((2, 8, 10, 32), 0)
    layer = random_layer(TokenLearner(8, attention, bottleneck_dim=4), x.shape)
    product = 2 * 8 * 80 * 32
    assert helpers.largest_intermediate(layer, x) < product / 4


_BIASED = {"num_tokens": 3, "attention": "mlp", "position_bias": True}


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"num_tokens": 0}, ["num_tokens=0"]),
        ({"num_tokens": "8"}, ["num_tokens='8'"]),
        ({"num_tokens": True}, ["num_tokens=True"]),
        ({"num_tokens": 2.5}, ["num_tokens=2.5"]),
        ({"attention": "convs"}, ["attention='convs'", "'conv'?", "'mlp'"]),
        ({"pooling": "average"}, ["pooling='average'", "'mean'", "'sum'"]),
        ({"over": "space-time"}, ["over='space-time'", "'space_time'?"]),
        ({"grid": 14}, ["grid=14"]),
        ({"grid": (14,)}, ["grid=(14,)"]),
        ({"grid": (14, 0)}, ["grid=(14, 0)"]),
        ({"num_convs": 0}, ["num_convs=0"]),
        ({"kernel_size": (3, 3)}, ["kernel_size=(3, 3)"]),
        ({"bottleneck_dim": -1}, ["bottleneck_dim=-1"]),
        ({"dropout": 1.0}, ["dropout=1.0", "[0, 1)"]),
        ({"dropout": True}, ["dropout=True", "[0, 1)"]),
        ({"epsilon": 0}, ["epsilon=0"]),
        ({"position_bias": True}, ["position_bias=True", "attention='conv'"]),
        ({"position_bias": 1.5}, ["position_bias=1.5"]),
        ({"parents": (0, 0)}, ["parents=(0, 0)", "position_bias=False"]),
        ({**_BIASED, "parents": (0, 0)}, ["parents=(0, 0)"]),
        ({**_BIASED, "parents": (0, 0, 2)}, ["parents=(0, 0, 2)"]),
        ({"activation": "gelu_tan"}, ["activation='gelu_tan'", "'gelu_tanh'"]),
    ],
    ids=str,
)
def test_token_learner_with_wrong_arguments_raises(arguments, words):
    refused(lambda: TokenLearner(**arguments), "TokenLearner", "Received: ", *words)


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "grid, shape, words",
    [
        (None, (2, 48, 8), ["grid=None", "(2, 48, 8)"]),
        ((4, 5), (2, 48, 8), ["grid=(4, 5)", "20 tokens", "(2, 48, 8)"]),
        ((3, 4, 6), (2, 48, 8), ["grid=(3, 4, 6)", "72 tokens", "(2, 48, 8)"]),
        ((4, 6), (2, 6, 4, 8), ["grid=(4, 6)", "(2, 6, 4, 8)"]),
        (None, (2, 8), ["(B, H, W, C)", "shape=(2, 8)"]),
        (None, (2, 4, 6, None), ["(2, 4, 6, None)"]),
    ],
    ids=str,
)
def test_token_learner_with_wrong_shapes_raises(grid, shape, words):
    layer = TokenLearner(3, grid=grid)
    refused(lambda: layer.build(shape), "TokenLearner", "Received: ", *words)


@pytest.mark.once("torch")
def test_token_learner_with_channels_first_raises():
    keras.config.set_image_data_format("channels_first")
    refused(TokenLearner, "TokenLearner: ", "image_data_format='channels_first'")


@pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="only on torch: others compile their constants"
)
@pytest.mark.parametrize("pooling", ["mean", "sum"])
def test_token_learner_on_torch_copies_no_scalar_to_the_gpu(pooling):
    from torch.utils._python_dispatch import TorchDispatchMode

    class Operations(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            names.append(str(operation))
            return operation(*args, **(kwargs or {}))

    names, layer = [], TokenLearner(num_tokens=3, pooling=pooling)
    x = keras.ops.convert_to_tensor(array((2, 4, 5, 6), seed=0))
    layer(x)
    with Operations():
        layer(x)
    # a number that becomes a tensor is copied, and the copy waits for all earlier work
    assert any("conv" in name for name in names) and not any("lift" in name for name in names)


@pytest.mark.parametrize("attention", ["conv", "mlp"])
@pytest.mark.parametrize("half, rtol", [("bfloat16", 2e-2), ("float16", 2e-3)])
def test_token_learner_on_large_half_precision_values_returns_their_weighted_mean(
    half, rtol, attention
):
    """The sum of 64 x 64 values of 50 is 204800, and float16 holds at most 65504."""
    layer = TokenLearner(2, attention=attention, num_convs=1, dtype=f"mixed_{half}")
    x = np.full((1, 64, 64, 4), 50.0)
    tokens, maps = run(layer, x, return_maps=True)
    expected = np.einsum("bhws,bhwc->bsc", maps.astype("float64"), x)
    expected /= 64 * 64 if attention == "conv" else 1
    np.testing.assert_allclose(tokens, expected, rtol=rtol)


@pytest.mark.parametrize("count", [3, 2])
def test_token_maps_with_position_bias_in_bfloat16_keep_small_logits_of_the_mlp(count):
    """bfloat16 holds 8 and 8.0625, but no number between them."""
    x = array((2, 4, 6, 8), 0)
    exact = TokenLearner(3, "mlp", position_bias=True)
    half = TokenLearner(3, "mlp", position_bias=True, dtype="mixed_bfloat16")
    for layer in (exact, half):
        layer.build(x.shape)
    exact.mlp.output_dense.kernel.assign(0.02 * array((64, 3), 1))
    half.set_weights(exact.get_weights())
    expected, found = (
        run(layer, x, num_tokens=count, return_maps=True)[1].astype("float32")
        for layer in (exact, half)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-2)
    start = TokenLearner(3, "mlp", position_bias=True)
    untrained = run(start, x, num_tokens=count, return_maps=True)[1]
    assert np.abs(expected / untrained - 1).max() > 2e-2  # the part of the MLP


def test_pooled_tokens_of_large_values_in_float16_are_near_float32():
    layer = PooledTokens(2, dtype="mixed_float16")
    found = run(layer, np.full((1, 64, 64, 4), 50.0))
    exact = PooledTokens(2)
    exact.build((1, 64, 64, 4))
    exact.set_weights(layer.get_weights())
    np.testing.assert_allclose(
        found, run(exact, np.full((1, 64, 64, 4), 50.0)), rtol=2e-2, atol=0.1
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_token_learner_with_position_bias_in_a_pure_dtype_returns_this_dtype(dtype):
    layer = TokenLearner(4, attention="mlp", position_bias=True, dtype=dtype)
    tokens = layer(np.ones((2, 4, 4, 8)))
    assert keras.backend.standardize_dtype(tokens.dtype) in (dtype, "float32")  # JAX has no float64
    assert tuple(layer(np.ones((2, 4, 4, 8)), num_tokens=2).shape) == (2, 2, 8)
