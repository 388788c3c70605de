from collections.abc import Mapping, Sequence
from typing import TypeAlias

import keras
import numpy as np

from keras_tokenlearner._checks import (
    check_int,
    check_ints,
    check_labels,
    check_model,
    check_not_negative,
    check_vectors,
)
from keras_tokenlearner._errors import own_errors
from keras_tokenlearner.evaluation.scores import largest
from keras_tokenlearner.models.features import with_plain_output

Labelled: TypeAlias = tuple[np.ndarray, np.ndarray]  # images and labels
_CONSTANT = 100.0  # feature in place of a bias, so large that the penalty hardly affects the bias


@own_errors
def few_shot(
    model: keras.Model,
    datasets: Mapping[str, tuple[Labelled, Labelled]],
    shots: Sequence[int] = (1, 5, 10, 25),
    l2: float = 2.0**10,
    batch_size: int = 32,
    seed: int = 0,
) -> dict[str, dict[int, float]]:
    """Evaluate the features of a frozen model by least squares on a few images of each class.

    This is the protocol of section 3.4 of the paper. For every data set, ridge regression maps
    features of the training images to one target per class, -1 or +1. The number of shots is the
    number of training images per class. A test image is assigned to the class with the largest
    prediction.

    Args:
        model: A `keras.Model` that returns features, (B, C), for example built with
            `include_top=False, pooling="avg"`.
        datasets: Dictionary from names to `((train_images, train_labels), (test_images,
            test_labels))`. The model takes the images as inputs.
        shots: Tuple of integers, numbers of training images per class.
        l2: Float, weight of the L2 penalty.
        batch_size: Integer, images per batch.
        seed: Integer, decides the choice of the images. With the same seed, more shots add images.

    Returns:
        Dictionary from each name, and from `"average"`, to a dictionary from shots to accuracy in
        [0, 1].

    Raises:
        ValueError: If a class has fewer training images than shots, or labels are not integers, one
            for each image. Also if the outputs of the model do not have shape (B, C). Also if an
            argument is of another type or out of range.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Activation("linear")])
    >>> data = np.eye(4), np.arange(4)
    >>> few_shot(model, {"toy": (data, data)}, shots=(1,))["average"]
    {1: 1.0}
    """
    model = with_plain_output(check_model("few_shot", "model", model, single=True))
    check_vectors("few_shot", "model", model)
    shots = check_ints("few_shot", "shots", shots)
    check_not_negative("few_shot", "l2", l2)
    check_int("few_shot", "batch_size", batch_size)
    check_int("few_shot", "seed", seed, minimum=0)
    for splits in datasets.values():
        for images, labels in splits:
            check_labels("few_shot", "labels", labels, len(images))
        classes = np.unique(splits[0][1], return_inverse=True)[1]
        choose(classes.ravel(), max(shots, default=0))  # raises if a class has too few images
    results = {}
    for name, ((train_images, train_labels), (test_images, test_labels)) in datasets.items():
        train, test = (
            model.predict(images, batch_size=batch_size, verbose=0)
            for images in (train_images, test_images)
        )
        results[name] = {
            count: few_shot_accuracy(train, train_labels, test, test_labels, count, l2, seed)
            for count in shots
        }
    average = {count: float(np.mean([row[count] for row in results.values()])) for count in shots}
    return {**results, "average": average}


