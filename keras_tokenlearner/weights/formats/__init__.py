"""The only readers of untrusted checkpoint bytes: formats, limits and errors.

Checkpoints are data. Nothing in them is executed, and names and shapes are known before an array
is read. The size of a file bounds its claims. Only requested arrays are read.
"""

from keras_tokenlearner.weights.formats.entries import Checkpoint, Entry, PathLike
from keras_tokenlearner.weights.formats.npz import read_npz
from keras_tokenlearner.weights.formats.read import CheckpointLike, read_checkpoint

__all__ = ["Checkpoint", "CheckpointLike", "Entry", "PathLike", "read_checkpoint", "read_npz"]
