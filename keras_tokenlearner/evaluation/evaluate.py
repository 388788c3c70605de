import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import keras
import numpy as np

from keras_tokenlearner._checks import (
    check_choice,
    check_int,
    check_ints,
    check_model,
    check_not_negative,
    check_vectors,
)
from keras_tokenlearner._class_order import check_order
from keras_tokenlearner._errors import own_errors
from keras_tokenlearner.data import (
    FEW_SHOT,
    ImageBatches,
    Images,
    open_named,
    read_real_labels,
)
from keras_tokenlearner.data.batches import reading_errors
from keras_tokenlearner.data.preprocessing import preprocessing_of
from keras_tokenlearner.evaluation.compare import images_per_second
from keras_tokenlearner.evaluation.few_shot import choose, few_shot_accuracy
from keras_tokenlearner.evaluation.scores import (
    mean_class_accuracy,
    real_accuracy,
    top_k_accuracy,
)
from keras_tokenlearner.models import names
from keras_tokenlearner.models.features import with_calls, with_plain_output
from keras_tokenlearner.models.head import check_head
from keras_tokenlearner.models.last_activation import last_activation
from keras_tokenlearner.models.preprocessing import check_takes_pixels

Row: TypeAlias = dict[str, str | float | None]
Predict: TypeAlias = Callable[[keras.Model, Images], np.ndarray]
METRICS = ("top1", "top5", "mean_class", "real", "few_shot", "speed")


@dataclass(frozen=True)
class FewShotProtocol:
    """The few-shot experiments of section 3.4 of the paper, Figures 4 and 6.

    Command: `keras-tokenlearner evaluate MODEL --size 224 --metrics few_shot`. The command needs
    data sets that tensorflow-datasets has prepared.

    The expected accuracy is unknown, because the paper's figures print no numbers. The paper's
    models were pre-trained on JFT-300M, which is not public.

    The paper follows ViT: least squares with a penalty, from frozen features at 224 pixels to
    targets of -1 and +1, with 5 shots. The penalty, other numbers of shots and the choice of
    training images follow the authors' code.

    Attributes:
        data: Names for `open_named`, one for each of the nine sets.
        shots: Numbers of training images per class.
        l2: Weight of the penalty.
        seed: Decides the choice of the training images.

    Raises:
        ValueError: If `shots` is empty or has a number that is not positive. Also if `l2` or `seed`
            is negative.
    """

    data: tuple[str, ...] = tuple(f"tfds:{name}" for name in FEW_SHOT)
    shots: tuple[int, ...] = (1, 5, 10, 25)
    l2: float = 2.0**10
    seed: int = 0

    def __post_init__(self) -> None:
        if not check_ints("FewShotProtocol", "shots", self.shots):
            raise ValueError(
                "FewShotProtocol: `shots` must have at least one number. "
                f"Received: shots={self.shots!r}"
            )
        check_not_negative("FewShotProtocol", "l2", self.l2)
        check_int("FewShotProtocol", "seed", self.seed, minimum=0)


