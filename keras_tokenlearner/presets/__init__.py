"""Models by name or address: checkpoints on hubs, and folders of `save_to_preset`."""

from keras_tokenlearner.presets.checkpoints import PublishedCheckpoint, list_checkpoints
from keras_tokenlearner.presets.from_preset import from_preset
from keras_tokenlearner.presets.save import save_to_preset, upload_preset

__all__ = [
    "from_preset",
    "list_checkpoints",
    "PublishedCheckpoint",
    "save_to_preset",
    "upload_preset",
]
