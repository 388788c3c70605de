"""Pixels in."""

from keras_tokenlearner.data import fashion_mnist
from keras_tokenlearner.data.batches import ImageBatches
from keras_tokenlearner.data.fashion_mnist import load_fashion_mnist
from keras_tokenlearner.data.resizing import resizing
