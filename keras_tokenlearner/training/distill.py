import keras
import numpy as np

from keras_tokenlearner._checks import (
    check_bool,
    check_fraction,
    check_int,
    check_not_negative,
    check_positive,
)
from keras_tokenlearner.data import Batches
from keras_tokenlearner.models.head import before_head, has_head
from keras_tokenlearner.models.reduction import before_reducer
from keras_tokenlearner.training.finite import StopOnNonFinite
from keras_tokenlearner.training.optimizers import adamw
from keras_tokenlearner.training.remember import remember
from keras_tokenlearner.training.resume import Resume


def distill(
    student,
    teacher,
    images,
    labels=None,
    epochs=8,
    batch_size=64,
    learning_rate=3e-4,
    temperature=2.0,
    feature_weight=1.0,
    label_weight=0.5,
    train_all=False,
    cache=None,
    backup=None,
    callbacks=None,
    verbose="auto",
    seed=0,
):
    """Train a student with learned tokens to answer as its teacher does.

    The loss is `(1 - label_weight) (KL(teacher, student) + feature_weight MSE(features)) +
    label_weight CE(labels)`, by `keras.distillation`: the logits softened by the temperature, the
    features those that the head reads. Without labels only the first part is left, and of models
    without top only the features.

    The teacher runs over the images once. The blocks before the first TokenLearner stay as they
    are, and what they give is kept too, in float16, so that an epoch costs the upper part of the
    student alone. That takes `2 * tokens * C` bytes an image, of memory or, with `cache`, of disk.

    Args:
        student: What `retrofit` made of the teacher, trained in place.
        teacher: The plain model. It stays as it is.
        images: Array of what the models take, (n, ...).
        labels: Integer array of shape (n,), or `None`.
        epochs: Integer, passes over the images.
        batch_size: Integer.
        learning_rate: Float, the highest of AdamW's, after a tenth of the steps; cosine to zero.
        temperature: Float, of the logits.
        feature_weight: Float, of the features beside the logits.
        label_weight: Float in [0, 1], of the labels.
        train_all: Boolean, whether to train the blocks before the TokenLearner as well.
        cache: Folder to keep what the teacher and the blocks before the TokenLearner give, for more
            students of the same teacher and images.
        backup: Path of a file that ends in `.npz`, written after every epoch, or `None`. A run that
            was broken off goes on from it when the same is asked again, and ends as if it had not
            been. It stays; delete it when the student is saved.
        callbacks: List of `keras.callbacks.Callback`, for `fit`.
        verbose: As for `fit`.
        seed: Integer, of the order of the images.

    Returns:
        The `keras.callbacks.History` of the fit.

    Raises:
        ValueError: If the student has no TokenLearner, the models do not fit each other, or an
            argument is out of range; or if the backup is damaged or of another student.

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
    _check_data(student, teacher, images, labels)
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        check_int("distill", name, value)
    check_positive("distill", "learning_rate", learning_rate)
    check_positive("distill", "temperature", temperature)
    check_not_negative("distill", "feature_weight", feature_weight)
    check_fraction("distill", "label_weight", label_weight)
    check_bool("distill", "train_all", train_all)
    features = remember(before_head(teacher), images, "float32", verbose, cache)
    if train_all:
        first, inputs = student.input, images
    else:
        first, inputs = before.output, remember(before, images, "float16", verbose, cache)
    arrays = (inputs, features) if labels is None else (inputs, features, np.asarray(labels))
    batches = _Batches(arrays, min(batch_size, len(images)), seed=seed)
    trained = keras.Model(first, _answers(student))
    classes = student.output_shape[-1] if has_head(student) else 0
    distiller = _distiller(
        trained,
        teacher.get_layer("head") if classes else None,
        temperature,
        feature_weight,
        0.0 if labels is None else label_weight,
    )
    steps = epochs * len(batches)
    distiller.compile(
        adamw(learning_rate, steps, warmup_steps=steps // 10),
        loss=lambda y, answers: keras.losses.sparse_categorical_crossentropy(
            y, answers[:, :classes], from_logits=True
        ),
    )
    callbacks, initial_epoch = list(callbacks or ()), 0
    if backup is not None:
        loggers = [each for each in callbacks if isinstance(each, keras.callbacks.CSVLogger)]
        resume = Resume(backup, batches, loggers=loggers)
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
    """Batches of inputs and the teacher's features, which are remembered, and labels."""

    def __getitem__(self, index):
        inputs, features, *labels = super().__getitem__(index)
        return ((inputs.astype("float32"), features), *labels)


class _OfLogits(keras.distillation.LogitsDistillation):
    """On the first entries of answers, which are logits."""

    def __init__(self, classes, temperature):
        # As an instance: by its name Keras 3.15 takes the loss of raw logits, without a softmax.
        super().__init__(temperature, keras.losses.KLDivergence())
        self.classes = classes

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        logits = (outputs[:, : self.classes] for outputs in (teacher_outputs, student_outputs))
        return super().compute_loss(*logits, **kwargs)


class _OfFeatures(keras.distillation.FeatureDistillation):
    """On the other entries, which are features."""

    def __init__(self, classes):
        super().__init__("mse")
        self.classes = classes

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        features = (outputs[:, self.classes :] for outputs in (teacher_outputs, student_outputs))
        return super().compute_loss(*features, **kwargs)


def _distiller(trained, head, temperature, feature_weight, label_weight):
    """Return a distiller whose teacher is a head, on the features that come with each batch."""
    x = keras.Input(trained.input_shape[1:], name="x")
    classes = head.units if head else 0
    features = keras.Input((trained.output_shape[-1] - classes,), name="features")
    losses, weights = [_OfFeatures(classes)], [feature_weight]
    if head:
        copy = keras.layers.Dense.from_config(head.get_config())  # the teacher's stays trainable
        answers = keras.layers.Concatenate(dtype="float32")([copy(features), features])
        copy.set_weights(head.get_weights())
        losses, weights = [*losses, _OfLogits(classes, temperature)], [*weights, 1.0]
    else:
        answers = keras.layers.Identity(dtype="float32")(features)
    return keras.distillation.Distiller(
        teacher=keras.Model([x, features], answers),
        student=keras.Model([x, features], trained(x)),
        distillation_losses=losses,
        distillation_loss_weights=weights,
        student_loss_weight=label_weight,
    )


def _answers(model):
    """Return the tensor of a model's logits, where it has a head, and the features behind them."""
    if not has_head(model):
        return keras.layers.Identity(dtype="float32")(model.output)
    head = model.get_layer("head")
    return keras.layers.Concatenate(dtype="float32")([head.output, head.input])


def _check_data(student, teacher, images, labels):
    if teacher.input_shape != student.input_shape or teacher.output_shape != student.output_shape:
        raise ValueError(
            "distill: student and teacher must take and give the same shapes. Received: student "
            f"{student.input_shape} to {student.output_shape}, teacher {teacher.input_shape} to "
            f"{teacher.output_shape}"
        )
    if len(student.output_shape) != 2:
        raise ValueError(
            "distill: the models must have a top, or pooling, so that they give (B, C). Received: "
            f"outputs of shape {student.output_shape}"
        )
    if labels is not None and (not has_head(student) or np.shape(labels) != (len(images),)):
        raise ValueError(
            "distill: `labels` must be integers, one for each image, for models with a top. "
            f"Received: labels of shape {np.shape(labels)} for {len(images)} images"
        )
