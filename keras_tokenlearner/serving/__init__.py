"""Functions that export trained models, predict with them and serve them."""

from keras_tokenlearner.serving.demo import demo
from keras_tokenlearner.serving.export import Exported, export
from keras_tokenlearner.serving.predict import predict
from keras_tokenlearner.serving.serve import serve

__all__ = [
    "Exported",
    "demo",
    "export",
    "predict",
    "serve",
]
