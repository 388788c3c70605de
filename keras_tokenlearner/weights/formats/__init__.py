"""Readers of checkpoint files, which may be damaged or malicious.

Checkpoints are data: no code in them is executed. Names and shapes are known before an array is
read, and only requested arrays are read. Flax files are an exception: they are read as a whole. A
file that claims more data than its size allows raises an error. Keras loads our own `.weights.h5`
files only after the checks of this package.

The package exports no names: `keras_tokenlearner.weights` exports `read_checkpoint`.
"""

__all__: list[str] = []
