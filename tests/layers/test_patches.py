import keras
import numpy as np
import pytest

from keras_tokenlearner.layers import PatchEmbedding, TubeletEmbedding
from tests.conformance import array
from tests.layers.helpers import close, random_layer, refused, run


def project_patches(x, patch, kernel, bias):
    """Cut (B, ..., c) into patches. Multiply each patch, as a vector, by the kernel."""
    grid = tuple(size // step for size, step in zip(x.shape[1:-1], patch, strict=True))
    tokens = np.empty((len(x), *grid, kernel.shape[-1]))
    for place in np.ndindex(*grid):
        cut = [slice(p * step, (p + 1) * step) for p, step in zip(place, patch, strict=True)]
        vectors = x[(slice(None), *cut)].reshape(len(x), -1)
        tokens[(slice(None), *place)] = vectors @ kernel.reshape(-1, kernel.shape[-1]) + bias
    return tokens


@pytest.mark.parametrize(
    "kind, patch, shape, grid",
    [
        (PatchEmbedding, (4, 4), (2, 8, 8, 3), (2, 2)),
        (PatchEmbedding, (8, 8), (2, 20, 20, 3), (2, 2)),
        (PatchEmbedding, (4, 3), (2, 8, 11, 1), (2, 3)),
        (TubeletEmbedding, (2, 4, 3), (2, 4, 8, 9, 3), (2, 2, 3)),
        (TubeletEmbedding, (2, 8, 8), (2, 5, 20, 12, 1), (2, 2, 1)),
    ],
)
def test_patch_embedding_equals_patch_times_kernel(kind, patch, shape, grid):
    x = array(shape, 0)
    layer = random_layer(kind(5, patch), shape)
    tokens = run(layer, x)
    assert tokens.shape == (2, *grid, 5)
    close(tokens, project_patches(x, patch, *layer.get_weights()))


def test_patch_embedding_ignores_pixels_outside_whole_patches():
    x = array((1, 20, 20, 3), 0)
    layer = random_layer(PatchEmbedding(5, (8, 8)), x.shape)
    assert layer.compute_output_shape((None, 512, 20, 3)) == (None, 64, 2, 5)
    changed = x.copy()
    changed[:, 16:], changed[:, :, 16:] = 7, 7
    np.testing.assert_array_equal(run(layer, x), run(layer, changed))


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "kind, arguments, words",
    [
        (PatchEmbedding, {"hidden_dim": 0}, ["hidden_dim=0"]),
        (PatchEmbedding, {"patch_size": 16}, ["patch_size=16"]),
        (PatchEmbedding, {"patch_size": (2, 4, 4)}, ["patch_size=(2, 4, 4)"]),
        (PatchEmbedding, {"patch_size": (4, 0)}, ["patch_size=(4, 0)"]),
        (TubeletEmbedding, {"patch_size": (4, 4)}, ["patch_size=(4, 4)"]),
    ],
    ids=str,
)
def test_patch_and_tubelet_embedding_with_wrong_arguments_raise(kind, arguments, words):
    arguments = {"hidden_dim": 8, **arguments}
    refused(lambda: kind(**arguments), kind.__name__, "Received: ", *words)


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "kind, shape, words",
    [
        (PatchEmbedding, (2, 15, 32, 3), ["shape=(2, 15, 32, 3)", "patch_size=(16, 16)"]),
        (PatchEmbedding, (2, 4, 32, 32, 3), ["(B, height, width, channels)", "(2, 4, 32, 32, 3)"]),
        (PatchEmbedding, (2, 32, 32, None), ["shape=(2, 32, 32, None)"]),
        (
            TubeletEmbedding,
            (2, 1, 32, 32, 3),
            ["shape=(2, 1, 32, 32, 3)", "patch_size=(2, 16, 16)"],
        ),
        (TubeletEmbedding, (2, 32, 32, 3), ["(B, frames, height, width, channels)"]),
    ],
    ids=str,
)
def test_patch_and_tubelet_embedding_with_wrong_shapes_raise(kind, shape, words):
    refused(lambda: kind(8).build(shape), kind.__name__, "Received: ", *words)
    refused(lambda: kind(8).compute_output_shape(shape), kind.__name__, "Received: ", *words)


@pytest.mark.once("torch")
@pytest.mark.parametrize("kind", [PatchEmbedding, TubeletEmbedding])
def test_patch_and_tubelet_embedding_with_channels_first_raise(kind):
    keras.config.set_image_data_format("channels_first")
    refused(lambda: kind(8), f"{kind.__name__}: ", "image_data_format='channels_first'")
