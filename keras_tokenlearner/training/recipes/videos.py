"""Recipes for labelled video files, and the paper's recipes for Kinetics, Charades and AViD."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from keras_tokenlearner._checks import check_choice
from keras_tokenlearner._errors import errors_of
from keras_tokenlearner._precision import dtype_policy
from keras_tokenlearner.applications import CATALOG, create_model
from keras_tokenlearner.data import video
from keras_tokenlearner.training.optimizers import adamw, sgd
from keras_tokenlearner.training.recipes.recipe import RecipeFields
from keras_tokenlearner.weights import load


@dataclass(frozen=True)
class VideosRecipe(RecipeFields):
    """Training of a video model on labelled video files, with AdamW.

    Command: `keras-tokenlearner train videos --set data=FOLDER`.

    Requirements: the extra `video`, and one of these data sets. FOLDER has folders `train` and
    `test`, each with a folder of videos for every class. Or FOLDER has lists `train.csv` and
    `test.csv` with the columns `file` and `label`. Or `data=tfds:NAME` is a set that
    tensorflow-datasets prepared. The expected accuracy depends on the videos.

    Each epoch takes one clip of each training video, at a random moment. A test video has one clip,
    from its middle. `keras-tokenlearner evaluate` scores several views of each test video.

    Attributes:
        model: Name in the catalogue, of a model for videos.
        data: Name of a data set for `keras_tokenlearner.data.video.open_videos`.
        frames: Frames of a clip; 0 for the catalogue's value.
        size: Height and width of a clip; 0 for the catalogue's value.
        stride: Distance between two frames of a clip, in frames of the video.
        frame_rate: Rate of the frames that `stride` counts, in frames per second; 0 for the rate of
            each file.
        learning_rate: The highest learning rate, after the warm-up. The rate then decays to zero by
            a cosine.
        warmup_epochs: Epochs of linear warm-up.
        weight_decay: Weight decay, except on biases, norms and positions.
        threads: Threads that decode videos.
    """

    model: str = "tokenlearner_x2plus1d_pico"
    data: str = ""
    frames: int = 0
    size: int = 0
    stride: int = 2
    frame_rate: float = 0.0
    epochs: int = 20
    batch_size: int = 8
    learning_rate: float = 1e-3
    warmup_epochs: float = 1.0
    weight_decay: float = 0.05
    threads: int = 2

    classifier_activation = "softmax"

    def open(self) -> tuple[video.VideoList, video.VideoList]:
        """Return the training videos and the test videos, with one-hot labels."""
        with errors_of(type(self).__name__, path="data"):
            splits = video.open_videos(self.data)
        if splits[0].labels.ndim == 2:
            raise ValueError(
                f"{type(self).__name__}: `data` must have one label per video; for several labels, "
                f"train with the recipe `charades`. Received: data={self.data!r}"
            )
        training, test = (
            dataclasses.replace(
                videos, labels=np.eye(len(videos.class_names), dtype="float32")[videos.labels]
            )
            for videos in splits
        )
        return training, test

    def build(self, classes: int) -> keras.Model:
        """Return the model, not yet compiled."""
        owner = type(self).__name__
        check_choice(owner, "model", self.model, list(CATALOG), "`keras-tokenlearner models`")
        shape = CATALOG[self.model].input_shape
        if len(shape) != 4:
            raise ValueError(
                f"{owner}: `model` must be a model for videos, such as "
                f"'tokenlearner_x2plus1d_pico'. Received: model={self.model!r} for images"
            )
        frames, height, width, channels = shape
        shape = (self.frames or frames, self.size or height, self.size or width, channels)
        return create_model(
            self.model,
            classes=classes,
            input_shape=shape,
            classifier_activation=self.classifier_activation,
        )

    def batches(
        self, videos: video.VideoList, input_shape: Sequence[int], training: bool
    ) -> video.VideoBatches:
        """Return the batches of a list of videos."""
        frames, height, width, channels = input_shape
        return video.VideoBatches(
            videos,
            (frames, height, width, channels),
            self.batch_size,
            stride=self.stride,
            frame_rate=self.frame_rate or None,
            training=training,
            seed=self.seed,
            threads=self.threads,
        )

    def optimizer(self, steps_per_epoch: int) -> keras.optimizers.Optimizer:
        """Return AdamW with warm-up and cosine decay over the whole run."""
        return adamw(
            self.learning_rate,
            self.epochs * steps_per_epoch,
            int(self.warmup_epochs * steps_per_epoch),
            self.weight_decay,
        )


@dataclass(frozen=True)
class _MomentumRecipe(VideosRecipe):
    """Training of a video model as in the paper: by SGD with momentum instead of AdamW."""

    weight_decay: float = 0.0

    layer_decay = 1.0

    def optimizer(self, steps_per_epoch: int) -> keras.optimizers.Optimizer:
        """Return SGD with momentum, warm-up and cosine decay over the whole run."""
        steps, warmup_steps = self.epochs * steps_per_epoch, self.warmup_epochs * steps_per_epoch
        return sgd(
            self.learning_rate,
            steps,
            int(warmup_steps),
            self.weight_decay,
            layer_decay=self.layer_decay,
        )


@dataclass(frozen=True)
class KineticsRecipe(_MomentumRecipe):
    """Training of ViViT with TokenLearner on Kinetics-400 and Kinetics-600: Tables 6 to 8.

    Command: `keras-tokenlearner train kinetics --set data=FOLDER --set weights=FILE`. Then
    `keras-tokenlearner evaluate` scores 4 clips and 3 crops of each test video, as the paper does.

    Requirements: the extra `video`, pre-trained weights of the image model, and accelerators with
    memory for a batch of 64 clips. The recipe `videos` describes the files in FOLDER.

    Expected top-1 and top-5 accuracy in percent, after pre-training on JFT-300M, which is not
    public:

        Kinetics-400, Table 6                         Kinetics-600, Table 8
        vivit_l16 83.4 95.6                           vivit_l16 84.3 96.2
        tokenlearner_vivit_l16_16at12 83.5 95.6       tokenlearner_vivit_l16_16at12 84.4 96.0
        tokenlearner_vivit_l16_30_8at18 84.5 96.1     tokenlearner_vivit_l16_30_8at18 86.0 97.0
        tokenlearner_vivit_l14_35_16at18 84.7 96.1
        tokenlearner_vivit_l10_35_16at18 85.4 96.3    tokenlearner_vivit_l10_35_16at18 86.1 97.0
                                                      ..._l10_35_16at18_fuser 86.3 97.0

    We have not run this recipe. 30 epochs and a learning rate of 0.05 are the paper's values. Other
    values follow ViViT's code, as in the paper. Batches have 64 clips of 32 frames with a stride of
    2, and gradients are clipped at 1. The schedule has 2.5 epochs of warm-up and cosine decay.
    There is no label smoothing and no weight decay. The augmentation of `VideoBatches` differs a
    little from the augmentation of ViViT's code.

    Attributes:
        image_model: Catalogue name of the pre-trained image model. Its weights for patches become
            weights for tubelets by ViViT's "central frame" initialisation.
        weights: The argument `weights` of `create_model` for the image model, with any number of
            classes. Empty for random weights.
        layer_decay: Learning rate of a block divided by the rate of the next block. ViViT has 1.
        precision: Name of a dtype policy of Keras, such as `mixed_bfloat16`.

    Source: Arnab et al., "ViViT: A Video Vision Transformer", 2021, and its code in Scenic.
    """

    model: str = "tokenlearner_vivit_l16_16at12"
    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 0.05
    warmup_epochs: float = 2.5
    image_model: str = "tokenlearner_l16_16at12"
    weights: str = ""
    layer_decay: float = 1.0
    precision: str = "float32"

    def build(self, classes: int) -> keras.Model:
        """Return the model, not yet compiled."""
        with dtype_policy(self.precision):
            model = super().build(classes)
        if self.weights:
            arguments = {"input_shape": model.input_shape[2:], "weights": self.weights}
            images = create_model(self.image_model, include_top=False, **arguments)
            load(model, "keras_tokenlearner", images, head="reset")
        return model


@dataclass(frozen=True)
class CharadesRecipe(_MomentumRecipe):
    """Training of X(2+1)D with TokenLearner on Charades: Tables 9 and 11 to 13.

    Command: `keras-tokenlearner train charades --set data=FOLDER`.

    Requirements: the extra `video`, and accelerators with memory for a batch of 256 clips. FOLDER
    has the files `Charades_v1_train.csv` and `Charades_v1_test.csv`, and the folder
    `Charades_v1_480` of videos. Segments of 64 frames at 12 frames per second start at random
    moments. `keras-tokenlearner evaluate` merges consecutive segments.

    Expected mean average precision of the test videos, from the paper: 66.3% at 12 frames per
    second, 59.6% at 6. `x2plus1d_m` has 62.7% and 56.6%. We have not run this recipe. Every segment
    has all labels of its video.

    100,000 steps of 256 segments, a cosine schedule, no label smoothing and 224 pixels are the
    paper's values. The paper tests at 256 pixels. The paper names no optimizer, and states a
    learning rate of 0.8 "per TPU core". We take SGD with momentum, no weight decay and 0.8 for the
    whole batch, after one epoch of warm-up.

    Attributes:
        model: Name in the catalogue, of a model for videos.
    """

    model: str = "tokenlearner_x2plus1d_m"
    frames: int = 64
    size: int = 224
    stride: int = 1
    frame_rate: float = 12.0
    epochs: int = 3125
    batch_size: int = 256
    learning_rate: float = 0.8

    classifier_activation = "sigmoid"

    def open(self) -> tuple[video.VideoList, video.VideoList]:
        """Return the training videos and the test videos, each with all its labels."""
        with errors_of(type(self).__name__, path="data"):
            return video.open_videos(self.data)


@dataclass(frozen=True)
class AvidRecipe(_MomentumRecipe):
    """Training of X(2+1)D with TokenLearner on AViD: Tables 10 and 11.

    Command: `keras-tokenlearner train avid --set data=FOLDER`. Then `keras-tokenlearner evaluate`
    scores one clip of each test video.

    Requirements: the extra `video`, and accelerators with memory for a batch of 512 clips. FOLDER
    has the files `avid_train.json` and `avid_val.json`, and the folder `videos`.

    Expected mean accuracy of the 887 classes in percent, from the paper:

        x2plus1d_m 48.6                       tokenlearner_x2plus1d_m 53.7
        x2plus1d_m_spatial_temporal 50.6      tokenlearner_x2plus1d_m_without_conv2d 53.8

    We have not run this recipe. 8 clips on each of 64 cores, a cosine schedule, label smoothing of
    0.2 and 100,000 steps, "roughly 125 epochs", are the paper's values. The paper names no
    optimizer and no frame rate, and states a learning rate of 0.025 "per TPU". We take SGD with
    momentum, no weight decay and 0.025 for the whole batch, after one epoch of warm-up. As on
    Charades, we take 12 frames per second.
    """

    model: str = "tokenlearner_x2plus1d_m_without_conv2d"
    frames: int = 64
    size: int = 224
    stride: int = 1
    frame_rate: float = 12.0
    epochs: int = 125
    batch_size: int = 512
    learning_rate: float = 0.025
    label_smoothing: float = 0.2
