"""From a trained model to a server."""

from keras_tokenlearner.serving.export import export
