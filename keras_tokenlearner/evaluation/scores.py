"""Metrics in numpy. Each function takes arrays of all examples."""

from collections.abc import Callable, Sequence

import numpy as np

from keras_tokenlearner._checks import check_labels


def top_k_accuracy(labels: np.ndarray | Sequence[int], scores: np.ndarray, k: int = 1) -> float:
    """Return the share of examples whose label is among the k largest scores.

    The first of equal scores counts as larger, as in `argmax`. An example with a NaN score
    counts as wrong.

    Args:
        labels: Integer array of shape (n,).
        scores: Array of shape (n, classes).
        k: Integer. The label must be among the k largest scores.

    Raises:
        ValueError: If `scores` have another shape, or `labels` is not one class per example.

    Example:

    >>> top_k_accuracy(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]))
    0.5
    """
    scores = _checked("top_k_accuracy", scores)
    labels = check_labels("top_k_accuracy", "labels", labels, *scores.shape)
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    is_before = np.arange(scores.shape[1]) < labels[:, None]
    larger = (scores > own) | ((scores == own) & is_before)
    return float(np.mean((larger.sum(1) < k) & ~np.isnan(scores).any(1)))


def _checked(owner: str, scores: np.ndarray) -> np.ndarray:
    """Return scores as an array, or raise `ValueError` unless their shape is (n, classes)."""
    scores = np.asarray(scores)
    if scores.ndim != 2:
        raise ValueError(
            f"{owner}: `scores` must have shape (n, classes). "
            f"Received: scores of shape {scores.shape}"
        )
    return scores


def largest(scores: np.ndarray) -> np.ndarray:
    """Return the class of the largest score of each example, or -1 if a score is NaN.

    `argmax` alone would return the class of the NaN, which may be the label.

    Args:
        scores: Array of shape (n, classes).

    Example:

    >>> largest(np.array([[0.1, 0.9], [0.8, np.nan]])).tolist()
    [1, -1]
    """
    scores = np.asarray(scores)
    return np.where(np.isnan(scores).any(1), -1, scores.argmax(1))


def mean_class_accuracy(labels: np.ndarray | Sequence[int], scores: np.ndarray) -> float:
    """Return the average of the accuracies of all classes that have examples.

    An example with a NaN score counts as wrong.

    Args:
        labels: Integer array of shape (n,).
        scores: Array of shape (n, classes).

    Raises:
        ValueError: If `scores` have another shape, or `labels` is not one class per example.

    Example:

    >>> mean_class_accuracy(np.array([0, 0, 0, 1]), np.eye(2)[[0, 0, 0, 0]])
    0.5
    """
    scores = _checked("mean_class_accuracy", scores)
    labels = check_labels("mean_class_accuracy", "labels", labels, *scores.shape)
    right = largest(scores) == labels
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def real_accuracy(label_lists: Sequence[Sequence[int]], scores: np.ndarray) -> float:
    """Return the accuracy by reassessed labels (ReaL). An image may have any number of labels.

    A prediction is correct if its largest score is for one of the labels. A prediction with a NaN
    score is wrong. Images without any label are ignored.

    Args:
        label_lists: A list of labels for each image.
        scores: Array of shape (n, classes).

    Raises:
        ValueError: If `scores` have another shape, the numbers of lists and scores differ, or no
            image has a label.

    Example:

    >>> real_accuracy([[0, 1], [], [2]], np.eye(3)[[1, 0, 0]])
    0.5

    Source: Beyer et al., "Are we done with ImageNet?", 2020.
    """
    scores = _checked("real_accuracy", scores)
    if len(label_lists) != len(scores):
        raise ValueError(
            "real_accuracy: `label_lists` must have a list for each image. "
            f"Received: {len(label_lists)} lists, {len(scores)} scores"
        )
    best = largest(scores)
    right = [best[i] in labels for i, labels in enumerate(label_lists) if len(labels)]
    if not right:
        raise ValueError(
            "real_accuracy: `label_lists` must have a label for at least one image. Received: "
            f"{len(label_lists)} empty lists"
        )
    return float(np.mean(right))


