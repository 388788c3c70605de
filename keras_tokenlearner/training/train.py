"""Training by a recipe, of whatever kind."""

import json
from dataclasses import asdict
from pathlib import Path

import keras

from keras_tokenlearner.weights import save_weights


def train(recipe, output):
    """Train a model by a recipe, and score it on the test data.

    A run that was broken off goes on from its last epoch when it is started again.

    Args:
        recipe: One of `RECIPES`, such as a `FashionMnistRecipe`.
        output: Folder for `NAME.weights.h5`, the weights of the last epoch, with their sha256, and
            `NAME.json`, the recipe and the result.

    Returns:
        The test accuracy, in [0, 1].
    """
    keras.utils.set_random_seed(recipe.seed)
    train_data, test_data = recipe.open()
    model = recipe.build(len(train_data.class_names))
    batches = recipe.batches(train_data, model.input_shape[1:], training=True)
    test_batches = recipe.batches(test_data, model.input_shape[1:], training=False)
    model.compile(
        recipe.optimizer(len(batches)),
        keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
        metrics=["accuracy"],
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    name, output = recipe.model, Path(output)
    output.mkdir(parents=True, exist_ok=True)
    history = model.fit(
        batches,
        epochs=recipe.epochs,
        validation_data=test_batches,
        shuffle=False,  # the batches are shuffled already, by the seed
        verbose=2,
        callbacks=[
            keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: batches.start(epoch)),
            keras.callbacks.BackupAndRestore(output / f"{name}.backup"),
        ],
    )
    accuracy = float(model.evaluate(test_batches, verbose=0)[1])
    trained = keras.models.clone_model(model)  # without the state of the optimizer
    trained.set_weights(model.get_weights())
    digest = save_weights(trained, output / f"{name}.weights.h5")
    result = {
        "recipe": asdict(recipe),
        "backend": keras.backend.backend(),
        "test_images": len(test_data),
        "test_accuracy": accuracy,
        "last_train_accuracy": history.history.get("accuracy", [None])[-1],
        "sha256": digest,
    }
    (output / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    return accuracy
