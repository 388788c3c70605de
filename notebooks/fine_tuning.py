# %% [markdown]
# # Fine-tune on your own images
#
# You need a folder of folders: `train/CLASS/*.jpg` and `test/CLASS/*.jpg`, with images of any size
# and aspect ratio. This notebook creates an example. Put your path in its place.
#
# Install it from a clone: `pip install -e ".[jax,image,plot]"`, or with another backend.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # or "tensorflow", or "torch"

import keras_tokenlearner as kt

print("keras_tokenlearner", kt.__version__)

from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from keras_tokenlearner.analysis import draw_token_maps, token_maps
from keras_tokenlearner.data import ImageBatches, load_fashion_mnist, open_named

# %matplotlib inline

keras.utils.set_random_seed(0)

# %% [markdown]
# ## Images
#
# The task is to sort garments by pattern: plain, striped, checked or dotted, in any colour. The
# garments are images of Fashion-MNIST. The patterns are added here.

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
    garments = garments[np.isin(kinds, (0, 2, 3, 4, 8))]  # garments with room for a pattern
    for number in range(4 * count):
        pattern = list(PATTERNS)[number % 4]
        write(Path("wardrobe", split, pattern, f"{number}.jpg"), garments[number], pattern, random)

# %% [markdown]
# `open_named` lists the files. `ImageBatches` reads them when needed, crops them at random and
# resizes them to the model. A seed repeats the crops. Test images are cropped in the centre.

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
# ## Train a new head, then the whole model
#
# The included model was trained to recognise garments, not patterns. A new head is trained first,
# on frozen features. Then the whole model is fine-tuned with a lower learning rate.

# %%
features = kt.create_model(
    "tokenlearner_nano4_8at2", weights="fashion_mnist", include_top=False, pooling="avg"
)
answers = keras.layers.Dense(4, activation="softmax", name="predictions")
model = keras.Model(features.input, answers(features.output), name="wardrobe")


def fit(model, learning_rate, epochs):
    optimizer = keras.optimizers.AdamW(learning_rate)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(batches, epochs=epochs, verbose=0)
    return model.evaluate(test_batches, verbose=0)[1]


features.trainable = False
print(f"top-1 accuracy, new head only:   {fit(model, 1e-2, 8):.1%}")
features.trainable = True
print(f"top-1 accuracy, whole model:     {fit(model, 5e-4, 12):.1%}")

# %% [markdown]
# The baseline is the same model from random weights, trained for the same number of epochs:

# %%
scratch = kt.create_model("tokenlearner_nano4_8at2", classes=4)
print(f"top-1 accuracy, random weights:  {fit(scratch, 5e-4, 20):.1%}")

# %% [markdown]
# ## Look at the attention maps and save
#
# The fine-tuned model still has one `TokenLearner`, so `token_maps` works on it.

# %%
shown = np.stack([test_batches[number][0][3] for number in range(4)])  # one of each class
draw_token_maps(shown, token_maps(model, shown), test.class_names)

# %% [markdown]
# A `.keras` file stores the model for every backend. `predict` classifies image files with it.

# %%
model.save("wardrobe.keras")
files = [f"wardrobe/test/{name}/{number}.jpg" for number, name in enumerate(test.class_names)]
for answer in kt.serving.predict("wardrobe.keras", files, top_k=1):
    best = answer["classes"][0]
    print(f"{answer['file']:32} {test.class_names[best['class']]:8} {best['probability']:.0%}")
