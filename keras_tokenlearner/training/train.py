"""Trains and evaluates a model by any recipe."""

import importlib.util
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import keras

from keras_tokenlearner._checks import check_bool, check_path
from keras_tokenlearner._errors import own_errors
from keras_tokenlearner._files import write_text
from keras_tokenlearner.data import ImageBatches
from keras_tokenlearner.data.preprocessing import preprocessing_of
from keras_tokenlearner.models.last_activation import last_activation
from keras_tokenlearner.training.check_recipe import check_recipe
from keras_tokenlearner.training.distribution import Devices
from keras_tokenlearner.training.finite import StopOnNonFinite
from keras_tokenlearner.training.identity import identity_of
from keras_tokenlearner.training.lock import locked
from keras_tokenlearner.training.recipes.recipe import Data, Recipe
from keras_tokenlearner.training.resume import Resume
from keras_tokenlearner.weights import save_weights


@own_errors
def train(
    recipe: Recipe[Data],
    output: str | os.PathLike[str],
    devices: Devices | None = None,
    restart: bool = False,
) -> float:
    """Train a model by a recipe, and evaluate it on the test data.

    The same call continues an interrupted run from its last epoch, and ends with the same weights.
    Until the run ends, the folder `output` has a backup, `NAME.backup.npz`. NAME is the field
    `model` of the recipe. While the backup exists, runs with another recipe, other data or another
    backend raise an error. Data are compared by the values of arrays, and by the paths, sizes and
    labels of files. The folder is locked, so two runs cannot write to it.

    Test images are resized by the `preprocessing` of the model, as by `evaluate`.

    Args:
        recipe: One of `RECIPES`, such as a `FashionMnistRecipe`, or another frozen dataclass with
            the members that `keras_tokenlearner.training.recipes` lists.
        output: Folder for the results. `NAME.weights.h5` has the weights of the last epoch, and
            `NAME.weights.h5.sha256` their hash. `NAME.json` has the recipe and the result.
            `NAME.csv` has the losses of the epochs. `NAME.tensorboard` has the losses for
            TensorBoard, if TensorBoard and TensorFlow are installed.
        devices: The result of `keras_tokenlearner.training.distribution.scope`.
        restart: Boolean, whether to delete the backup of an interrupted run and start again.

    Returns:
        The test accuracy, in [0, 1]. If the model ends in a sigmoid: the area under the
        precision-recall curve, averaged over the classes. Logits without activation count as the
        logits of a softmax.

    Raises:
        ValueError: If a field of the recipe is out of range, or its data cannot be opened. Also if
            the backup is of a run with other settings, or another run writes to the folder.
        FloatingPointError: If the loss or a weight is not finite after an epoch.
    """
    check_bool("train", "restart", restart)
    check_recipe("train", recipe)
    devices = devices or Devices()
    output = check_path("train", "output", output)
    if not devices.writes:
        return _train(recipe, output, devices)
    output.mkdir(parents=True, exist_ok=True)
    with locked("train", output):
        if restart:
            (output / f"{recipe.model}.backup.npz").unlink(missing_ok=True)
        return _train(recipe, output, devices)


def _train(recipe: Recipe[Data], output: Path, devices: Devices) -> float:
    """Train and evaluate by a recipe. The folder `output` exists."""
    keras.utils.set_random_seed(recipe.seed)
    train_data, test_data = recipe.open()
    model = recipe.build(len(train_data.class_names))
    test_batches = recipe.batches(test_data, model.input_shape[1:], training=False)
    if isinstance(test_batches, ImageBatches):  # a recipe's `batches` does not know the model
        test_batches.preprocessing = test_batches.preprocessing or preprocessing_of(model)
    name = recipe.model
    backup = output / f"{name}.backup.npz"
    loggers = [keras.callbacks.CSVLogger(output / f"{name}.csv")] if devices.writes else []
    boards = _boards(output / f"{name}.tensorboard") if devices.writes else []
    loss, metric = _objective(model, recipe.label_smoothing)
    batches = recipe.batches(train_data, model.input_shape[1:], training=True)
    learner = recipe.learner(model) if hasattr(recipe, "learner") else model
    if learner is not model:
        model.compile(loss=loss, metrics=[metric])  # metrics for the score below
    learner.compile(
        recipe.optimizer(len(batches)),
        loss if learner is model else None,
        metrics=[metric],
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    run = {
        **{f"recipe.{field}": value for field, value in asdict(recipe).items()},
        "recipe": type(recipe).__name__,
        "backend": keras.backend.backend(),
        "training examples": len(train_data),
        "training data": identity_of(train_data),
        "test data": identity_of(test_data),
        "class names": [str(each) for each in train_data.class_names],
    }
    resume = Resume(backup, batches, loggers=loggers, devices=devices, run=run)
    history = devices.fit(
        learner,
        batches,
        epochs=recipe.epochs,
        initial_epoch=resume.initial_epoch,
        validation_data=test_batches,
        verbose=1 if sys.stdout.isatty() else 2,  # else one line per epoch
        callbacks=[StopOnNonFinite(owner="train", devices=devices), resume, *loggers, *boards],
    ).history
    # With mixed_float16, Keras wraps the optimizer in a `LossScaleOptimizer`.
    optimizer = getattr(learner.optimizer, "inner_optimizer", learner.optimizer)
    if not optimizer.use_ema:
        score = history[f"val_{metric.name}"][-1]
    else:  # averaged weights may have replaced the weights after the last epoch
        score = devices.evaluate(model, test_batches)[metric.name]
    weights = devices.weights(model)
    if devices.writes:
        with devices.alone():
            trained = keras.models.clone_model(model)
            trained.set_weights(weights)
            alone = keras.Model(trained.input, trained.output)  # a model without optimizer state
        digest = save_weights(alone, output / f"{name}.weights.h5")
        result = {
            "recipe": asdict(recipe),
            "backend": keras.backend.backend(),
            "test_examples": len(test_data),
            f"test_{metric.name}": score,
            f"last_train_{metric.name}": history[metric.name][-1],
            "sha256": digest,
        }
        write_text(output / f"{name}.json", json.dumps(result, indent=2) + "\n")
        backup.unlink(missing_ok=True)
    return score


def _objective(
    model: keras.Model, label_smoothing: float
) -> tuple[keras.losses.Loss, keras.metrics.Metric]:
    """Return the loss and the metric for the last activation of a model."""
    activation, is_dense = last_activation(model)
    if activation != "sigmoid":
        loss = keras.losses.CategoricalCrossentropy(
            from_logits=activation == "linear" and is_dense, label_smoothing=label_smoothing
        )
        return loss, keras.metrics.CategoricalAccuracy(name="accuracy")
    classes = model.output_shape[-1]
    area = keras.metrics.AUC(curve="PR", multi_label=True, num_labels=classes, name="auc_pr")
    return keras.losses.BinaryCrossentropy(label_smoothing=label_smoothing), area


def _boards(folder: Path) -> list[keras.callbacks.Callback]:
    """Return Keras's callback for TensorBoard, if its libraries are installed."""
    if not all(map(importlib.util.find_spec, ("tensorboard", "tensorflow"))):
        return []
    return [keras.callbacks.TensorBoard(folder, write_graph=False)]
