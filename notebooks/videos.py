# %% [markdown]
# # Classify videos, from mp4 files
#
# What happens in a video is in no single frame of it. Here a small model learns to tell four
# motions apart, from files on disk: decoded sparsely, a clip at a random moment in every epoch, and
# scored on several views of each test video, as the paper does.
#
# It needs `pip install "keras-tokenlearner[jax,video,plot]"`, or another backend.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # or "tensorflow", or "torch"

from pathlib import Path

import av
import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_tokenlearner as kt
from keras_tokenlearner.analysis import animate_clip_maps, draw_clip_maps, token_maps
from keras_tokenlearner.data import load_fashion_mnist, video
from keras_tokenlearner.evaluation import evaluate_videos, predict_videos

# %matplotlib inline

keras.utils.set_random_seed(0)

# %% [markdown]
# ## Files
#
# A folder of videos for each class, in `train` and in `test`; put the path of yours here. These are
# two seconds long, and show a garment that falls, rises, grows or shrinks. Garments of the test
# videos are in none of the training videos, and any frame could be of any class.

# %%
MOTIONS = {  # what changes from the first to the last frame: (rows, size)
    "fall": (1, 0),
    "grow": (0, 1),
    "rise": (-1, 0),
    "shrink": (0, -1),
}


def frames(garment, motion, random):
    """Yield 24 pictures of 48 x 64 pixels."""
    rows, size = MOTIONS[motion]
    column = random.integers(4, 28)
    for time in np.linspace(-1, 1, 24):
        side = round(24 + 10 * size * time)
        small = np.linspace(0, 27, side).round().astype(int)
        top, left = 24 + round(12 * rows * time) - side // 2, column + 14 - side // 2
        picture = np.full((80, 96, 3), 30, "uint8")  # with a border of 16, cut off below
        picture[16 + top : 16 + top + side, 16 + left : 16 + left + side] = garment[small][:, small]
        yield picture[16:64, 16:80]


def write(path, pictures):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=12)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.bit_rate = 1_000_000
        for picture in pictures:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())


random = np.random.default_rng(0)
for split, (garments, _), count in zip(("train", "test"), load_fashion_mnist(), (24, 10)):
    for number in range(4 * count):
        motion = list(MOTIONS)[number % 4]
        path = Path("videos", split, motion, f"{number}.mp4")
        write(path, frames(garments[number], motion, random))

train, test = video.open_videos("videos")
print(len(train), "and", len(test), "videos;", video.probe(train.files[0]))

# %% [markdown]
# ## Clips
#
# `VideoBatches` decodes the frames that a clip needs and no others, in threads, and varies all
# frames of a clip alike: cut out, mirrored, brighter or darker. For a seed they are always the
# same.

# %%
model = kt.create_model("tokenlearner_x2plus1d_pico", classes=4)
batches = video.VideoBatches(train, model.input_shape[1:], batch_size=8)
clips, labels = batches[0]
print(clips.shape)

figure, axes = plt.subplots(4, 8, figsize=(7, 3.8), layout="constrained", facecolor="#101218")
for label, row in enumerate(axes):
    for axis, picture in zip(row, clips[list(labels).index(label)]):
        axis.imshow(picture / 255)
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(train.class_names[label], color="white", fontsize=9)

# %% [markdown]
# ## Train
#
# The model is X(2+1)D with the paper's final module, in its smallest size: convolutions, and where
# the pictures have become small, a TokenLearner in each frame and attention over all frames'
# tokens.

# %%
model.compile(keras.optimizers.AdamW(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
history = model.fit(batches, epochs=20, shuffle=False, verbose=0)
for epoch, accuracy in enumerate(history.history["accuracy"], start=1):
    if epoch % 4 == 0:
        print(f"epoch {epoch:2}: right on {accuracy:.0%} of the training clips")

# %% [markdown]
# ## Test
#
# One clip may miss what matters. So every test video is seen in several views, and their logits are
# averaged: clips at even places in time, crops along the longer side.

# %%
for clips, crops in ((1, 1), (4, 3)):
    row = evaluate_videos(model, test, clips=clips, crops=crops, batch_size=12, verbose=0)
    print(f"{clips} x {crops} views: right on {row['top1']:.0%} of {row['videos']} test videos")

# %%
logits, _ = predict_videos(model, test, batch_size=12, verbose=0)
answers = logits.argmax(-1)
print("is / called", *(f"{name:>8}" for name in test.class_names))
for label, name in enumerate(test.class_names):
    counts = np.bincount(answers[test.labels == label], minlength=4)
    print(f"{name:11}", *(f"{count:8}" for count in counts))

# %% [markdown]
# ## Look at its tokens over time
#
# Each frame has four tokens of its own. `draw_clip_maps` lays their maps over a clip, a row a
# token; `animate_clip_maps` saves the same in motion, as a GIF or an MP4.

# %%
seen = video.VideoBatches(test, model.input_shape[1:], batch_size=1, training=False)
clip = seen[0][0][0]
(maps,) = token_maps(model, clip[None])
animate_clip_maps(clip, maps, "maps.mp4")
draw_clip_maps(clip, maps)

# %% [markdown]
# They are hardly tokens of their own yet: all four take in most of every frame, the first and the
# last less than those between. A few minutes with 96 videos teach the motions, not how to share a
# frame out.
#
# Training clips are mirrored: "to the left" and "to the right" would be one class to this model, so
# none of the motions here is. For such classes pass `flip=False`.
#
# The same on the command line, with a backup that a killed run goes on from:
#
# ```bash
# keras-tokenlearner train videos --set source=videos --set epochs=20
# keras-tokenlearner evaluate tokenlearner_x2plus1d_pico --data videos \
#   --weights trained/tokenlearner_x2plus1d_pico.weights.h5
# ```
