# %% [markdown]
# # Quickstart
#
# A vision transformer cuts an image into patches and processes every patch in every block.
# **TokenLearner** pools the patches once into a few learned tokens. The later blocks process these
# tokens only, which halves the compute.
#
# This notebook scores a trained model, draws its attention maps, fine-tunes it and exports it.
# Images and weights are part of the package, so nothing is downloaded.
#
# Install it from a clone: `pip install -e ".[jax,tensorflow,plot]"`. The export needs TensorFlow on
# every backend.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # or "tensorflow", or "torch"

import keras_tokenlearner as kt

print("keras_tokenlearner", kt.__version__)

import keras
import numpy as np

from keras_tokenlearner.analysis import catalog_costs, costs, draw_token_maps, token_maps
from keras_tokenlearner.data import load_fashion_mnist
from keras_tokenlearner.data.fashion_mnist import CLASS_NAMES

# %matplotlib inline

keras.utils.set_random_seed(0)

# %% [markdown]
# ## A trained model by name
#
# `nano4` is a small transformer on patches of 4 x 4 pixels. `8at2` means 8 learned tokens after
# block 2. The plain model `vit_nano4` keeps all 49 tokens to the end.

# %%
model = kt.create_model("tokenlearner_nano4_8at2", weights="fashion_mnist")
plain = catalog_costs("vit_nano4", classes=10)
cost = costs(model)
print(f"multiply-adds per image: {cost.macs / 1e6:.1f} M, plain: {plain.macs / 1e6:.1f} M")
print(f"parameters: {cost.params / 1e6:.2f} M, plain: {plain.params / 1e6:.2f} M")

# %% [markdown]
# The model is an ordinary `keras.Model` with `compile`, `fit`, `evaluate` and `save`. It takes
# pixels from 0 to 255. It was not trained on the test images below.

# %%
(train_images, train_labels), (images, labels) = load_fashion_mnist()
model.compile(keras.optimizers.AdamW(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
accuracy = model.evaluate(images, labels, batch_size=200, verbose=0)[1]
print(f"top-1 accuracy: {accuracy:.1%} of {len(images):,} test images")

# %% [markdown]
# ## Attention maps
#
# Each token is a weighted mean of the image, and its weights form a map. Bright means a high
# weight. The last column shows the strongest token at each position.
#
# The tokens specialise without supervision. Token 6 is strongest at the neck, token 7 in the lower
# half, token 8 at the edges. Some maps overlap: see [attention maps](tokens.ipynb).

# %%
chosen = [int(np.flatnonzero(labels == number)[3]) for number in (0, 1, 3, 5, 8)]
names = [CLASS_NAMES[labels[place]] for place in chosen]
draw_token_maps(images[chosen], token_maps(model, images[chosen]), names)

# %% [markdown]
# ## Fine-tune
#
# Rotated images lower the accuracy. One epoch on 3,000 rotated images restores most of it.

# %%
rotated_train = np.rot90(train_images[:3000], axes=(1, 2))
rotated = np.rot90(images, axes=(1, 2))
before = model.evaluate(rotated, labels, batch_size=200, verbose=0)[1]
model.fit(rotated_train, train_labels[:3000], batch_size=64, verbose=0)
after = model.evaluate(rotated, labels, batch_size=200, verbose=0)[1]
print(f"top-1 accuracy on rotated images: {before:.1%}, after fine-tuning: {after:.1%}")

# %% [markdown]
# ## Export
#
# `export` writes a SavedModel that takes image files, or pixels of any size. It decodes and resizes
# them itself. Running it needs neither Keras nor this package.

# %%
import tensorflow as tf

tf.get_logger().setLevel("ERROR")
folder = kt.export(model, "served", class_names=CLASS_NAMES)
served = tf.saved_model.load(str(folder))
larger = rotated[:4].repeat(3, axis=1).repeat(3, axis=2)  # 84 x 84 pixels
answers = served.images(tf.constant(np.ascontiguousarray(larger)))
for label, name, share in zip(
    labels, answers["top_class_names"].numpy()[:, 0], answers["top_probabilities"].numpy()[:, 0]
):
    print(f"{CLASS_NAMES[label]:12} predicted: {name.decode():12} {share:.0%}")

# %% [markdown]
# ## Next steps
#
# * [Fine-tune on your own images](fine_tuning.ipynb)
# * [Attention maps](tokens.ipynb)
# * [Make a trained ViT faster](faster_vit.ipynb)
# * [Videos](videos.ipynb)
