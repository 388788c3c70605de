# %% [markdown]
# # Three backends, one file
#
# A model of this package belongs to no backend. It is trained on whichever is fastest where you
# train, saved to one `.keras` file, and answers the same from the other two.
#
# It needs `pip install "keras-tokenlearner[tensorflow,jax,torch]"`.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # or "tensorflow", or "torch"

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np

import keras_tokenlearner as kt
from keras_tokenlearner.data import load_fashion_mnist

keras.utils.set_random_seed(0)

# %% [markdown]
# ## Train here
#
# A little, so that the weights are nobody's but this notebook's.

# %%
(train_images, train_labels), (images, labels) = load_fashion_mnist()
model = kt.create_model("tokenlearner_nano4_8at2", weights="fashion_mnist")
model.compile(keras.optimizers.AdamW(1e-4), "sparse_categorical_crossentropy")
model.fit(train_images[:640], train_labels[:640], batch_size=64, verbose=0)
model.save("clothes.keras")
print(f"trained on {keras.backend.backend()}, {Path('clothes.keras').stat().st_size:,} bytes")

# %% [markdown]
# ## Answer elsewhere
#
# A process has one backend, so that the others get processes of their own. The program is the same
# for all of them; what differs is one variable of the environment.

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
# What is left are the roundings of float32.
#
# ## Or without Keras
#
# A SavedModel can be written from each of the three; TensorFlow alone, or a server, runs it:
# [export and serve](../docs/serving.md). Three things to mind when a model changes backends:
#
# * Load with `compile=False` and compile anew: the state of an optimizer does not always travel.
# * The same seed draws other numbers. Ship weights, not seeds.
# * A `.keras` file holds layers of this package by name: import it before you load.
