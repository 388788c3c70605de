"""Write the included class-balanced sample of Fashion-MNIST.

Command: `python keras_tokenlearner/data/files/make_fashion_mnist_sample.py FOLDER`, with the
folder of the four original `.gz` files.
"""

import sys
from pathlib import Path

import numpy as np

from keras_tokenlearner.data import load_fashion_mnist

TRAIN_PER_CLASS = 500
TEST_PER_CLASS = 200
OUTPUT = Path(__file__).with_name("fashion_mnist_sample.npz")


def first_of_each_class(
    split: tuple[np.ndarray, np.ndarray], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first `count` images of each class, in the original order."""
    images, labels = split
    chosen = np.sort(np.concatenate([np.flatnonzero(labels == c)[:count] for c in range(10)]))
    return images[chosen], labels[chosen]


if __name__ == "__main__":
    train, test = load_fashion_mnist(sys.argv[1])
    train_images, train_labels = first_of_each_class(train, TRAIN_PER_CLASS)
    test_images, test_labels = first_of_each_class(test, TEST_PER_CLASS)
    np.savez_compressed(
        OUTPUT,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
    )
    print(f"{OUTPUT}: {OUTPUT.stat().st_size / 2**20:.2f} MiB")
