"""A small video model, on a folder of videos."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from keras_tokenlearner.applications import CATALOG, create_model
from keras_tokenlearner.data import video
from keras_tokenlearner.training.optimizers import adamw


@dataclass(frozen=True)
class VideosRecipe:
    """AdamW for a video model on labelled video files.

    Command: `keras-tokenlearner train videos --set source=FOLDER`. It needs the extra `video`, and
    folders `train` and `test` in FOLDER, each with a folder of videos for every class, or lists
    `train.csv` and `test.csv` with columns `file` and `label`. What to expect depends on them.

    A training video gives a clip at a random moment in every epoch, a test video one from its
    middle; `keras-tokenlearner evaluate` scores several views of each.

    Attributes:
        model: Name in the catalogue, of a model for videos.
        source: The folder.
        frames: Of a clip; 0 for what the catalogue says.
        size: Height and width of a clip; 0 for what the catalogue says.
        stride: Frames of the video for each frame of a clip.
        epochs: Passes over the training videos.
        batch_size: Clips a step.
        learning_rate: The highest, reached after the warm-up; cosine to zero from there.
        warmup_epochs: Epochs of linear warm-up.
        weight_decay: Of all but biases, norms and positions.
        label_smoothing: Of the cross-entropy.
        threads: Of decoding.
        seed: Of weights, order, moments and augmentation.
    """

    model: str = "tokenlearner_x2plus1d_pico"
    source: str = ""
    frames: int = 0
    size: int = 0
    stride: int = 2
    epochs: int = 20
    batch_size: int = 8
    learning_rate: float = 1e-3
    warmup_epochs: int = 1
    weight_decay: float = 0.05
    label_smoothing: float = 0.0
    threads: int = 2
    seed: int = 0

    def open(self):
        """Return the lists of the training and of the test videos, with one-hot labels."""
        return tuple(
            dataclasses.replace(
                videos, labels=np.eye(len(videos.class_names), dtype="float32")[videos.labels]
            )
            for videos in video.open_videos(self.source)
        )

    def build(self, classes):
        """Return the model, to be compiled."""
        frames, height, width, channels = CATALOG[self.model].input_shape
        shape = (self.frames or frames, self.size or height, self.size or width, channels)
        return create_model(self.model, classes=classes, input_shape=shape)

    def batches(self, videos, input_shape, training):
        """Return the batches of a list of videos."""
        return video.VideoBatches(
            videos,
            input_shape,
            self.batch_size,
            stride=self.stride,
            training=training,
            seed=self.seed,
            threads=self.threads,
        )

    def optimizer(self, steps_per_epoch):
        """Return AdamW with warm-up and cosine decay over the whole run."""
        return adamw(
            self.learning_rate,
            self.epochs * steps_per_epoch,
            self.warmup_epochs * steps_per_epoch,
            self.weight_decay,
        )
