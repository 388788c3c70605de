# %% [markdown]
# # Fine-tune on a folder of your own images
#
# All it takes is a folder of folders: `train/CLASS/*.jpg` and `test/CLASS/*.jpg`, images of any
# size and shape. This notebook makes such a folder, so that it runs anywhere; put the path of yours
# in its place.
#
# It needs `pip install "keras-tokenlearner[jax,image,plot]"`, or another backend.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # or "tensorflow", or "torch"

from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import keras_tokenlearner as kt
from keras_tokenlearner.analysis import draw_token_maps, token_maps
from keras_tokenlearner.data import ImageBatches, load_fashion_mnist, open_named

# %matplotlib inline

keras.utils.set_random_seed(0)

# %% [markdown]
# ## A folder
#
# A wardrobe, to be sorted by pattern: plain, striped, checked or dotted, in any colour. The
# garments are photographs of Fashion-MNIST; the patterns are printed on them here.

# %%
PATTERNS = {
    "checked": lambda y, x: (y // 4 + x // 4) % 2,
    "dotted": lambda y, x: (y % 5 < 3) & (x % 5 < 3),
    "plain": lambda y, x: np.ones_like(y),
    "striped": lambda y, x: y // 3 % 2,
}


def write(path, garment, pattern, random):
    """Print a pattern on a grey photograph, and save it in colour, twice as large."""
    y, x = np.indices((28, 28)) + random.integers(12, size=(2, 1, 1))
    light = garment[..., 0] / 255 * np.where(PATTERNS[pattern](y, x), 1, 0.45)
    pixels = 255 * light[..., None] * random.uniform(0.5, 1, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype("uint8")).resize((56, 56), Image.Resampling.BICUBIC).save(path)


random = np.random.default_rng(0)
for split, (garments, kinds), count in zip(("train", "test"), load_fashion_mnist(), (60, 40)):
    garments = garments[np.isin(kinds, (0, 2, 3, 4, 8))]  # with room for a pattern
    for number in range(4 * count):
        pattern = list(PATTERNS)[number % 4]
        write(Path("wardrobe", split, pattern, f"{number}.jpg"), garments[number], pattern, random)

# %% [markdown]
# `open_named` lists the files, and `ImageBatches` reads them as they are needed: resized to the
# model, cut at random places, and the same for a seed. For the test images it takes the central
# part.

# %%
train, test = open_named("folder:wardrobe")
SHAPE = (28, 28, 1)
batches = ImageBatches(train, SHAPE, batch_size=40, crop=0.6)
test_batches = ImageBatches(test, SHAPE, batch_size=40, training=False)

figure, axes = plt.subplots(1, 8, figsize=(8, 1.2), layout="constrained", facecolor="#101218")
for place, axis in zip(range(8), axes):
    pixels, label = train[60 * (place % 4) + place // 4]
    axis.imshow(pixels)
    axis.set_title(train.class_names[label], color="white", fontsize=8)
    axis.axis("off")

# %% [markdown]
# ## A new head, then all of it
#
# The trained model knows garments, not patterns. Its features get a new head, which is fitted first
# while the rest stands still; then everything moves, slowly.

# %%
features = kt.create_model(
    "tokenlearner_nano4_8at2", weights="fashion_mnist", include_top=False, pooling="avg"
)
answers = keras.layers.Dense(4, activation="softmax", name="predictions")
model = keras.Model(features.input, answers(features.output), name="wardrobe")


def fit(model, learning_rate, epochs):
    optimizer = keras.optimizers.AdamW(learning_rate)
    model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"])
    model.fit(batches, epochs=epochs, shuffle=False, verbose=0)
    return model.evaluate(test_batches, verbose=0)[1]


features.trainable = False
print(f"a new head alone:        {fit(model, 1e-2, 8):.1%} of the test images")
features.trainable = True
print(f"then everything:         {fit(model, 5e-4, 12):.1%}")

# %% [markdown]
# Was it worth starting from trained weights? The same model from random ones, given the same passes
# over the images:

# %%
scratch = kt.create_model("tokenlearner_nano4_8at2", classes=4)
print(f"from random weights:     {fit(scratch, 5e-4, 20):.1%}")

# %% [markdown]
# ## Look, then keep it
#
# Where do its tokens look now? The model is still a graph with one `TokenLearner` in it, so that
# the pictures of the other notebooks work on it.

# %%
shown = np.stack([test_batches[number][0][3] for number in range(4)])  # one of each class
draw_token_maps(shown, token_maps(model, shown), test.class_names)

# %% [markdown]
# A `.keras` file holds it, for every backend. `predict` reads image files with it.

# %%
model.save("wardrobe.keras")
files = [f"wardrobe/test/{name}/{number}.jpg" for number, name in enumerate(test.class_names)]
for answer in kt.serving.predict("wardrobe.keras", files, top_k=1):
    best = answer["classes"][0]
    print(f"{answer['file']:32} {test.class_names[best['class']]:8} {best['probability']:.0%}")
