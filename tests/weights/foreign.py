"""Tiny models and their checkpoints, shared by the tests of all checkpoint sources."""

import keras
import numpy as np
import pytest

from keras_tokenlearner.models import (
    Preprocessing,
    VisionTransformer,
    VisionTransformerConfig,
)
from keras_tokenlearner.weights import SOURCES, load, plan_of
from keras_tokenlearner.weights.sources.source import NORMALIZATIONS

SIZES = {
    "hidden_dim": 32,
    "num_layers": 2,
    "num_heads": 2,
    "mlp_dim": 48,
    "patch_size": (8, 8),
}


def build(source, entries=None, image=(32, 32), include_top=True, normalization="half", **changes):
    """Return one of our models with the settings of a source, with random weights everywhere."""
    arguments = {"activation": "gelu", "layer_norm_epsilon": 1e-6} | SIZES
    recipe = SOURCES[source]
    if entries is None:
        arguments |= recipe.config
        mean, std = NORMALIZATIONS[recipe.normalization or normalization]
        preprocessing = Preprocessing(mean=mean, std=std)
    else:
        plan = plan_of(
            entries,
            source,
            normalization=None if recipe.normalization else normalization,
        )
        arguments |= plan.fields
        preprocessing = plan.preprocessing
    model = VisionTransformer(
        VisionTransformerConfig(**(arguments | changes)),
        input_shape=(*image, 3),
        classes=5,
        include_top=include_top,
        classifier_activation=None,
        preprocessing=preprocessing,
    )
    return randomise(model)


def randomise(model, seed=1):
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if "float" in weight.dtype:  # keras-hub stores position numbers as integers
            weight.assign(rng.normal(0, 0.2, weight.shape))
    return model


def fill(module, seed=0):
    """Fill a PyTorch module with random values, and return the module for inference."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.2, generator=generator)
    return module.eval()


def pixels(image=(32, 32), frames=()):
    shape = (2, *frames, *image, 3)
    return np.random.default_rng(2).integers(0, 256, shape).astype("float32")


def normalised(images, mean=0.5, std=0.5):
    """Return a PyTorch tensor (B, C, H, W) of pixels as a source normalises them."""
    import torch

    scaled = (images / 255 - np.asarray(mean)) / np.asarray(std)
    return torch.from_numpy(scaled.astype("float32").transpose(0, 3, 1, 2))


def outputs(model, inputs):
    return keras.ops.convert_to_numpy(model(inputs, training=False))


def close(one, other, tolerance=1e-5):
    """Assert that arrays are equal, with a tolerance relative to their largest number."""
    one, other = np.asarray(one), np.asarray(other)
    assert one.shape == other.shape
    scale = max(1.0, np.abs(other).max())
    difference = np.abs(one - other).max() / scale
    print(f"difference {difference:.1e}")
    assert difference < tolerance


def refused(message, model, *arguments, **options):
    """Assert that `load` raises a matching `ValueError` and leaves the weights unchanged."""
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        load(model, *arguments, **options)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def augreg_entries(seed=0, grid=(4, 4), class_token=True, classes=5, prefix=""):
    """Return a checkpoint with the names of the JAX ViT and the sizes in `SIZES`."""
    rng = np.random.default_rng(seed)
    channels, hidden, heads = SIZES["hidden_dim"], SIZES["mlp_dim"], SIZES["num_heads"]
    parts = (heads, channels // heads)
    shapes = {
        "embedding/kernel": (*SIZES["patch_size"], 3, channels),
        "embedding/bias": (channels,),
        "Transformer/posembed_input/pos_embedding": (1, int(class_token) + grid[0] * grid[1], 32),
        "Transformer/encoder_norm/scale": (channels,),
        "Transformer/encoder_norm/bias": (channels,),
        "head/kernel": (channels, classes),
        "head/bias": (classes,),
    }
    if class_token:
        shapes["cls"] = (1, 1, channels)
    for i in range(SIZES["num_layers"]):
        block, attention = f"Transformer/encoderblock_{i}", "MultiHeadDotProductAttention_1"
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            shapes[f"{block}/{norm}/scale"] = shapes[f"{block}/{norm}/bias"] = (channels,)
        for part in ("query", "key", "value"):
            shapes[f"{block}/{attention}/{part}/kernel"] = (channels, *parts)
            shapes[f"{block}/{attention}/{part}/bias"] = parts
        shapes[f"{block}/{attention}/out/kernel"] = (*parts, channels)
        shapes[f"{block}/{attention}/out/bias"] = (channels,)
        for dense, sizes in (("Dense_0", (channels, hidden)), ("Dense_1", (hidden, channels))):
            shapes[f"{block}/MlpBlock_3/{dense}/kernel"] = sizes
            shapes[f"{block}/MlpBlock_3/{dense}/bias"] = sizes[1:]
    return {
        f"{prefix}{name}": rng.normal(0, 0.2, shape).astype("float32")
        for name, shape in shapes.items()
    }
