# %% [markdown]
# # Many devices, and TPUs
#
# The same script runs on one device, on eight, or on a slice of TPUs: `distribution.scope` says how
# the work is shared, and the model is built and trained inside. You need no accelerator to try: JAX
# makes eight devices out of one CPU. They share its cores, so that nothing gets faster; but one can
# see that all is shared as it should be, and that the results are the same.
#
# It needs `pip install "keras-tokenlearner[jax]"`.

# %%
import os

os.environ["KERAS_BACKEND"] = "jax"  # TensorFlow and PyTorch share work otherwise: see below
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import keras
import numpy as np

import keras_tokenlearner as kt
from keras_tokenlearner.data import Batches, load_fashion_mnist
from keras_tokenlearner.training import distribution

print(len(keras.distribution.list_devices()), "devices")

# %% [markdown]
# ## One script
#
# `batch_size` is that of all devices together, so that the same learning rate fits any number of
# them.

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
# The batches, the losses and the answers are those of one device, and the weights as well, but for
# the order in which floating point numbers were added:

# %%
for how, weights in (("data_parallel", shared), ("model_parallel:2", put_together)):
    apart = max(np.abs(a - b).max() for a, b in zip(alone, weights))
    print(f"{how:18} weights to {apart:.0e}")

# %% [markdown]
# ## Who has what
#
# Under `data_parallel` every device has the whole model and an eighth of each batch. Under
# `model_parallel:2` the attention heads and the hidden units of a block are divided over two
# devices, and the batch over four such pairs. What is small is on all of them:

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
# ## On real ones
#
# On a TPU VM, `pip install "jax[tpu]"`, and the script above without its first two lines. On the
# command line, which also resumes a run that was killed:
#
# ```bash
# KERAS_BACKEND=jax keras-tokenlearner train fashion_mnist --distribute data_parallel
# KERAS_BACKEND=jax keras-tokenlearner train fashion_mnist --distribute model_parallel:3
# KERAS_BACKEND=torch torchrun --nproc-per-node=8 -m keras_tokenlearner.cli \
#   train fashion_mnist --distribute data_parallel
# ```
#
# Several hosts, TensorFlow's strategies, and what of all this was run where:
# [on several devices](../docs/distribution.md).
