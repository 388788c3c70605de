# %% [markdown]
# # Classify videos
#
# A single frame does not show a motion. In this notebook, a small model learns to distinguish four
# motions from video files. Each epoch decodes a few frames of a random clip. As in the paper,
# several views of each test video are averaged.
#
# Install it from a clone: `pip install -e ".[jax,video,plot]"`, or with another backend.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # or "tensorflow", or "torch"

import keras_tokenlearner as kt

print("keras_tokenlearner", kt.__version__)

from pathlib import Path

import av
import keras
import matplotlib.pyplot as plt
import numpy as np

from keras_tokenlearner.analysis import animate_clip_maps, draw_clip_maps, token_maps
from keras_tokenlearner.data import load_fashion_mnist, video
from keras_tokenlearner.evaluation import evaluate_videos, predict_videos

# %matplotlib inline

keras.utils.set_random_seed(0)

# %% [markdown]
# ## Files
#
# `train` and `test` hold one folder of videos per class. Put your path here instead. The example
# videos are two seconds long and show a garment that falls, rises, grows or shrinks. Training and
# test videos have different garments.

# %%
MOTIONS = {  # change from the first to the last frame: (rows, size)
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
        picture = np.full((80, 96, 3), 30, "uint8")  # with a border of 16, cropped below
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
# `VideoBatches` decodes only the frames of a clip, in threads. All frames of a clip get the same
# random crop, mirroring and brightness. A seed repeats them.

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
# The model is the smallest X(2+1)D with the paper's final module. Convolutions reduce the
# resolution first. Then a TokenLearner pools each frame, and attention mixes the tokens of all
# frames.

# %%
model.compile(keras.optimizers.AdamW(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
history = model.fit(batches, epochs=20, verbose=0)
for epoch, accuracy in enumerate(history.history["accuracy"], start=1):
    if epoch % 4 == 0:
        print(f"epoch {epoch:2}: training accuracy {accuracy:.0%}")

# %% [markdown]
# ## Test
#
# One clip can miss the motion. Evaluation therefore averages the logits of several views: clips at
# evenly spaced times, and crops along the longer side.

# %%
for clips, crops in ((1, 1), (4, 3)):
    row = evaluate_videos(model, test, clips=clips, crops=crops, batch_size=12, verbose=0)
    print(
        f"{clips} x {crops} views: top-1 accuracy {row['top1']:.0%} ({row['videos']} test videos)"
    )

# %%
logits, _ = predict_videos(model, test, batch_size=12, verbose=0)
answers = logits.argmax(-1)
print("true / predicted", *(f"{name:>8}" for name in test.class_names))
for label, name in enumerate(test.class_names):
    counts = np.bincount(answers[test.labels == label], minlength=4)
    print(f"{name:16}", *(f"{count:8}" for count in counts))

# %% [markdown]
# ## Attention maps over time
#
# Each frame has four tokens. `draw_clip_maps` draws their maps over a clip, one row per token.
# `animate_clip_maps` saves a GIF or an MP4.

# %%
seen = video.VideoBatches(test, model.input_shape[1:], batch_size=1, training=False)
clip = seen[0][0][0]
(maps,) = token_maps(model, clip[None])
animate_clip_maps(clip, maps, "maps.mp4")
draw_clip_maps(clip, maps)

# %% [markdown]
# The four tokens are nearly alike: each weighs most of every frame, and the lower corners less. A
# few minutes of training on 96 videos teach the motions, but not different tokens.
#
# Training clips are mirrored, so the model cannot distinguish left from right. Pass `flip=False`
# for classes that differ in direction.
#
# The same on the command line, where an interrupted run continues from its backup:
#
# ```bash
# keras-tokenlearner train videos --set data=videos --set epochs=20
# keras-tokenlearner evaluate trained/tokenlearner_x2plus1d_pico.keras --data videos
# ```
