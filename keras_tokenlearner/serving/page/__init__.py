"""The demo page, which shows the classes and attention maps of a picture.

The package exports no names: `keras_tokenlearner.serving` exports `demo` and `serve`.
"""

__all__: list[str] = []
