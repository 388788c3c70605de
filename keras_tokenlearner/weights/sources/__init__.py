"""The sources of weights: one file for each family of libraries.

The package exports no names: `keras_tokenlearner.weights` exports `SOURCES` and `to_timm`.
"""

__all__: list[str] = []
