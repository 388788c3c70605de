import math
from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

import keras
import numpy as np
from keras import ops

from keras_tokenlearner._checks import (
    check_fraction,
    check_int,
    check_not_negative,
    check_positive,
)
from keras_tokenlearner.models.features import clone_layer
from keras_tokenlearner.models.state import set_weights
from keras_tokenlearner.models.structure import Structure
from keras_tokenlearner.models.vision_model import Policy
from keras_tokenlearner.training.distillation.answers import (
    FEATURES,
    LOGITS,
    PREDICTIONS,
    answers,
    with_budget,
)
from keras_tokenlearner.training.distillation.checks import (
    blocks_behind,
    check_budgets,
    check_copied,
    check_models,
    ends_in_sigmoid,
    part_behind,
)
from keras_tokenlearner.training.distillation.reconstruction import Reconstruction

Function: TypeAlias = Callable[[keras.KerasTensor, keras.KerasTensor], keras.KerasTensor]


class Distiller(keras.Model):
    """Trains a student to reproduce the outputs of its teacher, by `fit` on any kind of data.

    The loss is `(1 - label_weight) (KL(teacher, student) + feature_weight MSE(features) +
    reconstruction_weight MSE(tokens)) + label_weight CE(labels)`.

    * The head is the last dense layer, with any name. Its outputs before a softmax or a sigmoid are
      the logits. Outputs without activation are the logits of a softmax.
    * KL compares the logits divided by `temperature`, and is multiplied by `temperature ** 2`. If
      the head ends in a sigmoid, KL compares the Bernoulli distributions of each class.
    * `features` are the inputs of the head: class token, registers, average or attention pooling.
      Without a head, `features` are the outputs. Output tokens are averaged, except for prefix
      tokens.
    * `tokens` are the outputs of the teacher's blocks that follow the reducer in the student. An
      auxiliary module reconstructs these outputs from the student's tokens, in training only.
    * Batches without labels leave out CE and the factor `1 - label_weight`. Models without head
      leave out KL. Labels for these models need a `loss` in `compile`, or `label_weight=0`.
    * `sample_weight` and `class_weight` of `fit` multiply all terms of an example.

    Teacher and student take the same batch, so they see the same augmented pixels. Layers of the
    student with `trainable=False` stay unchanged. The teacher stays unchanged: the distiller has a
    copy of its weights.

    Args:
        student: A model with a TokenLearner or another reducer, for example from
            `retrofit(teacher, ...)`. Training changes its weights.
        teacher: The plain model, with the same inputs and outputs, and float weights without LoRA.
        temperature: Float, divides the logits before the softmax.
        feature_weight: Float, weight of the features; the weight of the logits is 1. With 0, the
            shapes of the features may differ.
        label_weight: Float in [0, 1], weight of the labels.
        reconstruction_weight: Float, weight of the reconstructed tokens; 0 for none. A positive
            weight needs a student with blocks after the reducer, and a teacher with the same
            blocks.
        budgets: Numbers of tokens. Each training step draws one number for the student's
            TokenLearner. Afterwards `with_tokens(student, n)` returns a model with `n` tokens.
            `None` for all tokens in all steps. Needs `retrofit(..., token_start="grid")`.
        seed: Integer, decides the draws of `budgets`.
        behind: Name of a layer of both models, for example `"block_2"`. Pass outputs of this layer
            to `fit`, computed beforehand, instead of images. The layers up to `behind` do not run
            and do not change. `None` for the usual inputs of the models. A teacher with rotary
            positions needs `None`.
        name: Name of the distiller.

    Attributes:
        student: The model that is trained.

    Raises:
        ValueError: If the shapes or the last activations of the models do not match, or an argument
            is out of range. Also if a model inside the student or the teacher computes the
            probabilities. Also if the teacher is quantized or has LoRA weights.

    Example:

    >>> images, labels = np.random.rand(8, 32, 32, 3) * 255, np.arange(8)
    >>> teacher = create_model("vit_pico8", classes=10)
    >>> distiller = Distiller(retrofit(teacher, at=1, num_tokens=4), teacher)
    >>> distiller.compile("adamw", metrics=["accuracy"])
    >>> history = distiller.fit(images, labels, batch_size=4, verbose=0)
    >>> sorted(history.history)
    ['accuracy', 'distillation_loss', 'loss', 'student_loss']

    Source: logits: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.
    Tokens: Zong et al., "Self-slimmed Vision Transformer", 2022. Budgets: Hu et al., "Matryoshka
    Query Transformer for Large Vision-Language Models", 2024.
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model,
        temperature: float = 2.0,
        feature_weight: float = 1.0,
        label_weight: float = 0.5,
        reconstruction_weight: float = 0.0,
        budgets: Sequence[int] | None = None,
        seed: int = 0,
        behind: str | None = None,
        name: str = "distiller",
    ) -> None:
        check_models("Distiller", student, teacher, feature_weight)
        check_copied(teacher)
        seed = check_int("Distiller", "seed", seed, minimum=0)
        layout = Structure("Distiller", student)
        # The dtype decides whether `compile` scales losses. Inputs are not cast to this dtype.
        super().__init__(name=name, dtype=layout.block.dtype_policy, autocast=False)
        self._set_weights_of_losses(
            temperature, feature_weight, label_weight, reconstruction_weight
        )
        blocks = blocks_behind(layout, student, teacher) if reconstruction_weight else []
        prefix = layout.num_prefix_tokens
        upper = part_behind(student, teacher, behind)
        copy = keras.models.clone_model(upper, clone_function=clone_layer)
        set_weights(copy, upper.get_weights())
        of_teacher = answers(copy, prefix, blocks)
        of_teacher.trainable = False
        # Untracked by Keras: otherwise `fit` would train all layers of the student, also the layers
        # before `behind`.
        object.__setattr__(self, "student", student)
        of_student = answers(student, prefix, blocks, behind)
        self._teach(of_teacher, of_student, ends_in_sigmoid(student))
        self.budgets = None if budgets is None else check_budgets(student, budgets)
        self._draws = keras.random.SeedGenerator(seed)
        if self.budgets:  # untracked by Keras, since these models share the student's weights
            models = tuple(with_budget(self._answers, m) for m in self.budgets)
            object.__setattr__(self, "_by_budget", models)
        patches = math.prod(layout.grid)
        for block in blocks:
            self._add_reconstruction(block, student, patches, prefix)

    @classmethod
    def of_answers(
        cls,
        student: keras.Model,
        teacher: keras.Model,
        temperature: float,
        feature_weight: float,
        label_weight: float,
        sigmoid: bool,
        dtype: Policy = None,
    ) -> "Distiller":
        """Return a distiller of two models whose outputs are the dictionary of `answers`.

        `dtype` is the dtype policy of the student's layers. Defaults to the global policy.
        """
        distiller = cls.__new__(cls)
        keras.Model.__init__(distiller, name="distiller", dtype=dtype, autocast=False)
        distiller._set_weights_of_losses(temperature, feature_weight, label_weight, 0.0)
        teacher.trainable = False
        object.__setattr__(distiller, "student", student)
        distiller._teach(teacher, student, sigmoid)
        return distiller

    def _set_weights_of_losses(
        self, temperature: float, features: float, labels: float, reconstruction: float
    ) -> None:
        self.temperature = check_positive("Distiller", "temperature", temperature)
        self.feature_weight = check_not_negative("Distiller", "feature_weight", features)
        self.label_weight = check_fraction("Distiller", "label_weight", labels)
        self.reconstruction_weight = check_not_negative(
            "Distiller", "reconstruction_weight", reconstruction
        )

    def _teach(self, teacher: keras.Model, student: keras.Model, sigmoid: bool) -> None:
        self._teacher, self._answers, self._sigmoid = teacher, student, sigmoid
        self._reconstructions: dict[str, Reconstruction] = {}
        self._by_budget, self.budgets = (), None
        self._label_loss: keras.losses.Loss | None = None
        self._student_loss = keras.metrics.Mean(name="student_loss")
        self._distillation_loss = keras.metrics.Mean(name="distillation_loss")

    def _add_reconstruction(
        self, block: str, student: keras.Model, patches: int, prefix: int
    ) -> None:
        layer = Reconstruction(
            patches,
            prefix,
            dtype=student.get_layer(block).dtype_policy,
            name=f"reconstruction_{block}",
        )
        layer.build(student.get_layer(block).output.shape)
        self._reconstructions[block] = layer

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "adamw",
        loss: str | keras.losses.Loss | Function | None = None,
        metrics: Sequence[str | keras.metrics.Metric] | None = None,
        **kwargs: bool | str | int | None,
    ) -> None:
        """Configure training as `keras.Model.compile` does.

        Args:
            optimizer: Name or instance of an optimizer.
            loss: Name, function or instance of a loss between labels and the student's
                predictions. Defaults to the cross-entropy of labels and logits. Labels are
                integers, (B,), or a value for each class, (B, classes).
            metrics: Metrics of labels and the student's predictions.
            **kwargs: Other arguments of `keras.Model.compile`.
        """
        found = keras.losses.get(loss)  # a function for a name such as "mse"
        is_loss = found is None or isinstance(found, keras.losses.Loss)
        self._label_loss = found if is_loss else _FunctionLoss(found)
        super().compile(optimizer, loss=None, metrics=metrics, **kwargs)

    def call(
        self, inputs: keras.KerasTensor, training: bool | None = None
    ) -> dict[str, keras.KerasTensor]:
        if not training or not self._by_budget:
            return self._guessed(self._answers(inputs, training=training))
        index = keras.random.randint((), 0, len(self._by_budget), seed=self._draws)

        def answer(model: keras.Model) -> dict[str, keras.KerasTensor]:
            return self._guessed(model(inputs, training=True))

        if keras.backend.backend() == "torch":
            return answer(self._by_budget[int(index)])
        return ops.switch(index, [lambda m=m: answer(m) for m in self._by_budget])

    def _guessed(self, found: dict[str, keras.KerasTensor]) -> dict[str, keras.KerasTensor]:
        """Return the outputs of the student, with reconstructions of the teacher's tokens."""
        return {
            name: self._reconstructions[name](x) if name in self._reconstructions else x
            for name, x in found.items()
        }

    def compute_loss(
        self,
        x: keras.KerasTensor | None = None,
        y: keras.KerasTensor | None = None,
        y_pred: dict[str, keras.KerasTensor] | None = None,
        sample_weight: keras.KerasTensor | None = None,
        training: bool = True,
    ) -> keras.KerasTensor:
        taught = keras.tree.map_structure(
            lambda tensor: ops.stop_gradient(ops.cast(tensor, "float32")),
            self._teacher(x, training=False),
        )
        given = cast("dict[str, keras.KerasTensor]", y_pred)
        found = {name: ops.cast(tensor, "float32") for name, tensor in given.items()}
        # `keras.distillation` has no losses of single examples, which `sample_weight` needs.
        # With weight 0, the shapes of the features may differ.
        error = taught[FEATURES] - found[FEATURES] if self.feature_weight else found[FEATURES]
        losses = self.feature_weight * _mean_square(error)
        if LOGITS in found:
            losses = losses + self._of_logits(taught[LOGITS], found[LOGITS])
        if self._reconstructions:
            parts = [_mean_square(taught[name] - found[name]) for name in self._reconstructions]
            losses = losses + self.reconstruction_weight * sum(parts) / len(parts)
        if sample_weight is not None:
            losses = losses * ops.reshape(ops.cast(sample_weight, losses.dtype), (-1,))
        loss, size = ops.mean(losses), ops.shape(losses)[0]
        self._distillation_loss.update_state(loss, sample_weight=size)
        if y is not None and self.label_weight:
            of_labels = self._of_labels(y, found, sample_weight)
            self._student_loss.update_state(of_labels, sample_weight=size)
            loss = (1 - self.label_weight) * loss + self.label_weight * of_labels
        regularization = sum(self.losses) if self.losses else 0.0
        return (loss + regularization) / replicas()  # Keras adds the gradients of the replicas

    def _of_logits(
        self, teacher: keras.KerasTensor, student: keras.KerasTensor
    ) -> keras.KerasTensor:
        """Return the divergence of each example, (B,)."""
        teacher, student = teacher / self.temperature, student / self.temperature
        if not self._sigmoid:
            found = keras.losses.kl_divergence(ops.softmax(teacher), ops.softmax(student))
            return self.temperature**2 * found
        wanted = ops.sigmoid(teacher)
        cross = ops.binary_crossentropy(wanted, student, from_logits=True)
        entropy = ops.binary_crossentropy(wanted, teacher, from_logits=True)
        return self.temperature**2 * ops.mean(cross - entropy, axis=-1)

    def _of_labels(
        self,
        y: keras.KerasTensor,
        found: dict[str, keras.KerasTensor],
        sample_weight: keras.KerasTensor | None,
    ) -> keras.KerasTensor:
        if LOGITS not in found and self._label_loss is None:
            raise ValueError(
                "Distiller: labels need models with a head; remove the labels from the data, or "
                f"pass `loss` to `compile`. Received: labels of shape {y.shape}, outputs of shape "
                f"{found[PREDICTIONS].shape}"
            )
        if self._label_loss is not None:
            of_replica = self._label_loss(y, found[PREDICTIONS], sample_weight=sample_weight)
            return of_replica * replicas()  # Keras has divided by the replicas
        logits = found[LOGITS]
        has_rows = len(y.shape) == 2 and y.shape[-1] == logits.shape[-1]
        if self._sigmoid:
            kind = keras.losses.BinaryCrossentropy
            if not has_rows and logits.shape[-1] > 1:
                y = ops.one_hot(ops.cast(ops.reshape(y, (-1,)), "int32"), logits.shape[-1])
        elif has_rows:
            kind = keras.losses.CategoricalCrossentropy
        else:
            kind = keras.losses.SparseCategoricalCrossentropy
        values = kind(from_logits=True, reduction="none")(y, logits, sample_weight=sample_weight)
        return ops.mean(values)

    def compute_metrics(
        self,
        x: keras.KerasTensor,
        y: keras.KerasTensor | None,
        y_pred: dict[str, keras.KerasTensor],
        sample_weight: keras.KerasTensor | None = None,
    ) -> dict[str, keras.KerasTensor]:
        if y is None:  # without labels, Keras would compare the predictions with None
            return self.get_metrics_result()
        return super().compute_metrics(x, y, y_pred[PREDICTIONS], sample_weight)

    def get_metrics_result(self) -> dict[str, keras.KerasTensor]:
        found: dict[str, keras.KerasTensor] = {}
        for metric in self.metrics:
            # Keras builds the metrics of labels at the first batch with labels.
            if getattr(metric, "built", True):
                result = metric.result()
                found |= result if isinstance(result, dict) else {metric.name: result}
        return found

    def predict(self, *args: np.ndarray, **kwargs: int | str | None) -> np.ndarray:
        """Return `student.predict(...)`."""
        return self.student.predict(*args, **kwargs)


class _FunctionLoss(keras.losses.Loss):
    """The loss of a function, such as `keras.losses.categorical_crossentropy`.

    Keras has such a class too, but it is not public.
    """

    def __init__(self, function: Function) -> None:
        super().__init__(name="function_loss")
        self.function = function

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        if len(y_true.shape) < len(y_pred.shape) and y_pred.shape[-1] == 1:
            y_true = ops.expand_dims(y_true, -1)
        return self.function(y_true, y_pred)


def _mean_square(x: keras.KerasTensor) -> keras.KerasTensor:
    """Return the mean of the squares of each example, (B,)."""
    return ops.mean(ops.square(x), axis=tuple(range(1, len(x.shape))))


def replicas() -> int:
    """Return the number of replicas of the TensorFlow strategy in use, or 1 on other backends."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return int(tf.distribute.get_strategy().num_replicas_in_sync)
