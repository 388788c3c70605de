"""Small video files for tests."""

from fractions import Fraction

import numpy as np


def write(path, levels, rate=10, size=(32, 48), times=None, gop=12, ratio=None):
    """Write a video of grey frames with a brighter left half, or of given frames.

    `times` are ticks of 1/100 s, and `ratio` is the aspect ratio of a pixel, width by height.
    """
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width = size
        stream.pix_fmt, stream.bit_rate, stream.gop_size = "yuv420p", 4_000_000, gop
        if ratio is not None:
            stream.codec_context.sample_aspect_ratio = ratio
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 100)
        for index, level in enumerate(levels):
            pixels = np.full((*size, 3), level, "uint8")
            if np.ndim(level) == 0:
                pixels[:, : size[1] // 2] += 30
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[index], Fraction(1, 100)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path
