import statistics
import time
from collections.abc import Sequence

import keras
import numpy as np

from keras_tokenlearner._checks import (
    check_int,
    check_is,
    check_labels,
    check_model,
    check_vectors,
)
from keras_tokenlearner._errors import own_errors
from keras_tokenlearner.analysis.costs import costs
from keras_tokenlearner.evaluation.scores import top_k_accuracy
from keras_tokenlearner.models.features import with_plain_output


@own_errors
def compare(
    models: Sequence[keras.Model],
    images: np.ndarray,
    labels: np.ndarray | Sequence[int],
    batch_size: int | None = None,
    repeats: int = 5,
) -> list[dict[str, str | float]]:
    """Compare the cost, throughput and top-1 accuracy of models.

    Throughput is measured on one batch by `images_per_second`.

    Args:
        models: List of classifiers, each a `keras.Model` that takes the images.
        images: Array of at least `batch_size` images, (n, ...).
        labels: Integer array of shape (n,).
        batch_size: Integer, images per batch, for throughput and accuracy. Defaults to 32, or to
            the number of images if there are fewer.
        repeats: Integer, number of measurements of each model.

    Returns:
        A dictionary for each model. `model` is its name, and `accuracy` is in [0, 1]. `gmacs` are
        billions of multiply-adds per image, `mparams` millions of parameters. `images_per_second`
        is the throughput.

    Raises:
        ValueError: If the images do not fill a batch, or `labels` is not one class per image. Also
            if the outputs of a model do not have shape (B, C), or `costs` cannot count a model.

    Example:

    >>> teacher = create_model("vit_pico8", classes=10)
    >>> student = retrofit(teacher, at=1, num_tokens=4)
    >>> rows = compare([teacher, student], np.zeros((32, 32, 32, 3)), np.zeros(32, int), repeats=1)
    >>> [row["model"] for row in rows], rows[0]["gmacs"] > rows[1]["gmacs"]
    (['vit_pico8', 'vit_pico8_4at1'], True)
    """
    models = _checked("compare", models)
    for model in models:
        check_vectors("compare", "models", model)
    classes = min((model.output_shape[-1] for model in models), default=None)
    labels = check_labels("compare", "labels", labels, len(images), classes)
    if batch_size is None:
        batch_size = max(min(32, len(images)), 1)
    if check_int("compare", "batch_size", batch_size) > len(images):
        raise ValueError(
            "compare: `images` must fill at least one batch; pass a smaller `batch_size`. "
            f"Received: {len(images)} images, batch_size={batch_size}"
        )
    check_int("compare", "repeats", repeats)
    counts = [costs(model) for model in models]
    speeds = images_per_second(models, images[:batch_size], repeats)
    rows: list[dict[str, str | float]] = []
    for model, counted, speed in zip(models, counts, speeds, strict=True):
        batches = range(0, len(images), batch_size)
        scores = [model.predict_on_batch(images[i : i + batch_size]) for i in batches]
        rows.append(
            {
                "model": model.name,
                "accuracy": top_k_accuracy(labels, np.concatenate(scores)),
                "gmacs": counted.macs / 1e9,
                "mparams": counted.params / 1e6,
                "images_per_second": speed,
            }
        )
    return rows


def _checked(owner: str, models: Sequence[keras.Model]) -> list[keras.Model]:
    """Return models with one input and one output, or raise `ValueError`."""
    check_is(owner, "models", models, (list, tuple), "a list of models")
    return [with_plain_output(check_model(owner, "models", model, single=True)) for model in models]


def images_per_second(
    models: Sequence[keras.Model], batch: np.ndarray, repeats: int = 5
) -> list[float]:
    """Measure the throughput of models on this machine, after compilation and warm-up.

    The models take turns, so a slowdown of the machine affects all models. The result is the median
    over the turns.

    Args:
        models: List of models that take the batch.
        batch: Array, (B, ...).
        repeats: Integer, turns of each model.

    Returns:
        List of floats, images per second of each model.

    Example:

    >>> teacher = create_model("vit_pico8", classes=10)
    >>> student = retrofit(teacher, at=1, num_tokens=4)
    >>> len(images_per_second([teacher, student], np.zeros((8, 32, 32, 3)), repeats=1))
    2
    """
    models = _checked("images_per_second", models)
    check_int("images_per_second", "repeats", repeats)
    times: list[list[float]] = [[] for _ in models]
    for turn in range(-1, repeats):  # the first turn compiles
        for model, measured in zip(models, times, strict=True):
            start = time.perf_counter()
            model.predict_on_batch(batch)
            if turn >= 0:
                measured.append(time.perf_counter() - start)
    return [len(batch) / statistics.median(measured) for measured in times]
