import contextlib
import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_tokenlearner._checks import (
    check_bool,
    check_fraction,
    check_int,
    check_labels,
    check_path,
    check_positive,
)
from keras_tokenlearner._errors import own_errors
from keras_tokenlearner._json import JSON
from keras_tokenlearner.data import Batches
from keras_tokenlearner.models.head import head_of
from keras_tokenlearner.models.reduction import before_reducer
from keras_tokenlearner.models.structure import Structure
from keras_tokenlearner.training.check_callbacks import check_callbacks
from keras_tokenlearner.training.distillation.answers import (
    answers,
    features_of,
    with_kept_features,
)
from keras_tokenlearner.training.distillation.checks import check_models, ends_in_sigmoid
from keras_tokenlearner.training.distillation.distiller import Distiller
from keras_tokenlearner.training.finite import StopOnNonFinite
from keras_tokenlearner.training.lock import locked
from keras_tokenlearner.training.optimizers import adamw
from keras_tokenlearner.training.remember import digest, remember, structure_of
from keras_tokenlearner.training.resume import Resume


@own_errors
def distill(
    student: keras.Model,
    teacher: keras.Model,
    images: np.ndarray,
    labels: np.ndarray | Sequence[int] | None = None,
    epochs: int = 8,
    batch_size: int = 64,
    learning_rate: float = 3e-4,
    temperature: float = 2.0,
    feature_weight: float = 1.0,
    label_weight: float = 0.5,
    train_all: bool = False,
    cache: str | os.PathLike[str] | None = None,
    backup: str | os.PathLike[str] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] | keras.callbacks.Callback | None = None,
    verbose: str | int = "auto",
    seed: int = 0,
) -> keras.callbacks.History:
    """Train a student with learned tokens to reproduce the outputs of its teacher.

    The loss is `(1 - label_weight) (KL(teacher, student) + feature_weight MSE(features)) +
    label_weight CE(labels)`, as in `Distiller`. Without labels, `label_weight` has no effect and
    counts as 0. Models without head learn from the features alone.

    The teacher runs once on each image. Unless `train_all` is true, the blocks before the first
    TokenLearner are frozen, and their outputs are stored in float16. An epoch then runs only the
    later blocks. The stored outputs take `2 * tokens * C` bytes per image, in memory or, with
    `cache`, on disk.

    Use `Distiller` for augmented images, data other than arrays, several devices, or students
    that take several numbers of tokens.

    Args:
        student: The model that `retrofit` made from the teacher. `distill` changes its weights.
        teacher: The plain model, which stays unchanged.
        images: Array of inputs of the models, (n, ...). Tensors become numpy arrays.
        labels: Integer array of shape (n,), or an array with a value for each class, (n, classes).
            `None` for no labels.
        epochs: Integer, number of epochs.
        batch_size: Integer, images per step.
        learning_rate: Float, the highest learning rate of AdamW. The rate warms up over a tenth of
            the steps, then decays to zero by a cosine.
        temperature: Float, divides the logits before the softmax.
        feature_weight: Float, weight of the features; the weight of the logits is 1. With 0, the
            shapes of the features may differ.
        label_weight: Float in [0, 1], weight of the labels.
        train_all: Boolean, whether to train the blocks before the TokenLearner too.
        cache: Folder for the outputs of the teacher and of the frozen blocks. Other students of the
            same teacher and images read the same files. `None` keeps the outputs in memory.
        backup: Path that ends in `.npz`, or `None`. The file is written after every epoch. The same
            call continues an interrupted run from this file, with the same result. The folder of
            the file is locked until the end. Delete the file once the student is saved.
        callbacks: List of `keras.callbacks.Callback` for `fit`, or one callback.
        verbose: The argument of `fit`.
        seed: Integer, decides the order of the images.

    Returns:
        The `keras.callbacks.History` of the fit.

    Raises:
        ValueError: If the student has no TokenLearner, or an argument is out of range. Also if the
            shapes or the last activations of the models do not match. Also if a label is not the
            number of a class, or the student has no head for labels. Also if a model inside the
            student computes the probabilities. Also if the backup is damaged. Also if the backup
            was saved with another student, teacher, data or other arguments. Also if another run
            has locked the folder of the backup.
        FloatingPointError: If the loss or a weight is not finite after an epoch. The student then
            has its weights from before the call.

    Example:

    >>> images, labels = np.random.rand(8, 32, 32, 3) * 255, np.arange(8)
    >>> teacher = create_model("vit_pico8", classes=10)
    >>> student = retrofit(teacher, at=1, num_tokens=4)
    >>> history = distill(student, teacher, images, labels, epochs=2, batch_size=4, verbose=0)
    >>> len(history.history["distillation_loss"])
    2

    Source: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, for the logits.
    """
    before = before_reducer("distill", student)
    check_models("distill", student, teacher, feature_weight)
    images, labels = _as_numpy(images), _as_numpy(labels)
    targets = _check_data(student, images, labels)
    callbacks = check_callbacks("distill", callbacks)
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        check_int("distill", name, value)
    check_int("distill", "seed", seed, minimum=0)
    check_positive("distill", "learning_rate", learning_rate)
    check_positive("distill", "temperature", temperature)
    check_fraction("distill", "label_weight", label_weight)
    check_bool("distill", "train_all", train_all)
    of_models: dict[str, JSON] = {}
    if backup is not None:
        of_models = {
            # The backup has the trained weights, but not the weights of frozen blocks.
            "student": digest([], [structure_of("distill", student)]),
            "frozen blocks": None if train_all else digest(before.get_weights()),
            "teacher": digest(teacher.get_weights(), [structure_of("distill", teacher)]),
        }
    with _locked(backup):
        layout = Structure("distill", student)
        prefix = layout.num_prefix_tokens
        of_teacher = features_of(teacher, prefix)
        features = remember(of_teacher, images, "float32", verbose, cache)
        if train_all:
            behind, inputs = None, images
        else:
            behind = before.layers[-1].name
            inputs = remember(before, images, "float16", verbose, cache)
        arrays = (inputs, features) if targets is None else (inputs, features, targets)
        batches = _Batches(arrays, min(batch_size, len(images)), seed=seed)
        trained = answers(student, prefix, [], behind)
        distiller = Distiller.of_answers(
            *with_kept_features(trained, teacher, features.shape[1:]),
            temperature=temperature,
            feature_weight=feature_weight,
            label_weight=0.0 if targets is None else label_weight,
            sigmoid=ends_in_sigmoid(student),
            dtype=layout.block.dtype_policy,
        )
        steps = epochs * len(batches)
        distiller.compile(adamw(learning_rate, steps, warmup_steps=steps // 10))
        # TensorFlow would trace the step twice if its first call created variables.
        distiller.optimizer.build(distiller.trainable_variables)
        initial_epoch = 0
        if backup is not None:
            loggers = [each for each in callbacks if isinstance(each, keras.callbacks.CSVLogger)]
            run: dict[str, JSON] = {
                "epochs": int(epochs),
                "batch_size": int(batch_size),
                "learning_rate": float(learning_rate),
                "temperature": float(temperature),
                "feature_weight": float(feature_weight),
                "label_weight": float(label_weight),
                "train_all": bool(train_all),
                "seed": int(seed),
                "images": digest([images]),
                "labels": None if targets is None else digest([targets]),
                **of_models,
                "backend": keras.backend.backend(),
            }
            resume = Resume(backup, batches, loggers=loggers, run=run)
            callbacks, initial_epoch = [resume, *callbacks], resume.initial_epoch
        callbacks = [StopOnNonFinite(student, "distill"), *callbacks]
        return distiller.fit(
            batches,
            epochs=epochs,
            initial_epoch=initial_epoch,
            shuffle=False,
            callbacks=callbacks,
            verbose=verbose,
        )


class _Batches(Batches):
    """Batches of stored inputs, the teacher's stored features, and labels."""

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        inputs, features, *labels = super().__getitem__(index)
        return ((inputs.astype("float32"), features), *labels)


def _locked(
    backup: str | os.PathLike[str] | None,
) -> contextlib.AbstractContextManager[None]:
    """Return a context manager that locks the folder of a backup. Without a backup, do nothing."""
    if backup is None:
        return contextlib.nullcontext()
    path = check_path("distill", "backup", backup)
    return locked("distill", path.parent, f"backup={str(path)!r}")


def _as_numpy(value: Any) -> Any:
    """Return a tensor of any backend as a numpy array, and other values unchanged.

    Tensors of TensorFlow have no rows at an array of indices, and tensors of PyTorch no `astype`.
    """
    if keras.ops.is_tensor(value):
        return keras.ops.convert_to_numpy(value)
    return value.numpy() if hasattr(value, "numpy") else value  # of another library


def _check_data(
    student: keras.Model, images: np.ndarray, labels: np.ndarray | Sequence[int] | None
) -> np.ndarray | None:
    """Return the labels as an array, or raise `ValueError` for wrong images or labels."""
    if not hasattr(images, "shape") or not hasattr(images, "__len__") or not len(images):
        raise ValueError(
            f"distill: `images` must be an array of images. Received: {repr(images)[:200]}"
        )
    if labels is None:
        return None
    if head_of(student) is None:
        raise ValueError(
            "distill: `labels` must be None for a student that does not end in a dense layer. "
            f"Received: labels of shape {np.shape(labels)}, student {student.name!r}"
        )
    classes, found = student.output_shape[-1], np.asarray(labels)
    if classes == 1 and found.dtype.kind == "f" and found.shape == (len(images),):
        found = found[:, None]
    kinds = "bfiu" if classes > 1 else "f"
    if found.shape == (len(images), classes) and found.dtype.kind in kinds:
        return found
    return check_labels("distill", "labels", labels, len(images), max(classes, 2))
