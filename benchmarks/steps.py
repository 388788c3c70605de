"""One step of a model, as Keras compiles it: `predict` or `fit` on one batch in memory."""

import numpy as np

# Cost of a step in forward passes: a backward pass costs two forward passes.
PASSES = {"inference": 1, "training": 3}
STEPS = tuple(PASSES)
# The sizes of a ViT-S, for video models that a laptop can run.
SMALL = {"hidden_dim": 384, "num_layers": 12, "num_heads": 6, "mlp_dim": 1536}


def random_batch(model, batch_size):
    """Return pixels and labels for a classifier."""
    random = np.random.default_rng(0)
    shape = (batch_size, *model.input_shape[1:])
    pixels = random.integers(0, 256, shape).astype("float32")
    return pixels, random.integers(0, model.output_shape[-1], batch_size)


def step_of(model, kind, batch_size):
    """Return a function that runs one step and waits for its end.

    Args:
        model: A classifier.
        kind: `"inference"` or `"training"`: forward, backward and AdamW.
        batch_size: Integer, examples in a batch.
    """
    import keras

    pixels, labels = random_batch(model, batch_size)
    pixels, labels = map(keras.ops.convert_to_tensor, (pixels, labels))
    if kind == "inference":
        return lambda: model.predict_on_batch(pixels)
    model.compile(keras.optimizers.AdamW(1e-5), "sparse_categorical_crossentropy")
    return lambda: model.train_on_batch(pixels, labels)
