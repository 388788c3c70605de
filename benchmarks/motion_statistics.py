"""Accuracy from a few statistics of each clip: logistic regression without a network."""

import numpy as np

from keras_tokenlearner._extras import require

_MOVES = 0.05  # a pixel in [0, 1] that changes by more than this moves


def motion_statistics(pixels):
    """Return six statistics of the motion in each clip, (n, 6).

    The first three describe the change of each frame: mean, spread and peak over the frames. The
    fourth is the share of moving pixels. The fifth is the 99th percentile of the change. The sixth
    is the spread of the change over the picture.

    Args:
        pixels: Array of type uint8 and shape (n, T, H, W, 1).
    """
    changed = np.abs(np.diff(pixels[..., 0].astype("float32") / 255, axis=1))
    of_frames = changed.mean((2, 3))
    return np.stack(
        [
            of_frames.mean(1),
            of_frames.std(1),
            of_frames.max(1),
            (changed > _MOVES).mean((1, 2, 3)),
            np.percentile(changed, 99, axis=(1, 2, 3)),
            changed.mean(1).std((1, 2)),
        ],
        axis=1,
    )


def appearance_statistics(pixels):
    """Return three statistics of each clip's appearance, (n, 3): mean, spread and sharpness."""
    pixels = pixels[..., 0].astype("float32") / 255
    sharpness = np.abs(np.diff(pixels, axis=3)).mean((1, 2, 3))
    return np.stack([pixels.mean((1, 2, 3)), pixels.std((1, 2, 3)), sharpness], axis=1)


def accuracies(statistics, labels, folds):
    """Return the test accuracy of logistic regression on standardised statistics in each fold."""
    linear = require("sklearn.linear_model", "dev")
    preprocessing = require("sklearn.preprocessing", "dev")
    pipeline = require("sklearn.pipeline", "dev")
    found = []
    for train, test in folds:
        classifier = pipeline.make_pipeline(
            preprocessing.StandardScaler(), linear.LogisticRegression(max_iter=1000)
        )
        classifier.fit(statistics[train], labels[train])
        found.append(classifier.score(statistics[test], labels[test]))
    return found
