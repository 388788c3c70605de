"""Trains and evaluates a model by any recipe."""

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import keras

from keras_tokenlearner._checks import check_bool, check_path
from keras_tokenlearner._class_order import check_order
from keras_tokenlearner._errors import own_errors
from keras_tokenlearner._files import replacing, write_text
from keras_tokenlearner._json import JSON
from keras_tokenlearner.data import ImageBatches
from keras_tokenlearner.data.preprocessing import preprocessing_of
from keras_tokenlearner.models.features import clone_layer, uncompiled
from keras_tokenlearner.models.last_activation import last_activation
from keras_tokenlearner.models.state import set_weights
from keras_tokenlearner.models.vision_model import VisionModel, settings_of
from keras_tokenlearner.training.check_recipe import check_recipe, fields_of
from keras_tokenlearner.training.distribution import Devices
from keras_tokenlearner.training.finite import StopOnNonFinite
from keras_tokenlearner.training.identity import identity_of
from keras_tokenlearner.training.lock import locked
from keras_tokenlearner.training.recipes.recipe import Data, Recipe
from keras_tokenlearner.training.resume import Resume, changes
from keras_tokenlearner.weights import save_weights


@own_errors
def train(
    recipe: Recipe[Data],
    output: str | os.PathLike[str],
    devices: Devices | None = None,
    restart: bool = False,
) -> float:
    """Train a model by a recipe, and evaluate it on the test data.

    The same call continues an interrupted run after its last complete epoch. On one device, the
    continued run ends with the same weights as an uninterrupted run. Until the run ends, the folder
    `output` has a backup, `NAME.backup.npz`. NAME is the field `model` of the recipe, or
    `output_name` if the recipe has this attribute.

    While the backup exists, runs with another recipe, other data or another backend raise an error.
    Arrays are compared by their values, and files by path, size and label. Data of
    tensorflow-datasets are compared by name, version and split. The folder is locked, so two runs
    cannot write to it at the same time.

    Test images are resized by the `preprocessing` of the model, as in `evaluate`.

    Args:
        recipe: An instance of a class in `RECIPES`, such as `FashionMnistRecipe()`. Or another
            frozen dataclass with the members that `keras_tokenlearner.training.recipes` lists.
        output: Folder for the results. `NAME.keras` has the model with the weights of the last
            epoch, for `evaluate` and `load_model`. `NAME.weights.h5` has only the weights, and
            `NAME.weights.h5.sha256` their hash. `NAME.json` has the recipe and the result.
            `NAME.csv` has the losses of the epochs. `NAME.tensorboard` has the losses for
            TensorBoard, if TensorBoard and TensorFlow are installed.
        devices: The result of `keras_tokenlearner.training.distribution.scope`.
        restart: Boolean, whether to ignore the backup of an interrupted run and start again. The
            new run may also replace the results of another recipe.

    Returns:
        The test accuracy, in [0, 1]. If the model ends in a sigmoid: the area under the
        precision-recall curve, averaged over the classes. A model that ends in logits is trained as
        if a softmax followed.

    Raises:
        ValueError: If a field of the recipe is out of range, or its data cannot be opened. Also if
            the backup is of a run with other settings, or another run writes to the folder. Also if
            the run would replace the results of another recipe, or weights that the recipe reads.
            Also if the model has the classes of the data in another order. Also if the recipe
            accumulates gradients on several devices of TensorFlow.
        FloatingPointError: If the loss or a weight is not finite after an epoch.
    """
    check_bool("train", "restart", restart)
    check_recipe("train", recipe)
    devices = devices or Devices()
    devices.check_accumulation("train", getattr(recipe, "gradient_accumulation_steps", None))
    output = check_path("train", "output", output)
    if not devices.writes:
        return _train(recipe, output, devices, restart)
    output.mkdir(parents=True, exist_ok=True)
    with locked("train", output):
        return _train(recipe, output, devices, restart)


