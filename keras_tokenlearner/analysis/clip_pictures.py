"""Attention maps over time: a figure, and an animation."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from keras_tokenlearner._checks import check_int
from keras_tokenlearner._extras import require
from keras_tokenlearner.analysis.canvas import (
    INK,
    SMALL,
    check_figure_path,
    new_panels,
    pixels,
    save,
)
from keras_tokenlearner.analysis.panels import (
    are_pixels,
    as_arrays,
    enlarge,
    token_heads,
    token_panels,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_clip_maps(
    clip: np.ndarray,
    maps: np.ndarray,
    columns: int = 8,
    path: str | os.PathLike[str] | None = None,
) -> "Figure":
    """Draw the attention map of each learned token over time: columns are moments, rows are tokens.

    Each map is scaled to its own range over the whole clip and drawn over the frames. The last row
    has the colour of the strongest token at each position and moment. The strongest token has the
    largest ratio of its map to the mean of its map over the clip.

    Args:
        clip: Array of shape (T, height, width, 1 or 3), pixels in [0, 255].
        maps: Array of shape (t, H, W, S), the maps of one clip from `token_maps`, with t at most T.
            For a model with tubelets, t is smaller than T.
        columns: Integer, the largest number of moments to draw, evenly spaced.
        path: Path of the figure, or `None` for no file.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: If `clip` or `maps` have another shape, or t is more than T. Also if `columns`
            is not positive, or the folder of `path` does not exist.
        ImportError: If matplotlib, the extra `plot`, is not installed.

    Example:

    >>> clip = np.random.default_rng(0).integers(0, 256, (6, 32, 48, 3))
    >>> maps = np.random.default_rng(1).random((3, 4, 6, 2))
    >>> len(draw_clip_maps(clip, maps, columns=5).axes)  # the clip, two tokens, the strongest
    20
    """
    file = None if path is None else check_figure_path("draw_clip_maps", path)
    check_int("draw_clip_maps", "columns", columns)
    panels, names, colours = _panels("draw_clip_maps", clip, maps)
    moments = np.linspace(0, len(clip) - 1, min(columns, len(clip))).round().astype(int)
    figure, axes = new_panels(len(names), len(moments), panels.shape[2:4])
    for row, name in enumerate(names):
        for axis, moment in zip(axes[row], moments, strict=True):
            axis.imshow(panels[moment, row])
        axes[row, 0].set_ylabel(name, color=colours[row], fontsize=SMALL)
    for axis, moment in zip(axes[0], moments, strict=True):
        axis.set_title(f"frame {moment + 1}", color=INK, fontsize=SMALL)
    return save(figure, file)


def animate_clip_maps(
    clip: np.ndarray,
    maps: np.ndarray,
    path: str | os.PathLike[str],
    frame_rate: int = 6,
) -> "Figure":
    """Save a clip with the attention map of each learned token as a GIF or an MP4.

    The panels are the rows of `draw_clip_maps`.

    Args:
        clip: Array of shape (T, height, width, 1 or 3), pixels in [0, 255].
        maps: Array of shape (t, H, W, S) from `token_maps`, with t at most T.
        path: Path that ends in `.gif` or `.mp4`.
        frame_rate: Integer, frames per second of the clip, at most 1000. At most 100 for a GIF,
            which stores the duration of a frame in hundredths of a second.

    Returns:
        A `matplotlib.figure.Figure` of the last moment.

    Raises:
        ValueError: If `clip` or `maps` have another shape, t is more than T, or the path has
            another ending. Also if `frame_rate` is out of range, or the folder of `path` does not
            exist.
        ImportError: If matplotlib (extra `plot`) is not installed. A GIF also needs Pillow (extra
            `image`), and an MP4 needs PyAV (extra `video`).

    Example:

    >>> clip = np.random.default_rng(0).integers(0, 256, (6, 32, 48, 3))
    >>> maps = np.random.default_rng(1).random((3, 4, 6, 2))
    >>> figure = animate_clip_maps(clip, maps, "maps.gif")
    """
    file = check_figure_path("animate_clip_maps", path)
    ending = file.suffix
    if ending not in _WRITERS:
        raise ValueError(
            f"animate_clip_maps: `path` must end in .gif or .mp4. Received: path={str(path)!r}"
        )
    most = 100 if ending == ".gif" else 1000
    frame_rate = check_int("animate_clip_maps", "frame_rate", frame_rate, maximum=most)
    library, extra, write = _WRITERS[ending]
    writer = require(library, extra)
    panels, names, colours = _panels("animate_clip_maps", clip, maps)
    columns = -(-len(names) // (1 if len(names) <= 5 else 2))
    rows = -(-len(names) // columns)
    figure, axes = new_panels(rows, columns, panels.shape[2:4], lines=rows)
    shown = []
    for axis, panel, name, colour in zip(axes.flat, panels[0], names, colours, strict=False):
        shown.append(axis.imshow(panel))
        axis.set_title(name, color=colour, fontsize=SMALL)
    figure.draw_without_rendering()  # computes the layout once for all frames
    figure.set_layout_engine("none")
    frames = []
    for moment in panels:
        for image, panel in zip(shown, moment, strict=True):
            image.set_data(panel)
        frames.append(pixels(figure))
    write(writer, file, frames, frame_rate)
    return figure


def _write_gif(
    pillow: ModuleType,
    path: Path,
    frames: Sequence[np.ndarray],
    frame_rate: int,
) -> None:
    first, *others = (pillow.fromarray(frame) for frame in frames)
    first.save(path, save_all=True, append_images=others, duration=1000 // frame_rate, loop=0)


def _write_mp4(
    av: ModuleType,
    path: Path,
    frames: Sequence[np.ndarray],
    frame_rate: int,
) -> None:
    height, width = (size // 2 * 2 for size in frames[0].shape[:2])  # H.264 needs even sizes
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=frame_rate)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for frame in frames:
            part = np.ascontiguousarray(frame[:height, :width])
            file.mux(stream.encode(av.VideoFrame.from_ndarray(part, format="rgb24")))
        file.mux(stream.encode())


_WRITERS = {".gif": ("PIL.Image", "image", _write_gif), ".mp4": ("av", "video", _write_mp4)}


def _panels(
    owner: str, clip: np.ndarray, maps: np.ndarray
) -> tuple[np.ndarray, list[str], list[str | np.ndarray]]:
    """Return the panels of each moment, (T, panels, height, width, 3), with titles and colours."""
    clip, maps = as_arrays(owner, "clip", clip, maps)
    if not are_pixels(clip) or maps.ndim != 4 or not maps.size or len(maps) > len(clip):
        raise ValueError(
            f"{owner}: `clip` must have shape (T, height, width, 1 or 3). `maps` must have shape "
            f"(t, H, W, S) with t at most T. Received: clip of shape {clip.shape}, maps of shape "
            f"{maps.shape}"
        )
    maps = maps[np.arange(len(clip)) * len(maps) // len(clip)]
    maps, count = np.maximum(enlarge(maps, clip), 0), maps.shape[-1]
    panels = token_panels(clip, maps, range(count))
    return np.clip(np.stack(panels, axis=1), 0, 1), *token_heads("clip", count, range(count))
