"""The teacher of `benchmarks.retrofit_ablation`: a DINOv2 ViT-S/14 with four registers."""

from pathlib import Path

import keras
import numpy as np

from keras_tokenlearner._json import JSON
from keras_tokenlearner.evaluation import linear_probe
from keras_tokenlearner.models import Preprocessing, VisionTransformer, VisionTransformerConfig
from keras_tokenlearner.training.remember import remember
from keras_tokenlearner.weights import plan_of


def dinov2_small(
    input_shape: tuple[int, int, int],
    preprocessing: Preprocessing | None = None,
    classes: int = 10,
    **settings: JSON,
) -> VisionTransformer:
    """Return the plain ViT-S/14 with random weights. `settings` are fields of its config."""
    config = VisionTransformerConfig(
        hidden_dim=384, num_layers=12, num_heads=6, patch_size=(14, 14), **settings
    )
    return VisionTransformer(
        config,
        input_shape=input_shape,
        classes=classes,
        preprocessing=preprocessing,
        name="dinov2_s14",
    )


def fitted_teacher(
    checkpoint: str, images: np.ndarray, labels: np.ndarray, cache: Path
) -> VisionTransformer:
    """Return the ViT of a checkpoint, with a linear head fitted by `linear_probe`."""
    plan = plan_of(checkpoint, "dinov2")
    classes = int(labels.max()) + 1
    model = dinov2_small(images.shape[1:], plan.preprocessing, classes, **plan.fields)
    plan.load(model, head="drop")
    before_head = keras.Model(model.input, model.get_layer("head").input)
    features = remember(before_head, images, "float32", cache=cache)
    inputs = keras.Input(features.shape[1:])
    probe = linear_probe(keras.Model(inputs, keras.layers.Identity()(inputs)), features, labels)
    model.get_layer("head").set_weights(probe.get_layer("head").get_weights())
    return model