@own_errors
def few_shot_accuracy(
    train_features: np.ndarray,
    train_labels: np.ndarray | Sequence[int],
    test_features: np.ndarray,
    test_labels: np.ndarray | Sequence[int],
    shots: int,
    l2: float = 2.0**10,
    seed: int = 0,
) -> float:
    """Return the test accuracy of ridge regression on `shots` training examples of each class.

    Features are standardised with the mean and standard deviation of the chosen training features.
    A constant feature of 100 replaces the bias. The weights are `W = (X'X + l2 I)^-1 X'Y`. For
    fewer examples than features, the dual form computes the same weights. An example with NaN
    features counts as wrong.

    Args:
        train_features: Array of shape (n, C).
        train_labels: Integer array of shape (n,).
        test_features: Array of shape (m, C).
        test_labels: Integer array of shape (m,).
        shots: Integer, training examples of each class.
        l2: Float, weight of the L2 penalty.
        seed: Integer, decides the choice of the examples.

    Returns:
        The accuracy, in [0, 1].

    Raises:
        ValueError: If a class has fewer training examples than shots, or labels are not integers,
            one for each example.

    Example:

    >>> features, labels = np.array([[0.0], [1.0]] * 3), [0, 1] * 3
    >>> few_shot_accuracy(features, labels, features, labels, shots=2)
    1.0
    """
    check_int("few_shot_accuracy", "shots", shots)
    check_not_negative("few_shot_accuracy", "l2", l2)
    check_int("few_shot_accuracy", "seed", seed, minimum=0)
    train_labels = check_labels(
        "few_shot_accuracy", "train_labels", train_labels, len(train_features)
    )
    test_labels = check_labels("few_shot_accuracy", "test_labels", test_labels, len(test_features))
    classes, train_labels = np.unique(train_labels, return_inverse=True)
    chosen = choose(train_labels, shots, seed).ravel()
    x, y = np.asarray(train_features)[chosen], train_labels[chosen]
    kernel, bias = ridge(x, y, len(classes), l2)
    best = largest(np.asarray(test_features, "float64") @ kernel + bias)
    right = (best >= 0) & (classes[best] == test_labels)
    return float(np.mean(right))


def ridge(
    features: np.ndarray, labels: np.ndarray, classes: int, l2: float
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a ridge regression and return its kernel, (C, classes), and its bias, (classes,).

    The target of an example is +1 for its class and -1 for every other class.

    Args:
        features: Array of shape (n, C).
        labels: Integer array of shape (n,), from 0 to the number of classes minus 1.
        classes: Integer, number of classes.
        l2: Float, weight of the L2 penalty. The function standardises the features first, and the
            penalty applies to the kernel for these standardised features.

    Example:

    >>> kernel, bias = ridge(np.array([[0.0], [1.0]]), np.array([0, 1]), 2, l2=1e-6)
    >>> np.round(np.array([[0.0], [1.0]]) @ kernel + bias).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    x = np.asarray(features, "float64")
    mean, deviation = x.mean(0), x.std(0) + 1e-5
    x = _with_constant((x - mean) / deviation)
    targets = 2.0 * np.eye(classes)[labels] - 1.0
    if len(x) < x.shape[1]:
        weights = x.T @ np.linalg.solve(x @ x.T + l2 * np.eye(len(x)), targets)
    else:
        weights = np.linalg.solve(x.T @ x + l2 * np.eye(x.shape[1]), x.T @ targets)
    kernel = weights[:-1] / deviation[:, None]
    return kernel, _CONSTANT * weights[-1] - mean @ kernel


def choose(labels: np.ndarray, shots: int, seed: int = 0) -> np.ndarray:
    """Return the indices of `shots` random examples of each class.

    The seed alone orders the examples of a class, and the first `shots` are chosen. As in the
    authors' code, more shots therefore add examples.

    Args:
        labels: Integer array of shape (n,), from 0 to the number of classes minus 1.
        shots: Integer, examples of each class.
        seed: Integer, decides the order.

    Returns:
        Integer array of shape (classes, shots).

    Raises:
        ValueError: If a class has fewer examples than shots.
    """
    random = np.random.default_rng(seed)
    chosen = []
    for label in range(labels.max() + 1):
        places = np.flatnonzero(labels == label)
        if len(places) < shots:
            raise ValueError(
                "few_shot_accuracy: `shots` must be at most the number of training examples of "
                f"each class. Received: shots={shots}, and a class of {len(places)} examples"
            )
        chosen.append(random.permutation(places)[:shots])
    return np.stack(chosen)


def _with_constant(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, np.full((len(x), 1), _CONSTANT)], axis=1)
