"""A demo of the package in a few minutes on a laptop, with included images and weights.

The demo builds a trained model by name, evaluates it, draws its attention maps and fine-tunes it on
rotated images. Then the demo exports a SavedModel and serves it from a process without Keras.
"""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np

from keras_tokenlearner._checks import check_path
from keras_tokenlearner._extras import require
from keras_tokenlearner.analysis import catalog_costs, costs, draw_token_maps, token_maps
from keras_tokenlearner.applications import create_model
from keras_tokenlearner.data import load_fashion_mnist
from keras_tokenlearner.data.fashion_mnist import CLASS_NAMES
from keras_tokenlearner.serving import export

__all__ = ["quickstart"]

MODEL, PLAIN_MODEL, WEIGHTS = "tokenlearner_nano4_8at2", "vit_nano4", "fashion_mnist"

# A program that answers a request as a server does: TensorFlow reads the SavedModel, without Keras.
_SERVER = """
import sys
sys.modules["keras"] = None  # an import of Keras would fail
import numpy as np
import tensorflow as tf

model = tf.saved_model.load(sys.argv[1])
answers = model.images(np.load(sys.argv[2]))
np.save(sys.argv[3], answers["probabilities"].numpy())
print("Predictions:", ", ".join(x.decode() for x in answers["top_class_names"].numpy()[:6, 0]))
"""


def quickstart(output: str | Path = "quickstart", epochs: int = 2) -> dict[str, float]:
    """Run the demo and write its results into a folder.

    Args:
        output: Folder for the figure `tokens.png` and the SavedModel `served/1`. The served images
            are `requests.npy`, and their probabilities are `answers.npy`.
        epochs: Integer, epochs of fine-tuning on 5,000 images.

    Returns:
        A dictionary of measurements. `accuracy` is the top-1 accuracy on upright images.
        `turned_before` and `turned_after` are the top-1 accuracy on rotated images before and after
        fine-tuning. `served_difference` is the largest difference between outputs of the model and
        the server.

    Raises:
        ImportError: If matplotlib or TensorFlow is not installed. The SavedModel needs TensorFlow
            on every backend.
        RuntimeError: If outputs of the model and the server differ by more than 1e-4.
    """
    require("matplotlib", "plot")
    require("tensorflow", "tensorflow")
    output = check_path("quickstart", "output", output)
    output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)

    _say(1, f"A TokenLearner model with trained weights, on {keras.backend.backend()}")
    model = create_model(MODEL, weights=WEIGHTS)
    cost, plain = costs(model), catalog_costs(PLAIN_MODEL, classes=10)
    print(f"{MODEL}: {cost.params:,} parameters, {cost.macs / 1e6:.1f} MMACs per image,")
    print(f"{cost.macs / plain.macs:.0%} of {PLAIN_MODEL}, the same model without learned tokens.")
    model.compile(
        keras.optimizers.AdamW(5e-4), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    (train_images, train_labels), (images, labels) = load_fashion_mnist()
    accuracy = _accuracy(model, images, labels)
    print(f"Top-1 accuracy: {accuracy:.1%} of {len(images):,} test images.")

    _say(2, "Attention maps of the eight learned tokens")
    chosen = [int(np.flatnonzero(labels == c)[3]) for c in (0, 1, 3, 5, 7, 8, 9)]
    draw_token_maps(
        images[chosen],
        token_maps(model, images[chosen]),
        titles=[CLASS_NAMES[labels[index]] for index in chosen],
        path=output / "tokens.png",
    )
    print(f"See {output / 'tokens.png'}")

    _say(3, "Fine-tuning with fit() on rotated images")
    turned_train, turned = (np.rot90(x, axes=(1, 2)) for x in (train_images, images))
    before = _accuracy(model, turned, labels)
    print(f"Before: top-1 accuracy {before:.1%}")
    # A progress bar on a terminal, one line per epoch elsewhere.
    verbose = 1 if sys.stdout.isatty() else 2
    model.fit(turned_train, train_labels, batch_size=64, epochs=epochs, verbose=verbose)
    after = _accuracy(model, turned, labels)
    print(f"After:  top-1 accuracy {after:.1%}")

    _say(4, "A SavedModel, served without Keras")
    folder = export(model, output / "served", class_names=CLASS_NAMES, check=False).path
    requests = turned[:32]
    answers = model.predict(requests.astype("float32"), verbose=0)
    difference = _served_difference(folder, requests, answers, output)
    print("Labels:     ", ", ".join(CLASS_NAMES[label] for label in labels[:6]))
    print(f"{folder}: without Keras, TensorFlow predicts {len(requests)} images;")
    print(f"its probabilities differ from the model's by at most {difference:.1e}.")
    return {
        "accuracy": accuracy,
        "turned_before": before,
        "turned_after": after,
        "served_difference": difference,
    }


def _say(number: int, title: str) -> None:
    print(f"\n{number}/4  {title}\n{'-' * (len(title) + 5)}", flush=True)


def _accuracy(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> float:
    return float(model.evaluate(images, labels, batch_size=200, verbose=0)[1])


def _served_difference(
    folder: Path, requests: np.ndarray, expected: np.ndarray, output: Path
) -> float:
    """Serve `requests` in another process, and return the largest difference from `expected`."""
    asked, answered = output / "requests.npy", output / "answers.npy"
    np.save(asked, requests)
    subprocess.run(
        [sys.executable, "-P", "-c", _SERVER, str(folder), str(asked), str(answered)], check=True
    )
    difference = float(np.abs(np.load(answered) - expected).max())
    if difference > 1e-4:
        raise RuntimeError(
            "quickstart: probabilities of the SavedModel must equal the probabilities of the model "
            f"to 1e-4. Received: a difference of {difference:.1e}"
        )
    return difference