def _train(recipe: Recipe[Data], output: Path, devices: Devices, restart: bool) -> float:
    """Train and evaluate by a recipe. The folder `output` exists."""
    fields, name = fields_of("train", recipe), getattr(recipe, "output_name", recipe.model)
    stated: dict[str, JSON] = {f"recipe.{field}": value for field, value in fields.items()}
    stated["recipe"] = type(recipe).__name__
    _check_output(stated, output, name, restart)
    backup = output / f"{name}.backup.npz"
    is_new = restart or not backup.is_file()
    keras.utils.set_random_seed(recipe.seed)
    train_data, test_data = recipe.open()
    class_names = [str(each) for each in train_data.class_names]
    model = recipe.build(len(class_names))
    # A model keeps its head, for example the student of a teacher, or it has no names.
    own, fix = getattr(model, "class_names", None), "use another model or other data"
    check_order("train", "recipe.build", own, class_names, "the recipe's data", fix)
    if (
        isinstance(model, VisionModel)
        and model.class_names is None
        and model.classes == len(class_names)  # a model may have more outputs, or no top
    ):
        model.class_names = class_names  # for `predict` and `export` of the saved model
    test_batches = recipe.batches(test_data, model.input_shape[1:], training=False)
    if isinstance(test_batches, ImageBatches):  # a recipe's `batches` does not know the model
        test_batches.preprocessing = test_batches.preprocessing or preprocessing_of(model)
    loggers = [keras.callbacks.CSVLogger(output / f"{name}.csv")] if devices.writes else []
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
        **stated,
        "backend": keras.backend.backend(),
        "training examples": len(train_data),
        "training data": identity_of(train_data),
        "test data": identity_of(test_data),
        "class names": class_names,
    }
    resume = Resume(backup, batches, loggers=loggers, devices=devices, run=run, restart=restart)
    boards = _boards(output / f"{name}.tensorboard", is_new) if devices.writes else []
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
            trained = _without_optimizer(model)
            set_weights(trained, weights)
        digest = save_weights(trained, output / f"{name}.weights.h5")
        with replacing(output / f"{name}.keras") as new:
            trained.save(new)
        result = {
            "recipe": fields,
            "recipe_class": stated["recipe"],
            "backend": keras.backend.backend(),
            "class_names": class_names,
            "test_examples": len(test_data),
            f"test_{metric.name}": score,
            f"last_train_{metric.name}": history[metric.name][-1],
            "sha256": digest,
        }
        write_text(output / f"{name}.json", json.dumps(result, indent=2) + "\n")
        backup.unlink(missing_ok=True)
    return score


def _check_output(stated: Mapping[str, JSON], output: Path, name: str, restart: bool) -> None:
    """Raise `ValueError` if a run would replace weights that it reads, or other results.

    Args:
        stated: The class of the recipe and its fields.
        output: Folder for the results.
        name: Start of the names of the results.
        restart: Whether the run may replace the results of another recipe.
    """
    written = [output / f"{name}.{end}" for end in ("weights.h5", "keras")]
    places = [os.path.realpath(path) for path in written]
    for field, value in stated.items():
        # A source may precede a path, as in "keras_tokenlearner:FILE".
        paths = [value, value.partition(":")[2]] if isinstance(value, str) else []
        if any(os.path.realpath(os.path.expanduser(path)) in places for path in paths):
            field = field.removeprefix("recipe.")
            raise ValueError(
                f"train: `output` must be another folder, because the run would replace the file "
                f"of `{field}`. Received: output={str(output)!r}, {field}={value!r}"
            )
    result, backup = output / f"{name}.json", output / f"{name}.backup.npz"
    # While a backup exists, `Resume` compares the runs.
    if restart or backup.is_file() or not any(path.is_file() for path in (*written, result)):
        return
    try:
        found = json.loads(result.read_text(encoding="utf-8"))
        saved = {f"recipe.{field}": value for field, value in found["recipe"].items()}
        changed = changes({**saved, "recipe": found.get("recipe_class")}, stated)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        changed = [f"no readable {result.name}"]
    if changed:
        raise ValueError(
            f"train: `output` has results of another recipe, {name}.*; pass another folder, or "
            "`restart=True` (`--restart`) to replace them. "
            f"Received: output={str(output)!r} with {'; '.join(changed)}"
        )


def _without_optimizer(model: keras.Model) -> keras.Model:
    """Return an untrained copy of a model, without the state of an optimizer."""
    if isinstance(model, VisionModel):  # `clone_model` would return a plain `keras.Model`
        return type(model).from_config(settings_of(model))
    return keras.models.clone_model(uncompiled(model), clone_function=clone_layer)


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


def _boards(folder: Path, is_new: bool) -> list[keras.callbacks.Callback]:
    """Return Keras's callback for TensorBoard, if its libraries are installed.

    A new run deletes the logs of an earlier run, because TensorBoard would show both as one.
    """
    if is_new:
        shutil.rmtree(folder, ignore_errors=True)
    if not all(map(importlib.util.find_spec, ("tensorboard", "tensorflow"))):
        return []
    return [keras.callbacks.TensorBoard(folder, write_graph=False)]
