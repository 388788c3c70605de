"""The one table of named weights. Included weights work without a network."""

from dataclasses import dataclass

from keras_tokenlearner.data.cifar10 import CLASS_NAMES as CIFAR10
from keras_tokenlearner.data.fashion_mnist import CLASS_NAMES as FASHION_MNIST
from keras_tokenlearner.weights.download import fetch
from keras_tokenlearner.weights.files import load_weights


@dataclass(frozen=True)
class StoredWeights:
    """A row of the store.

    Attributes:
        model: Name in the catalogue of the model that they are for.
        uri: Where the `.weights.h5` file is: `package:NAME` for an included file, or an address.
        sha256: Of the file.
        size: Of the file, in bytes.
        input_shape: `(height, width, channels)` that they were trained at.
        classes: Of the classifier.
        class_names: Names of the classes, in order.
        licence: Of the weights, and of the data that they were trained on.
        metric: Accuracy, and the data that it was measured on.
        command: The command that made them.

    Example:

    >>> find("tokenlearner_nano4_8at2", "fashion_mnist").classes
    10
    """

    model: str
    uri: str
    sha256: str
    size: int
    input_shape: tuple
    classes: int
    class_names: tuple
    licence: str
    metric: str
    command: str


STORE = {
    ("tokenlearner_nano4_8at2", "fashion_mnist"): StoredWeights(
        model="tokenlearner_nano4_8at2",
        uri="package:tokenlearner_nano4_8at2_fashion_mnist.weights.h5",
        sha256="3ce6cbc78dfbd6df148244cd669215623dee5287bde7f2455411126e4cdf40ae",
        size=3394360,
        input_shape=(28, 28, 1),
        classes=10,
        class_names=FASHION_MNIST,
        licence="Apache-2.0, trained on Fashion-MNIST (MIT)",
        metric="94.05% of the 10,000 test images",
        command="keras-tokenlearner train fashion_mnist --set source=FOLDER",
    ),
    ("tokenlearner_nano4_8at2", "cifar10"): StoredWeights(
        model="tokenlearner_nano4_8at2",
        uri="package:tokenlearner_nano4_8at2_cifar10.weights.h5",
        sha256="ccd57704709e6fd7dfd095ec6bd20aeb36dad1ce072e5ab121f66ccca4491185",
        size=3403256,
        input_shape=(32, 32, 3),
        classes=10,
        class_names=CIFAR10,
        licence="Apache-2.0, trained on CIFAR-10 (Krizhevsky, 2009, to be cited)",
        metric="86.23% of the 10,000 test images",
        command="KERAS_BACKEND=torch keras-tokenlearner train cifar10 --set source=FOLDER",
    ),
}


def names(model):
    """Return the names of the included weights of a model of the catalogue."""
    return [name for stored_model, name in STORE if stored_model == model]


def find(model, name):
    """Return the row of the weights called `name` for a model of the catalogue, or raise."""
    if (model, name) not in STORE:
        known = [None, *names(model)]
        raise ValueError(
            f"create_model({model!r}): `weights` must be one of {known}, the path of a "
            "`.weights.h5` file, or a path with its source before it, such as 'timm:FILE'. "
            f"Received: weights={name!r}"
        )
    return STORE[model, name]


def load_stored(model, stored):
    """Load a row of the store into a model, from the package, the cache or the network."""
    load_weights(model, fetch(stored.uri, stored.sha256), expected_sha256=stored.sha256)
