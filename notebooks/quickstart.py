# %% [markdown]
# # Quickstart
#
# A vision transformer cuts a picture into patches and carries every one of them through all of its
# layers, the sky as patiently as the bird. **TokenLearner** looks at the patches once, pools them
# into a handful of learned tokens, and carries on with those alone: about half the work.
#
# Here a trained one is scored, looked into, taught something new, and exported. Images and weights
# ship with the package, so that nothing is downloaded. It needs `pip install
# "keras-tokenlearner[tensorflow,plot]"`.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # or "jax", or "torch"

import keras
import numpy as np

import keras_tokenlearner as kt
from keras_tokenlearner.analysis import catalog_costs, costs, draw_token_maps, token_maps
from keras_tokenlearner.data import load_fashion_mnist
from keras_tokenlearner.data.fashion_mnist import CLASS_NAMES

# %matplotlib inline

keras.utils.set_random_seed(0)

# %% [markdown]
# ## A trained model by its name
#
# Names read as in the paper: `nano4` is a small transformer on patches of 4 x 4 pixels, `8at2` says
# that it learns 8 tokens after block 2. Its plain twin, `vit_nano4`, keeps all 49 to the end.

# %%
model = kt.create_model("tokenlearner_nano4_8at2", weights="fashion_mnist")
twin = catalog_costs("vit_nano4", classes=10)
cost = costs(model)
print(
    f"million multiply-adds an image: {cost.macs / 1e6:.1f}, and {twin.macs / 1e6:.1f} of its twin"
)
print(f"million weights: {cost.params / 1e6:.2f}, and {twin.params / 1e6:.2f} of its twin")

# %% [markdown]
# It is a plain `keras.Model`: it takes pixels from 0 to 255, and `compile`, `fit`, `evaluate` and
# `save` are those of Keras. The test images below it has never seen.

# %%
(train_images, train_labels), (images, labels) = load_fashion_mnist()
model.compile(keras.optimizers.AdamW(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
accuracy = model.evaluate(images, labels, batch_size=200, verbose=0)[1]
print(f"right on {accuracy:.1%} of {len(images):,} photographs")

# %% [markdown]
# ## What its tokens look at
#
# Each token is a weighted mean of the picture, and the weights are a map that can be drawn. Bright
# is what a token takes in; the last column paints every place in the colour of its strongest token.
# Nobody told them to, but they have shared out the clothes: the sixth watches the neck, the seventh
# the lower half, the eighth the edges. Some overlap: [a closer look](tokens.ipynb).

# %%
chosen = [int(np.flatnonzero(labels == number)[3]) for number in (0, 1, 3, 5, 8)]
names = [CLASS_NAMES[labels[place]] for place in chosen]
draw_token_maps(images[chosen], token_maps(model, images[chosen]), names)

# %% [markdown]
# ## Teach it something new
#
# Lay the photographs on their side and the model is lost. One pass over 3,000 of them brings most
# of it back.

# %%
turned_train = np.rot90(train_images[:3000], axes=(1, 2))
turned = np.rot90(images, axes=(1, 2))
before = model.evaluate(turned, labels, batch_size=200, verbose=0)[1]
model.fit(turned_train, train_labels[:3000], batch_size=64, verbose=0)
after = model.evaluate(turned, labels, batch_size=200, verbose=0)[1]
print(f"on their side, right on {before:.1%} before and on {after:.1%} after")

# %% [markdown]
# ## Hand it over
#
# `export` writes a SavedModel that takes what clients have: image files, or pixels of any size.
# Decoding and resizing are inside; whoever runs it needs neither Keras nor this package.

# %%
import tensorflow as tf

tf.get_logger().setLevel("ERROR")
folder = kt.export(model, "served", class_names=CLASS_NAMES)
served = tf.saved_model.load(str(folder))
larger = turned[:4].repeat(3, axis=1).repeat(3, axis=2)  # 84 x 84 pixels
answers = served.images(tf.constant(np.ascontiguousarray(larger)))
for label, name, share in zip(
    labels, answers["top_class_names"].numpy()[:, 0], answers["top_probabilities"].numpy()[:, 0]
):
    print(f"{CLASS_NAMES[label]:12} is called {name.decode():12} with {share:.0%}")

# %% [markdown]
# ## Where next
#
# [Your own images](fine_tuning.ipynb) ·
# [a closer look at the tokens](tokens.ipynb) ·
# [a faster ViT out of the one that you have](faster_vit.ipynb) ·
# [videos](videos.ipynb)
