# %% [markdown]
# # Attention maps of learned tokens
#
# A TokenLearner pools an image into eight tokens. This notebook shows the weights of a trained
# model. It compares images, classes, tokens, and the frames of a moving object.
#
# Install it from a clone: `pip install -e ".[jax,plot]"`, or with another backend. Each figure is
# one call; `path=` saves it.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # or "tensorflow", or "torch"

import keras_tokenlearner as kt

print("keras_tokenlearner", kt.__version__)

import matplotlib.pyplot as plt
import numpy as np

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
# The maps have 7 x 7 positions, one per patch, and eight channels, one per token. This model ends
# each map in a softmax, so its weights sum to one. A token is the weighted mean of the patches.
#
# ## Single images
#
# The figure shows three tokens on three shoes and a bag. Token 7 is strong at the bottom, on the
# sole. Token 6 is strong at the upper edge. The maximum of token 8 varies.

# %%
chosen = [int(np.flatnonzero(labels == number)[7]) for number in (5, 7, 9, 8)]
names = [CLASS_NAMES[labels[place]] for place in chosen]
draw_token_maps(images[chosen], maps[chosen], names, tokens=[5, 6, 7])

# %% [markdown]
# ## Classes
#
# Averages over the 200 images of a class show the typical position of each token. Tokens 2, 4 and 6
# are strong at the top, tokens 3 and 7 in the middle and below. On trousers, nearly all follow the
# legs.

# %%
classes = (0, 1, 4, 7, 8)
mean_images = np.stack([images[labels == number].mean(0) for number in classes])
mean_maps = np.stack([maps[labels == number].mean(0) for number in classes])
draw_token_maps(mean_images, mean_maps, [CLASS_NAMES[number] for number in classes])

# %% [markdown]
# ## Overlap
#
# The mean of all maps shows which positions the model uses. The entropy over the tokens at a
# position shows how they share it. An entropy of 1 means all tokens weigh it equally, so fewer
# tokens would do. An entropy of 0 means one token uses it alone. It is high here: the tokens
# overlap.

# %%
draw_token_entropy(images[chosen], maps[chosen], names)

# %% [markdown]
# Tokens with overlapping maps can still differ. Their cosine similarity measures that: a pair near
# one is redundant.

# %%
similarity = token_similarity(model, images)
draw_token_similarity(similarity)

# %%
mean = similarity.mean(0)
pairs = sorted(((mean[a, b], a + 1, b + 1) for a in range(8) for b in range(a)), reverse=True)
for cosine, a, b in (pairs[0], pairs[-1]):
    print(f"tokens {b} and {a}: {cosine:.2f}")

# %% [markdown]
# ## Motion
#
# A sneaker falls through the image, one frame per step. A token that follows the object falls with
# it. A token that is tied to a position does not move.

# %%
sneaker = np.pad(images[chosen[1]], ((9, 9), (9, 9), (0, 0)))
steps = np.arange(-9, 10)


def frame(down=0, right=0):
    return sneaker[9 - down : 37 - down, 9 - right : 37 - right]


frames = np.stack([frame(down=step) for step in steps])
falling = token_maps(model, frames)
draw_token_maps(frames[::6], falling[::6], [f"frame {time}" for time in range(0, 19, 6)])

# %%
middles = 4 * np.arange(7) + 2  # centres of the rows of patches, in pixels
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
# The tokens fall with the sneaker. The next cell also moves it sideways. A slope of 1 means a token
# moves one pixel per pixel of motion.

# %%
print("token     ", *(f"{token:5}" for token in range(1, 9)))
for direction, over in (("down", "trcs,r->ts"), ("right", "trcs,c->ts")):
    moved = np.stack([frame(**{direction: step}) for step in steps])
    places = np.einsum(over, token_maps(model, moved), middles)
    print(f"{direction:10}", *(f"{speed:5.2f}" for speed in np.polyfit(steps, places, 1)[0]))

# %% [markdown]
# The tokens hardly follow sideways motion. The training images of shoes fill the full width, but
# their heights differ. The tokens learned to follow the variation in the training data only.

# %% [markdown]
# A video model has maps of shape (B, T, 7, 7, 8), and `token_maps` returns them too: see
# [videos](videos.ipynb).
