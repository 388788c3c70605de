"""TokenLearner for Keras 3: vision transformers with learned tokens.

Layers are in `keras_tokenlearner.layers`, named models in `keras_tokenlearner.applications`.
"""

from keras_tokenlearner import _startup
from keras_tokenlearner._version import __version__

if _startup.is_wanted():
    _startup.check_keras()

    from keras_tokenlearner import (
        analysis,
        applications,
        data,
        evaluation,
        layers,
        models,
        presets,
        serving,
        training,
        weights,
    )
    from keras_tokenlearner.analysis import costs
    from keras_tokenlearner.applications import create_model, list_models
    from keras_tokenlearner.models import feature_extractor, retrofit, with_tokens
    from keras_tokenlearner.presets import from_preset, list_checkpoints, upload_preset
    from keras_tokenlearner.serving import export
    from keras_tokenlearner.training import Distiller, distill

__all__ = [
    "__version__",
    "analysis",
    "applications",
    "costs",
    "create_model",
    "data",
    "distill",
    "Distiller",
    "evaluation",
    "export",
    "feature_extractor",
    "from_preset",
    "layers",
    "list_checkpoints",
    "list_models",
    "models",
    "presets",
    "retrofit",
    "serving",
    "training",
    "upload_preset",
    "weights",
    "with_tokens",
]


def __dir__() -> list[str]:
    return __all__
