import keras
import numpy as np

from keras_tokenlearner.extras import require


def draw_token_maps(images, maps, titles=None, path=None):
    """Draw what each learned token looks at: a row an image, a column a token.

    Each map is scaled to its own range and laid over the image. The last column paints every
    position in the colour of the token whose map, against that map's mean over the image, is
    strongest there.

    Args:
        images: Array of shape (B, height, width, 1 or 3), pixels in [0, 255].
        maps: Array of shape (B, H, W, S), as `token_maps` gives it.
        titles: A text for each image.
        path: Where to save the picture; it is not saved if `None`.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib, the extra `plot`, is not installed.
    """
    figures = require("matplotlib.figure", "plot")
    colormaps = require("matplotlib", "plot").colormaps
    images = np.asarray(images, "float32") / 255
    maps = keras.ops.image.resize(maps, images.shape[1:3], interpolation="bicubic", antialias=True)
    maps = np.maximum(keras.ops.convert_to_numpy(maps), 0)
    count = maps.shape[-1]
    columns = count + 2
    figure = figures.Figure(
        figsize=(1.15 * columns, 1.15 * len(images) + 0.5),
        facecolor="#101218",
        layout="constrained",
    )
    axes = figure.subplots(len(images), columns, squeeze=False)
    colours = colormaps["hsv"](np.arange(count) / count)[:, :3] * 0.75 + 0.25
    for row, (image, stack) in enumerate(zip(images, maps, strict=True)):
        low, high = stack.min((0, 1)), stack.max((0, 1))
        scaled = (stack - low) / np.maximum(high - low, 1e-9)
        grey = image.mean(-1)
        panels = [np.repeat(grey[..., None], 3, -1) if image.shape[-1] == 1 else image]
        for token in range(count):
            heat = colormaps["inferno"](scaled[..., token])[..., :3]
            panels.append(0.4 * grey[..., None] + 0.75 * heat)
        strongest = np.argmax(stack / np.maximum(stack.mean((0, 1)), 1e-9), axis=-1)
        panels.append(colours[strongest] * (0.25 + 0.75 * grey[..., None]))
        for axis, panel in zip(axes[row], panels, strict=True):
            axis.imshow(np.clip(panel, 0, 1))
        if titles is not None:
            axes[row, 0].set_ylabel(titles[row], color="white", fontsize=8)
    heads = ["image", *(f"token {token + 1}" for token in range(count)), "strongest"]
    for column, head in enumerate(heads):
        colour = colours[column - 1] if 0 < column <= count else "white"
        axes[0, column].set_title(head, color=colour, fontsize=8)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    if path is not None:
        figure.savefig(path, dpi=150, facecolor=figure.get_facecolor())
    return figure
