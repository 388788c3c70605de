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
