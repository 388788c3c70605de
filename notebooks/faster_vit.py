# %% [markdown]
# # Make a trained ViT faster
#
# `retrofit` puts a TokenLearner into the middle of a trained vision transformer. `distill` then
# trains the later blocks to reproduce the ViT's outputs from eight tokens. The earlier the tokens,
# the lower the cost.
#
# Install it from a clone: `pip install -e ".[jax]"`, or with another backend.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # or "tensorflow", or "torch"

import keras_tokenlearner as kt

print("keras_tokenlearner", kt.__version__)

import keras

from keras_tokenlearner.data import load_fashion_mnist
from keras_tokenlearner.evaluation import compare

keras.utils.set_random_seed(0)
(train_images, train_labels), (images, labels) = load_fashion_mnist()

# %% [markdown]
# ## The teacher
#
# Any plain ViT of this package works, also with weights of timm, DINOv2, Hugging Face, AugReg or
# KerasHub. For example, `kt.from_preset("hf://timm/vit_small_patch16_224.augreg_in21k_ft_in1k")`
# loads a model of timm.
#
# This notebook uses the small `vit_nano4`. To save training time, it copies the included weights of
# the TokenLearner model, layer by layer. A short fit adapts the later blocks to all 49 tokens.

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
print(f"top-1 accuracy: {before:.1%} with copied weights, {after:.1%} after a short fit")

# %% [markdown]
# ## The students
#
# The three students have eight tokens from block 1, 2 or 3 on. Each token starts as the average of
# one cell of a grid. The students are trained on 2,000 images for three epochs. The blocks before
# the TokenLearner stay frozen, so an epoch runs only the later blocks.

# %%
students = []
for at in (1, 2, 3):
    student = kt.retrofit(teacher, at=at, num_tokens=8)
    kt.distill(student, teacher, train_images[:2000], train_labels[:2000], epochs=3, verbose=0)
    students.append(student)

# %% [markdown]
# ## Cost, accuracy and speedup
#
# `compare` counts multiply-adds, computes top-1 accuracy, and measures the throughput of all models
# in turn. The speedup depends on this machine and its load. The other columns do not.

# %%
rows = compare([teacher, *students], images, labels, batch_size=200, repeats=3)
print(f"{'model':16}{'top-1':>8}{'MMACs':>8}{'of teacher':>12}{'speedup':>9}")
for row in rows:
    ratio = row["gmacs"] / rows[0]["gmacs"]
    speed = row["images_per_second"] / rows[0]["images_per_second"]
    numbers = f"{row['accuracy']:8.1%}{1e3 * row['gmacs']:8.1f}{ratio:12.0%}{speed:9.2f}"
    print(f"{row['model']:16}{numbers}")

# %% [markdown]
# One standard error of these accuracies is 0.6 points. With tokens after 2 or 3 blocks, the
# accuracy does not differ significantly from the teacher's. Tokens after 1 block cost least, and
# are less accurate here. Train your own ViT on all your images and for more epochs.
#
# [The retrofit study](../docs/retrofit.md) measures a DINOv2 ViT-S/14 on CIFAR-10. The fine-tuned
# teacher has a top-1 accuracy of 96.4%. The student with 16 tokens has 94.7%, at 60% of the
# multiply-adds. On the command line, for a `.keras` file:
#
# ```bash
# keras-tokenlearner distill vit.keras faster.keras --at 6 --data FOLDER
# ```
