# %% [markdown]
# # Several devices and TPUs
#
# One script runs on one device, on eight, or on a slice of TPUs. `distribution.scope` selects how
# devices share the work. You need no accelerator here: JAX simulates eight devices on one CPU. They
# share its cores, so there is no speedup. The results show how the work is divided.
#
# Install it from a clone: `pip install -e ".[jax]"`. TensorFlow and PyTorch use other commands: see
# the end.

# %%
import os

os.environ["KERAS_BACKEND"] = "jax"  # only JAX simulates devices
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import keras_tokenlearner as kt

print("keras_tokenlearner", kt.__version__)

import keras
import numpy as np

from keras_tokenlearner.data import Batches, load_fashion_mnist
from keras_tokenlearner.training import distribution

print(len(keras.distribution.list_devices()), "devices")

# %% [markdown]
# ## One script
#
# `batch_size` counts the images on all devices together. The same learning rate therefore fits any
# number of devices.

# %%
(images, labels), (test_images, test_labels) = load_fashion_mnist()
border = ((0, 0), (2, 2), (2, 2), (0, 0))  # to 32 x 32
train = np.pad(images[:1024], border), labels[:1024]
test = np.pad(test_images[:800], border), test_labels[:800]


def run(how):
    keras.utils.set_random_seed(0)
    batches = Batches(train, batch_size=64)
    with distribution.scope(how) as devices:
        model = kt.create_model("tokenlearner_pico8_4at1", classes=10, input_shape=(32, 32, 1))
        model.compile(
            keras.optimizers.AdamW(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        history = devices.fit(model, batches, epochs=3, verbose=0)
        results = devices.evaluate(model, test)
        print(f"{how:18} loss {history.history['loss'][-1]:.5f}, test {results['accuracy']:.2%}")
        return model, devices.weights(model)


_, alone = run("one_device")
_, shared = run("data_parallel")
divided, put_together = run("model_parallel:2")

# %% [markdown]
# Batches, losses and outputs equal the single-device run. Weights differ only by the order of
# floating point additions:

# %%
for how, weights in (("data_parallel", shared), ("model_parallel:2", put_together)):
    apart = max(np.abs(a - b).max() for a, b in zip(alone, weights))
    print(f"{how:18} weights to {apart:.0e}")

# %% [markdown]
# ## Placement
#
# `data_parallel` puts the whole model on every device, with an eighth of each batch.
# `model_parallel:2` divides the attention heads and the hidden units of a block over two devices.
# It divides the batch over four such pairs. Small weights are on all devices:

# %%
print(f"{'weight':44}{'whole':>16}{'on a device':>16}")
for weight in divided.weights:
    if (
        "block_0" in weight.path
        and "kernel" in weight.path
        or "token_learner/conv_0" in weight.path
    ):
        part = weight.value.sharding.shard_shape(weight.value.shape)
        print(f"{weight.path:44}{str(tuple(weight.shape)):>16}{str(part):>16}")

# %% [markdown]
# ## Real devices
#
# On a TPU VM, run `pip install "jax[tpu]"`, and this script without the line that sets `XLA_FLAGS`.
# The commands need the extra `cli`. They also resume an interrupted run:
#
# ```bash
# KERAS_BACKEND=jax keras-tokenlearner train fashion_mnist --distribute data_parallel
# KERAS_BACKEND=torch torchrun --nproc-per-node=8 -m keras_tokenlearner.cli \
#   train fashion_mnist --distribute data_parallel
# ```
#
# [Several devices](../docs/distribution.md) covers several hosts, TensorFlow's strategies and the
# tested configurations.
