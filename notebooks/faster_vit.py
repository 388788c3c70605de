# %% [markdown]
# # Make your ViT faster
#
# You have a vision transformer, trained, and it is too slow. `retrofit` fits a TokenLearner into
# the middle of it, and `distill` teaches the blocks behind to answer as before, on eight tokens
# instead of all of them. How early the tokens come in is the price you choose.
#
# It needs `pip install "keras-tokenlearner[jax,plot,distill]"`, or another backend.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # or "tensorflow", or "torch"

import keras

import keras_tokenlearner as kt
from keras_tokenlearner.analysis import draw_costs
from keras_tokenlearner.data import load_fashion_mnist
from keras_tokenlearner.evaluation import compare

# %matplotlib inline

keras.utils.set_random_seed(0)
(train_images, train_labels), (images, labels) = load_fashion_mnist()

# %% [markdown]
# ## Yours
#
# Any plain ViT of this package will do, and with it the weights of timm, DINOv2, Hugging Face,
# AugReg and keras-hub, which `keras_tokenlearner.weights.load` reads. Here stands a small one,
# `vit_nano4`. To have it trained in no time, we give it the weights that ship for its twin with
# learned tokens: layer by layer they are of the same shapes. It never met 49 tokens behind block 2,
# and yet:

# %%
twin = kt.create_model("tokenlearner_nano4_8at2", weights="fashion_mnist")
teacher = kt.create_model("vit_nano4", classes=10)
for layer in teacher.layers:
    layer.set_weights(twin.get_layer(layer.name).get_weights())
teacher.compile(
    keras.optimizers.AdamW(2e-4), "sparse_categorical_crossentropy", metrics=["accuracy"]
)
before = teacher.evaluate(images, labels, batch_size=200, verbose=0)[1]
teacher.fit(train_images[:1000], train_labels[:1000], batch_size=50, verbose=0)
after = teacher.evaluate(images, labels, batch_size=200, verbose=0)[1]
print(f"right on {before:.1%} of the test images, and on {after:.1%} after a short fit")

# %% [markdown]
# ## Faster
#
# Three students, with eight tokens from block 1, 2 or 3 on. A few hundred images tell where the
# tokens should start; 2,000, three times over, are what they learn from. The blocks before the
# TokenLearner are the teacher's and stay as they are, so that an epoch costs the upper part alone.

# %%
students = []
for at in (1, 2, 3):
    student = kt.retrofit(teacher, at=at, num_tokens=8, images=train_images[:300])
    kt.distill(student, teacher, train_images[:2000], train_labels[:2000], epochs=3, verbose=0)
    students.append(student)

# %% [markdown]
# ## What it costs, and what is left
#
# `compare` counts multiply-adds, scores the test images, and times the models in turns on this
# machine. Speed is the machine's, and how much else it has to do: the one that made this page was
# busy. The other columns are the models' own.

# %%
rows = compare([teacher, *students], images, labels, batch_size=200, repeats=3)
print(f"{'model':16}{'right':>8}{'M multiply-adds':>17}{'of the teacher':>16}{'speed':>8}")
for row in rows:
    ratio = row["gmacs"] / rows[0]["gmacs"]
    speed = row["images_per_second"] / rows[0]["images_per_second"]
    numbers = f"{row['accuracy']:8.1%}{1e3 * row['gmacs']:17.1f}{ratio:16.0%}{speed:7.1f}x"
    print(f"{row['model']:16}{numbers}")

# %%
draw_costs(rows)

# %% [markdown]
# Mind the scale: on 2,000 test images, half a point more or less is chance. What is not chance is
# the cost. These were three short passes over 2,000 small images; a large ViT on large images has
# more to lose and more to win, and wants all of your images and more epochs.
#
# The same on the command line, for a `.keras` file of yours:
#
# ```bash
# keras-tokenlearner distill yours.keras faster.keras --at 6 --data folder:FOLDER
# ```
