"""Reads clips from video files: lists of videos, decoding and batches."""

from keras_tokenlearner.data.video.augment import augment_clip, fit_clip, in_channels
from keras_tokenlearner.data.video.batches import VideoBatches
from keras_tokenlearner.data.video.clips import random_clip, segments, uniform_clips
from keras_tokenlearner.data.video.decoding import VideoError, VideoInfo, probe, read_frames
from keras_tokenlearner.data.video.lists import (
    VideoList,
    from_avid,
    from_charades,
    from_csv,
    from_folder,
)
from keras_tokenlearner.data.video.splits import open_videos
from keras_tokenlearner.data.video.tfds import TfdsVideos, from_tfds

__all__ = [
    "augment_clip",
    "fit_clip",
    "from_avid",
    "from_charades",
    "from_csv",
    "from_folder",
    "from_tfds",
    "in_channels",
    "open_videos",
    "probe",
    "random_clip",
    "read_frames",
    "segments",
    "TfdsVideos",
    "uniform_clips",
    "VideoBatches",
    "VideoError",
    "VideoInfo",
    "VideoList",
]