def mean_average_precision(targets: np.ndarray, scores: np.ndarray) -> tuple[float, int]:
    """Return the mean of the average precision over all classes with positive examples.

    The average precision is not interpolated. For each positive of a class, precision is computed
    among the examples with an equal or larger score. The average precision is the mean of these
    precisions. A NaN score counts as wrong: positives rank last, and negatives rank first.

    Args:
        targets: Array of 0 and 1, of shape (n, classes); an example may have several classes.
        scores: Array of shape (n, classes).

    Returns:
        `(mean, skipped)`: the mean average precision, in [0, 1], and the number of ignored classes,
        which have no positives.

    Raises:
        ValueError: If the shapes differ, are not (n, classes), or no class has a positive.

    Example:

    >>> targets = np.array([[1, 0], [0, 0], [1, 0]])
    >>> mean_average_precision(targets, np.array([[3, 0], [2, 0], [1, 0]]))
    (0.8333333333333333, 1)

    Source: the evaluation of Charades.
    """
    targets, scores = np.asarray(targets), _checked("mean_average_precision", scores)
    if targets.shape != scores.shape:
        raise ValueError(
            "mean_average_precision: `targets` and `scores` must have the same shape. "
            f"Received: targets of shape {targets.shape}, scores of shape {scores.shape}"
        )
    has_positives = targets.any(0)
    if not has_positives.any():
        raise ValueError(
            "mean_average_precision: `targets` must have a positive example of at least one class. "
            f"Received: targets of shape {targets.shape}, all 0"
        )
    wrong = np.where(targets > 0, -np.inf, np.inf)
    scores = np.where(np.isnan(scores), wrong, scores)
    found = [_average_precision(targets[:, c], scores[:, c]) for c in np.flatnonzero(has_positives)]
    return float(np.mean(found)), int((~has_positives).sum())


def _average_precision(targets: np.ndarray, scores: np.ndarray) -> float:
    order = np.argsort(-scores, kind="stable")
    targets, scores = targets[order] > 0, scores[order]
    last_of_tie = np.append(scores[1:] != scores[:-1], True)
    positives = np.cumsum(targets)[last_of_tie]
    precision = positives / (np.flatnonzero(last_of_tie) + 1)
    gained = np.diff(positives, prepend=0)
    return float((precision * gained).sum() / positives[-1])


def merge(
    groups: np.ndarray | Sequence[int] | Sequence[str], scores: np.ndarray, how: str = "mean"
) -> tuple[np.ndarray, np.ndarray]:
    """Merge the scores of all views, or all segments, of each example.

    Pass logits for the paper's multi-view testing, the average of 4 clips x 3 crops. For segments
    of a long video, the paper states only "merging", so both mean and max are available.

    Args:
        groups: Array of shape (views,), the number or name of the example of each view.
        scores: Array of shape (views, classes).
        how: `"mean"` or `"max"`.

    Returns:
        `(examples, merged)`: the sorted values of `groups`, and an array of shape
        (examples, classes). Scores of half precision become float32.

    Raises:
        ValueError: If `how` is unknown, or the numbers of views and scores differ.

    Example:

    >>> merge(["a", "b", "a"], np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]))[1].tolist()
    [[2.0, 3.0], [2.0, 3.0]]
    """
    functions: dict[str, Callable[..., np.ndarray]] = {"mean": np.mean, "max": np.max}
    if how not in functions:
        raise ValueError(f"merge: `how` must be 'mean' or 'max'. Received: how={how!r}")
    groups, scores = np.asarray(groups), np.asarray(scores)
    scores = scores.astype(np.promote_types(scores.dtype, "float32"))  # bfloat16 rounds a mean
    if len(groups) != len(scores):
        raise ValueError(
            f"merge: `groups` must have one entry for each view. Received: {len(groups)} entries, "
            f"{len(scores)} views"
        )
    examples, inverse = np.unique(groups, return_inverse=True)
    merged = [functions[how](scores[inverse == index], axis=0) for index in range(len(examples))]
    return examples, np.stack(merged)
