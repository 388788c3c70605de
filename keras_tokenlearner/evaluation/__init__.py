"""Evaluation of models by the protocols of the paper."""

from keras_tokenlearner.evaluation.compare import compare, images_per_second
from keras_tokenlearner.evaluation.evaluate import FewShotProtocol, evaluate
from keras_tokenlearner.evaluation.few_shot import few_shot, few_shot_accuracy
from keras_tokenlearner.evaluation.linear_probe import linear_probe
from keras_tokenlearner.evaluation.scores import (
    mean_average_precision,
    mean_class_accuracy,
    merge,
    real_accuracy,
    top_k_accuracy,
)
from keras_tokenlearner.evaluation.videos import evaluate_videos, predict_videos

__all__ = [
    "compare",
    "evaluate",
    "evaluate_videos",
    "few_shot",
    "few_shot_accuracy",
    "FewShotProtocol",
    "images_per_second",
    "linear_probe",
    "mean_average_precision",
    "mean_class_accuracy",
    "merge",
    "predict_videos",
    "real_accuracy",
    "top_k_accuracy",
]
