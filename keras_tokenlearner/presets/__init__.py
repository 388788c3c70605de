"""Public names: checkpoints of the hubs, with or without learned tokens, and ours to share."""

from keras_tokenlearner.presets.addresses import Address, parse_address
from keras_tokenlearner.presets.checkpoints import PublishedCheckpoint, list_checkpoints
from keras_tokenlearner.presets.from_preset import from_preset, open_preset
from keras_tokenlearner.presets.save import save_to_preset, upload_preset
