"""Training of the small models on Fashion-MNIST, the one behind the weights that ship."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import keras

from keras_tokenlearner.applications import create_model
from keras_tokenlearner.data import ImageBatches, load_fashion_mnist
from keras_tokenlearner.training.distribution import Devices
from keras_tokenlearner.training.optimizers import muon
from keras_tokenlearner.training.resume import Resume
from keras_tokenlearner.weights import save_weights


@dataclass(frozen=True)
class FashionMnistRecipe:
    """Muon for a small model on 28 x 28 images, the same for plain and TokenLearner models.

    Command: `keras-tokenlearner train fashion_mnist --set model=NAME --set source=FOLDER`, with
    `vit_nano4` or `tokenlearner_nano4_8at2` and the folder of the four `.gz` files. It needs two
    CPU cores and about an hour a model. The numbers to expect, measured by us, are in the README.

    Attributes:
        model: Name in the catalogue, of a model for 28 x 28 x 1 images.
        source: What `load_fashion_mnist` takes.
        epochs: Passes over the training images.
        batch_size: Images a step.
        learning_rate: The highest, reached after the warm-up; cosine to zero from there.
        warmup_epochs: Epochs of linear warm-up.
        weight_decay: Of all but biases, norms and positions.
        label_smoothing: Of the cross-entropy.
        shift: Largest random shift, in pixels.
        seed: Of weights, order and augmentation.
    """

    model: str = "tokenlearner_nano4_8at2"
    source: str = "sample"
    epochs: int = 28
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup_epochs: int = 1
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    shift: int = 1
    seed: int = 0

    def augmentation(self):
        """Return the layers that vary the training images, on pixels in [0, 255]."""
        shift = self.shift / 28
        return keras.layers.Pipeline(
            [
                keras.layers.RandomFlip("horizontal", seed=self.seed),
                keras.layers.RandomTranslation(
                    shift, shift, fill_mode="constant", interpolation="nearest", seed=self.seed
                ),
            ]
        )

    def optimizer(self, steps_per_epoch):
        """Return Muon with warm-up and cosine decay over the whole run."""
        return muon(
            self.learning_rate,
            self.epochs * steps_per_epoch,
            self.warmup_epochs * steps_per_epoch,
            self.weight_decay,
        )


def train(recipe, output, devices=None):
    """Train a model on Fashion-MNIST, and score it on the test images.

    A run that was broken off, in whatever way, goes on from its last epoch when it is started
    again, and ends with the same weights. Its backup is `NAME.backup.npz`, until it has ended.

    Args:
        recipe: A `FashionMnistRecipe`.
        output: Folder for `NAME.weights.h5`, the weights of the last epoch, with their sha256,
            `NAME.json`, the recipe and the result, and `NAME.csv`, the losses of the epochs.
        devices: What `keras_tokenlearner.training.distribution.scope` gives.

    Returns:
        The test accuracy, in [0, 1].
    """
    devices = devices or Devices()
    keras.utils.set_random_seed(recipe.seed)
    (images, labels), (test_images, test_labels) = load_fashion_mnist(recipe.source)
    with devices.alone():
        augmentation = recipe.augmentation()
    batches = ImageBatches(images, labels, 10, recipe.batch_size, augmentation, seed=recipe.seed)
    name = recipe.model
    model = create_model(name, classes=10)
    model.compile(
        recipe.optimizer(len(batches)),
        keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
        metrics=["accuracy"],
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    test_targets = keras.utils.to_categorical(test_labels, 10)
    loggers = [keras.callbacks.CSVLogger(output / f"{name}.csv")] if devices.writes else []
    resume = Resume(output / f"{name}.backup.npz", batches, loggers=loggers, devices=devices)
    history = devices.fit(
        model,
        batches,
        epochs=recipe.epochs,
        initial_epoch=resume.initial_epoch,
        validation_data=(test_images, test_targets),
        verbose=2,
        callbacks=[resume, *loggers],
    )
    accuracy = devices.evaluate(model, test_images, test_targets)["accuracy"]
    weights = devices.weights(model)
    if devices.writes:
        with devices.alone():
            trained = create_model(name, classes=10)  # without the state of the optimizer
            trained.set_weights(weights)
        _write(recipe, output, trained, history, accuracy, len(test_images))
        resume.delete()
    return accuracy


def _write(recipe, output, model, history, accuracy, test_images):
    """Write weights and result."""
    digest = save_weights(model, output / f"{recipe.model}.weights.h5")
    result = {
        "recipe": asdict(recipe),
        "backend": keras.backend.backend(),
        "test_images": test_images,
        "test_accuracy": accuracy,
        "last_train_accuracy": history.history.get("accuracy", [None])[-1],
        "sha256": digest,
    }
    (output / f"{recipe.model}.json").write_text(json.dumps(result, indent=2) + "\n")
