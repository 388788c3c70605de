"""Pixels in."""

from keras_tokenlearner.data import cifar10, fashion_mnist
from keras_tokenlearner.data.batches import Batches, ImageBatches
from keras_tokenlearner.data.cifar10 import load_cifar10
from keras_tokenlearner.data.fashion_mnist import load_fashion_mnist
from keras_tokenlearner.data.named import load_named
from keras_tokenlearner.data.resizing import resizing
