import keras


def resizing(height, width):
    """Return the layer that fits images of any size to a model: resize and central crop.

    The largest central part of the wanted aspect is kept and resized linearly, with antialiasing.
    It stands in the exported models too, so that training and serving see the same pixels. Give it
    floats: it rounds integers on some backends.

    Args:
        height: Integer, of the result, in pixels.
        width: Integer, of the result, in pixels.

    Returns:
        A `keras.layers.Resizing` for (height, width, channels) or (B, height, width, channels).

    Example:

    >>> tuple(resizing(32, 48)(np.zeros((2, 100, 200, 3), "float32")).shape)
    (2, 32, 48, 3)
    """
    return keras.layers.Resizing(
        height,
        width,
        interpolation="bilinear",
        crop_to_aspect_ratio=True,
        antialias=True,
        data_format="channels_last",
        dtype="float32",
    )
