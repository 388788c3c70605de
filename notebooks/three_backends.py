# %% [markdown]
# # Three backends, one file
#
# A model of this package runs on every backend. Train it on one backend, save one `.keras` file,
# and get the same outputs from the other two.
#
# Install it from a clone: `pip install -e ".[tensorflow,jax,torch]"`.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # or "tensorflow", or "torch"

import keras_tokenlearner as kt

print("keras_tokenlearner", kt.__version__)

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np

from keras_tokenlearner.data import load_fashion_mnist

keras.utils.set_random_seed(0)

# %% [markdown]
# ## Train
#
# A short fit changes the included weights.

# %%
(train_images, train_labels), (images, labels) = load_fashion_mnist()
model = kt.create_model("tokenlearner_nano4_8at2", weights="fashion_mnist")
model.compile(keras.optimizers.AdamW(1e-4), "sparse_categorical_crossentropy")
model.fit(train_images[:640], train_labels[:640], batch_size=64, verbose=0)
model.save("clothes.keras")
print(f"trained on {keras.backend.backend()}, {Path('clothes.keras').stat().st_size:,} bytes")

# %% [markdown]
# ## Compare the outputs
#
# A process has one backend, so each backend gets its own process. All run the same program with a
# different `KERAS_BACKEND`.

# %%
PROGRAM = """
import keras
import numpy as np

import keras_tokenlearner

model = keras.saving.load_model("clothes.keras", compile=False)
answers = model.predict(np.load("images.npy"), batch_size=100, verbose=0)
np.save(f"{keras.backend.backend()}.npy", answers)
"""
np.save("images.npy", images[:300])
answers = {}
for backend in ("tensorflow", "jax", "torch"):
    environment = {**os.environ, "KERAS_BACKEND": backend}
    subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=True)
    answers[backend] = np.load(f"{backend}.npy")

# %%
here = model.predict(images[:300], batch_size=100, verbose=0)
for backend, there in answers.items():
    same = np.mean(here.argmax(-1) == there.argmax(-1))
    apart = np.abs(here - there).max()
    print(f"{backend:12} {same:.0%} of the answers are the same, probabilities to {apart:.0e}")

# %% [markdown]
# The remaining differences are float32 rounding.
#
# ## Without Keras
#
# Every backend can export a SavedModel, which runs in TensorFlow or a server:
# [serving](../docs/serving.md). Three notes on changing the backend:
#
# * Load with `compile=False` and compile again. Optimizer states are not always portable.
# * A seed gives other random numbers. Share weights, not seeds.
# * A `.keras` file refers to this package's layers. Import the package before you load it.
