"""Readers of checkpoint files, which may be damaged or malicious. No other code reads the files.

Checkpoints are data: no code in them is executed. Names and shapes are known before an array is
read. A file that claims more data than its size allows raises an error. Only requested arrays are
read. The package exports no names: `keras_tokenlearner.weights` exports `read_checkpoint`.
"""

__all__: list[str] = []