@own_errors
def evaluate(
    model: keras.Model,
    data: Sequence[str] | None = None,
    metrics: Collection[str] = ("top1", "top5"),
    real_labels: str | os.PathLike[str] | None = None,
    protocol: FewShotProtocol | None = None,
    batch_size: int = 32,
    threads: int = 2,
) -> list[dict[str, str | float | None]]:
    """Compute metrics of a model on the test images of one or several data sets.

    Args:
        model: A `keras.Model` that classifies images with pixels in [0, 255]. For `few_shot`, a
            model without top returns the features (B, C). With top, the features are the inputs of
            the classifier. The classifier is a dense layer named `head`, or the last dense layer
            before a softmax or sigmoid. If `metrics` has another accuracy, any last dense layer is
            the classifier.
        data: List of names for `open_named`. Defaults to the names of the `protocol`.
        metrics: Names of metrics. `"top1"` and `"top5"` are accuracies. `"mean_class"` is the mean
            of the classes' accuracies. `"real"` uses ImageNet's reassessed labels. `"few_shot"` is
            the accuracy of least squares on a few training images of each class. `"speed"` is the
            throughput, measured by `images_per_second`.
        real_labels: Path of `real.json`, for `"real"`.
        protocol: A `FewShotProtocol`. Defaults to the protocol of the paper, `FewShotProtocol()`.
        batch_size: Integer, images per batch.
        threads: Integer, threads that read images.

    Returns:
        A dictionary for each data set. `data` is its name. Metrics are in [0, 1]. The throughput
        has the key `images_per_second`. Few-shot metrics have the keys `1_shot` and so on. A
        few-shot metric is `None` if a class has too few training images. For several data sets, a
        last dictionary with the name `"average"` has the averages.

    Raises:
        ValueError: If a metric or a data set is unknown. Also if the classes of model and data
            differ in number or order.
            Also if the outputs or features do not have shape (B, C), or `model` was built with
            `include_preprocessing=False`. Also if an image cannot be read, or `few_shot` finds no
            features, because a model inside `model` computes the probabilities.

    Example:

    >>> model = create_model("vit_pico8", classes=10, input_shape=(28, 28, 1))
    >>> protocol = FewShotProtocol(shots=(1,))
    >>> (row,) = evaluate(model, ["fashion_mnist"], ["top1", "few_shot"], protocol=protocol)
    >>> list(row)
    ['data', 'top1', '1_shot']
    """
    model = with_plain_output(check_model("evaluate", "model", model, single=True))
    if len(model.input_shape) != 4 or None in model.input_shape[1:]:
        raise ValueError(
            "evaluate: `model` must take images, (B, height, width, channels), of a known size. "
            f"Received: model={model!r} with inputs {model.input_shape}"
        )
    check_takes_pixels("evaluate", model)
    protocol = protocol or FewShotProtocol()
    for metric in metrics:
        check_choice("evaluate", "metrics", metric, METRICS, whole=metrics)
    if "real" in metrics and real_labels is None:
        raise ValueError(
            "evaluate: the metric 'real' needs `real_labels`, the path of real.json. "
            "Received: real_labels=None"
        )

    scored = set(metrics) - {"few_shot", "speed"}
    if scored:
        check_vectors("evaluate", "model", model)
    features = _features(model, bool(scored)) if "few_shot" in metrics else model

    def batches(images: Images) -> ImageBatches:
        shape = model.input_shape[1:]
        return ImageBatches(
            images,
            shape,
            batch_size,
            training=False,
            preprocessing=preprocessing_of(model),
            threads=threads,
        )

    def predict(part: keras.Model, images: Images) -> np.ndarray:
        read = batches(images)
        with reading_errors(read):
            return part.predict(read, verbose=0)

    opened = [(name, *open_named(name)) for name in data or protocol.data]
    reassessed = []
    for name, _, test in opened:
        if scored:
            _check_classes(model, name, test)
        path = real_labels if "real" in metrics else None
        reassessed.append(None if path is None else read_real_labels(path, test.names))
    rows: list[Row] = []
    for (name, train, test), real in zip(opened, reassessed, strict=True):
        row: Row = {"data": name}
        if scored:
            row |= _scores(test, predict(model, test), metrics, real)
        if "few_shot" in metrics:
            row |= _few_shot(features, predict, train, test, protocol)
        if "speed" in metrics:
            pixels, *_ = batches(test)[0]
            (row["images_per_second"],) = images_per_second([model], pixels)
        rows.append(row)
    if len(rows) > 1:
        names = list(rows[0])[1:]
        rows.append({"data": "average", **{name: _average(rows, name) for name in names}})
    return rows


def _check_classes(model: keras.Model, name: str, images: Images) -> None:
    if model.output_shape[-1] != len(images.class_names):
        raise ValueError(
            f"evaluate: `model` must have the {len(images.class_names)} classes of {name!r}; for "
            "other classes, pass metrics=['few_shot']. "
            f"Received: a model with {model.output_shape[-1]} classes"
        )
    own = getattr(model, "class_names", None)
    fix = "pass data with this order, or correct `model.class_names`"
    check_order("evaluate", "model", own, images.class_names, repr(name), fix)


def _scores(
    images: Images,
    scores: np.ndarray,
    metrics: Collection[str],
    real: list[list[int]] | None,
) -> dict[str, float]:
    labels = images.labels
    functions = {
        "top1": lambda: top_k_accuracy(labels, scores),
        "top5": lambda: top_k_accuracy(labels, scores, k=5),
        "mean_class": lambda: mean_class_accuracy(labels, scores),
    }
    if real is not None:
        functions["real"] = lambda: real_accuracy(real, scores)
    return {metric: functions[metric]() for metric in metrics if metric in functions}


def _features(model: keras.Model, is_classifier: bool) -> keras.Model:
    """Return the part of a model before its classifier, or the model if its outputs are features.

    A last dense layer without activation may compute features. The layer is a classifier if its
    name is `head`, or if other metrics need a classifier.
    """
    head = check_head("evaluate", "model", model)
    is_classifier |= last_activation(model)[0] != "linear"
    if head is None or not (is_classifier or head.name == names.HEAD):
        check_vectors("evaluate", "model", model)
        return model
    copy, calls = with_calls(model)
    return keras.Model(copy.inputs[0], calls[head.name].inputs)


def _few_shot(
    features: keras.Model,
    predict: Predict,
    train: Images,
    test: Images,
    protocol: FewShotProtocol,
) -> dict[str, float | None]:
    labels = np.unique(train.labels, return_inverse=True)[1]
    most = min(int(np.bincount(labels).min()), max(protocol.shots))
    chosen = choose(labels, most, protocol.seed)
    some = train.take(chosen.ravel().tolist())  # other images need no features
    learned, tested = predict(features, some), predict(features, test)
    rows = np.arange(chosen.size).reshape(chosen.shape)
    found: dict[str, float | None] = {f"{count}_shot": None for count in protocol.shots}
    for count in protocol.shots:
        if count <= most:
            first = rows[:, :count].ravel()
            arrays = learned[first], some.labels[first], tested, test.labels
            found[f"{count}_shot"] = few_shot_accuracy(*arrays, count, protocol.l2)
    return found


def _average(rows: Sequence[Row], name: str) -> float | None:
    """Return the average of a metric over the data sets where the metric is not `None`."""
    found = [float(value) for row in rows if (value := row[name]) is not None]
    return float(np.mean(found)) if found else None
