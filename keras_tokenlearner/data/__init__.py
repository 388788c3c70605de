"""Images and videos as arrays of pixels: data sets, files, batches and preprocessing."""

from keras_tokenlearner.data import cifar10, fashion_mnist
from keras_tokenlearner.data.batches import Batches
from keras_tokenlearner.data.cifar10 import load_cifar10
from keras_tokenlearner.data.crops import inception_crop
from keras_tokenlearner.data.decoding import decode_image
from keras_tokenlearner.data.fashion_mnist import load_fashion_mnist
from keras_tokenlearner.data.image_batches import ImageBatches
from keras_tokenlearner.data.images import ArrayImages, FileImages, Images, from_folder
from keras_tokenlearner.data.named import load_named, open_named
from keras_tokenlearner.data.preprocessing import preprocess_image
from keras_tokenlearner.data.real_labels import read_real_labels
from keras_tokenlearner.data.resizing import fit_image, resizing
from keras_tokenlearner.data.tfds import FEW_SHOT, TfdsImages

__all__ = [
    "ArrayImages",
    "Batches",
    "cifar10",
    "decode_image",
    "fashion_mnist",
    "FEW_SHOT",
    "FileImages",
    "fit_image",
    "from_folder",
    "ImageBatches",
    "Images",
    "inception_crop",
    "load_cifar10",
    "load_fashion_mnist",
    "load_named",
    "open_named",
    "preprocess_image",
    "read_real_labels",
    "resizing",
    "TfdsImages",
]
