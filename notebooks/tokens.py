# %% [markdown]
# # Look at the tokens
#
# A TokenLearner answers one question of a picture: which eight summaries of it are worth keeping?
# Here we watch a trained one decide: for single pictures, for whole classes, for the tokens among
# themselves, and while a thing moves.
#
# It needs `pip install "keras-tokenlearner[jax,plot]"`, or another backend. Every figure below is
# one call; with `path=` it is saved as well.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # or "tensorflow", or "torch"

import matplotlib.pyplot as plt
import numpy as np

import keras_tokenlearner as kt
from keras_tokenlearner.analysis import (
    draw_token_entropy,
    draw_token_maps,
    draw_token_similarity,
    token_maps,
    token_similarity,
)
from keras_tokenlearner.data import load_fashion_mnist
from keras_tokenlearner.data.fashion_mnist import CLASS_NAMES

# %matplotlib inline

model = kt.create_model("tokenlearner_nano4_8at2", weights="fashion_mnist")
_, (images, labels) = load_fashion_mnist()
maps = token_maps(model, images)
print(f"{len(images)} images of 28 x 28 pixels, maps of shape {maps.shape}")

# %% [markdown]
# The maps are 7 x 7, a weight for every patch, and eight deep, one for every token. This model's
# maps end in a softmax: each sums to one, and its token is the mean of the patches under those
# weights.
#
# ## Picture by picture
#
# Three of the tokens over three shoes and a bag. Token 7 lies low, on the sole and the bottom of
# the bag; token 6 keeps to the upper edge, where a foot or a hand goes in; token 8 wanders.

# %%
chosen = [int(np.flatnonzero(labels == number)[7]) for number in (5, 7, 9, 8)]
names = [CLASS_NAMES[labels[place]] for place in chosen]
draw_token_maps(images[chosen], maps[chosen], names, tokens=[5, 6, 7])

# %% [markdown]
# ## Class by class
#
# A token is no part of a garment: it is a habit. Averaged over all 200 images of a class the habits
# come out. Tokens 2, 4 and 6 stay at the top, 3 and 7 in the middle and below, and for trousers
# nearly all of them go down the leg.

# %%
classes = (0, 1, 4, 7, 8)
mean_images = np.stack([images[labels == number].mean(0) for number in classes])
mean_maps = np.stack([maps[labels == number].mean(0) for number in classes])
draw_token_maps(mean_images, mean_maps, [CLASS_NAMES[number] for number in classes])

# %% [markdown]
# ## Where they agree
#
# All maps together tell what the model takes in at all. The entropy of the tokens at a place tells
# who takes it: 1 where all of them look alike, so that fewer would have done, and 0 where one looks
# alone. It stays high: these tokens share more than they divide.

# %%
draw_token_entropy(images[chosen], maps[chosen], names)

# %% [markdown]
# Maps may overlap and the tokens still differ, or not. The cosine between the tokens themselves is
# the test: a pair near one is one token paid for twice.

# %%
similarity = token_similarity(model, images)
draw_token_similarity(similarity)

# %%
mean = similarity.mean(0)
pairs = sorted(((mean[a, b], a + 1, b + 1) for a in range(8) for b in range(a)), reverse=True)
for cosine, a, b in (pairs[0], pairs[-1]):
    print(f"tokens {b} and {a}: {cosine:.2f}")

# %% [markdown]
# ## While a thing moves
#
# Let a sneaker fall through the picture, and ask frame by frame. A token that follows the thing
# falls with it; one that guards a place stays.

# %%
sneaker = np.pad(images[chosen[1]], ((9, 9), (9, 9), (0, 0)))
steps = np.arange(-9, 10)


def frame(down=0, right=0):
    return sneaker[9 - down : 37 - down, 9 - right : 37 - right]


frames = np.stack([frame(down=step) for step in steps])
falling = token_maps(model, frames)
draw_token_maps(frames[::6], falling[::6], [f"frame {time}" for time in range(0, 19, 6)])

# %%
middles = 4 * np.arange(7) + 2  # of the rows of patches, in pixels
heights = np.einsum("trcs,r->ts", falling, middles)
figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained", facecolor="#101218")
axis.plot(steps + np.nonzero(frame())[0].mean(), color="#9098a8", linewidth=5, label="sneaker")
for token, line in enumerate(heights.T):
    axis.plot(line, color=plt.cm.hsv(token / 8), linewidth=1.2, label=f"token {token + 1}")
axis.set_xlabel("frame", color="white")
axis.set_ylabel("pixels from the top", color="white")
axis.legend(ncols=3, fontsize=7, labelcolor="white", facecolor="#101218")
axis.set_facecolor("#101218")
axis.tick_params(colors="white")
axis.invert_yaxis()

# %% [markdown]
# They fall with it. Now push it sideways instead; a pixel for every pixel of the sneaker would be
# 1.

# %%
print("token     ", *(f"{token:5}" for token in range(1, 9)))
for direction, over in (("down", "trcs,r->ts"), ("right", "trcs,c->ts")):
    moved = np.stack([frame(**{direction: step}) for step in steps])
    places = np.einsum(over, token_maps(model, moved), middles)
    print(f"{direction:10}", *(f"{speed:5.2f}" for speed in np.polyfit(steps, places, 1)[0]))

# %% [markdown]
# Sideways they hardly follow. All the shoes that it was trained on fill the picture from left to
# right, but they stand higher or lower: what never varied, the tokens never learned to look for.

# %% [markdown]
# A model of videos has its own maps, (B, T, 7, 7, 8), and `token_maps` gives those just the same:
# [videos](videos.ipynb).
