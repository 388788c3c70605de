"""Decodes image files inside a SavedModel, to the same pixels as `data/decoding.py`.

TensorFlow decodes the pixels. The graph itself reads the parts that TensorFlow skips:

* the Exif orientation;
* the transparent colour and the frame offsets of a GIF;
* the palette of a BMP.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from keras_tokenlearner._extras import require

if TYPE_CHECKING:
    from tensorflow import Tensor
    from tensorflow.types.experimental import PolymorphicFunction

_PNG = b"\x89PNG\r\n\x1a\n"
_EXIF = b"Exif\x00\x00"


def decode_in_graph(content: "Tensor", channels: int) -> "Tensor":
    """Decode the bytes of a JPEG, PNG, GIF, BMP or WebP file, as `data.decode_image` does.

    The pixels are equal to the pixels of `data.decode_image`. The graph refuses BMP files of 1, 4
    or 16 bits per pixel, and BMP files with run-length coding. TensorFlow decodes all frames of an
    animated WebP file, although only the first frame is used.

    Args:
        content: Tensor of type string and shape ().
        channels: Integer, 3 for colours or 1 for grey.

    Returns:
        Tensor of type uint8 and shape (height, width, channels).

    Raises:
        tf.errors.InvalidArgumentError: When the graph runs, if the file cannot be read.
    """
    return _decoder(channels)(content)


@functools.cache
def _decoder(channels: int) -> "PolymorphicFunction":
    """Return `_decode` as a function that is traced once, because the trace takes seconds."""
    tf = require("tensorflow", "tensorflow")
    content = tf.TensorSpec((), tf.string, "content")
    return tf.function(
        lambda content: _decode(content, channels), input_signature=[content], autograph=False
    )


def _decode(content: "Tensor", channels: int) -> "Tensor":
    """Decode the bytes of a file, and orient the image."""
    tf = require("tensorflow", "tensorflow")
    # Zeros after the end, so that reads beyond the end match nothing.
    data = tf.concat([tf.io.decode_raw(content, tf.uint8), tf.zeros(64, tf.uint8)], 0)

    def starts(text: bytes, place: int = 0) -> "Tensor":
        return tf.equal(tf.strings.substr(content, place, len(text)), text)

    def jpeg() -> "tuple[Tensor, Tensor]":
        # Other decoders use INTEGER_ACCURATE too. TensorFlow's default method is faster, but its
        # pixels differ by up to 14.
        pixels = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
        return pixels, _orientation(*_jpeg_exif(data))

    def png() -> "tuple[Tensor, Tensor]":
        # For a palette of few bits and no alpha, TensorFlow returns an alpha other than 255.
        kind = _number(data, tf.constant(25), 1, tf.constant(True))
        has_alpha = tf.equal(kind // 4, 1) | (_chunk(data, b"tRNS", 8, big=True)[1] >= 0)
        pixels = tf.cond(
            has_alpha,
            lambda: _on_white(tf.io.decode_png(content, channels=4)),
            lambda: tf.io.decode_png(content, channels=3),
        )
        return pixels, _orientation(*_chunk(data, b"eXIf", 8, big=True))

    def webp() -> "tuple[Tensor, Tensor]":
        # TensorFlow refuses channels=4 for a file with 3 channels.
        pixels = tf.image.decode_webp(content, channels=0)[0]
        has_alpha = tf.equal(tf.shape(pixels)[-1], 4)
        pixels = tf.cond(has_alpha, lambda: _on_white(pixels), lambda: pixels)
        return pixels, _orientation(*_chunk(data, b"EXIF", 12, big=False))

    def gif() -> "tuple[Tensor, Tensor]":
        return _decode_gif(content, data), tf.constant(1)

    def bmp() -> "tuple[Tensor, Tensor]":
        return _decode_bmp(content, data), tf.constant(1)

    def other() -> "tuple[Tensor, Tensor]":  # raises an error for other formats
        return tf.io.decode_image(content, channels=3, expand_animations=False), tf.constant(1)

    pixels, orientation = tf.case(
        [
            (starts(b"\xff\xd8\xff"), jpeg),
            (starts(_PNG), png),
            (tf.logical_and(starts(b"RIFF"), starts(b"WEBP", 8)), webp),
            (starts(b"GIF8"), gif),
            (starts(b"BM"), bmp),
        ],
        other,
    )
    pixels = _orient(tf.ensure_shape(pixels, (None, None, 3)), orientation)
    return pixels if channels == 3 else _in_grey(pixels)


def _number(data: "Tensor", place: "Tensor", size: int, big: "Tensor") -> "Tensor":
    """Return the integer in `size` bytes at `place`, big-endian if `big`, signed for 4 bytes."""
    tf = require("tensorflow", "tensorflow")
    last = tf.size(data) - size
    place = tf.clip_by_value(place, 0, last)
    found = tf.cast(data[place : place + size], tf.int32)
    found = tf.where(big, tf.reverse(found, [0]), found)
    return tf.reduce_sum(tf.bitwise.left_shift(found, 8 * tf.range(size)))


def _is(data: "Tensor", place: "Tensor", text: bytes) -> "Tensor":
    """Return whether the data have the given bytes at a position."""
    tf = require("tensorflow", "tensorflow")
    place = tf.clip_by_value(place, 0, tf.size(data) - len(text))
    return tf.reduce_all(data[place : place + len(text)] == tf.constant(list(text), tf.uint8))


def _jpeg_exif(data: "Tensor") -> "tuple[Tensor, Tensor, Tensor]":
    """Return the bytes of a JPEG file, and the start (-1: no Exif) and end of its Exif data."""
    tf = require("tensorflow", "tensorflow")

    def more(place: "Tensor", found: "Tensor") -> "Tensor":
        is_marker = tf.equal(data[place], 0xFF)
        is_pixels = tf.logical_or(_is(data, place, b"\xff\xda"), _is(data, place, b"\xff\xd9"))
        return (found < 0) & is_marker & tf.logical_not(is_pixels)

    def step(place: "Tensor", found: "Tensor") -> "tuple[Tensor, Tensor]":
        is_exif = _is(data, place, b"\xff\xe1") & _is(data, place + 4, _EXIF)
        after = place + 2 + _number(data, place + 2, 2, tf.constant(True))
        after = tf.where(_is(data, place, b"\xff\xff"), place + 1, after)  # a padding byte
        return tf.minimum(after, tf.size(data) - 1), tf.where(is_exif, place, found)

    _, found = tf.while_loop(more, step, (tf.constant(2), tf.constant(-1)))
    end = found + 2 + _number(data, found + 2, 2, tf.constant(True))
    return data, tf.where(found < 0, found, found + 4), end


def _chunk(data: "Tensor", name: bytes, start: int, big: bool) -> "tuple[Tensor, Tensor, Tensor]":
    """Return the bytes of a PNG or WebP file, and the start and end of a chunk's content.

    Without the chunk, the start is -1.

    A PNG chunk has size, name, content and checksum, and is `big`-endian. A WebP chunk has name,
    size and content, padded to an even size.
    """
    tf = require("tensorflow", "tensorflow")

    def size_at(place: "Tensor") -> "Tensor":
        return _number(data, place + (0 if big else 4), 4, tf.constant(big))

    def is_here(place: "Tensor") -> "Tensor":
        return _is(data, place + (4 if big else 0), name)

    def more(place: "Tensor") -> "Tensor":
        in_file = (place >= 0) & (place < tf.size(data) - 64 - 8)
        return in_file & tf.logical_not(is_here(place))

    def step(place: "Tensor") -> "tuple[Tensor]":
        size = size_at(place)
        after = place + (12 + size if big else 8 + size + size % 2)
        return (tf.where((size < 0) | (after <= place), -1, after),)

    (place,) = tf.while_loop(more, step, (tf.constant(start),))
    found = (place >= 0) & (place < tf.size(data) - 64 - 8)
    return data, tf.where(found, place + 8, -1), place + 8 + size_at(place)


def _orientation(data: "Tensor", start: "Tensor", end: "Tensor") -> "Tensor":
    """Return the orientation in the Exif bytes from `start` to `end`, or 1 without one."""
    tf = require("tensorflow", "tensorflow")

    def read() -> "Tensor":
        exif = tf.concat([data[start : tf.maximum(start, end)], tf.zeros(16, tf.uint8)], 0)
        exif = tf.cond(_is(exif, tf.constant(0), _EXIF), lambda: exif[6:], lambda: exif)
        big = _is(exif, tf.constant(0), b"MM\x00\x2a")
        known = tf.logical_or(big, _is(exif, tf.constant(0), b"II\x2a\x00"))
        table = _number(exif, tf.constant(4), 4, big)
        known = known & (table >= 8) & (table < tf.size(exif) - 16)
        count = tf.where(known, _number(exif, table, 2, big), 0)
        count = tf.minimum(count, (tf.size(exif) - 16 - table - 2) // 12)

        def more(number: "Tensor", _: "Tensor") -> "Tensor":
            return number < count

        def step(number: "Tensor", found: "Tensor") -> "tuple[Tensor, Tensor]":
            place = table + 2 + 12 * number
            short = tf.equal(_number(exif, place + 2, 2, big), 3)
            long = tf.equal(_number(exif, place + 2, 2, big), 4)
            one = tf.equal(_number(exif, place + 4, 4, big), 1)
            ours = tf.equal(_number(exif, place, 2, big), 0x0112) & (short | long) & one
            value = tf.where(
                short, _number(exif, place + 8, 2, big), _number(exif, place + 8, 4, big)
            )
            return number + 1, tf.where(ours, value, found)

        return tf.while_loop(more, step, (tf.constant(0), tf.constant(1)))[1]

    return tf.cond(start >= 0, read, lambda: tf.constant(1))


def _orient(pixels: "Tensor", orientation: "Tensor") -> "Tensor":
    """Rotate and mirror an image by its Exif orientation, as `data.decoding.orient` does."""
    tf = require("tensorflow", "tensorflow")

    def when(
        values: tuple[int, ...], change: "Callable[[Tensor], Tensor]", pixels: "Tensor"
    ) -> "Tensor":
        chosen = tf.reduce_any(orientation == tf.constant(values))
        return tf.cond(chosen, lambda: change(pixels), lambda: pixels)

    pixels = when((5, 6, 7, 8), lambda x: tf.transpose(x, (1, 0, 2)), pixels)
    pixels = when((2, 3, 6, 7), lambda x: tf.reverse(x, [1]), pixels)
    return when((3, 4, 7, 8), lambda x: tf.reverse(x, [0]), pixels)


def _on_white(pixels: "Tensor") -> "Tensor":
    """Return RGBA pixels as RGB pixels on a white background."""
    tf = require("tensorflow", "tensorflow")
    pixels = tf.cast(pixels, tf.int32)
    alpha = pixels[..., 3:]
    return tf.cast((pixels[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255, tf.uint8)


def _in_grey(pixels: "Tensor") -> "Tensor":
    """Return RGB pixels as grey, with the weights and the rounding of Pillow's `convert("L")`."""
    tf = require("tensorflow", "tensorflow")
    weighted = tf.cast(pixels, tf.int32) * tf.constant((19595, 38470, 7471))
    grey = tf.bitwise.right_shift(tf.reduce_sum(weighted, -1, keepdims=True) + 0x8000, 16)
    return tf.cast(grey, tf.uint8)


def _decode_gif(content: "Tensor", data: "Tensor") -> "Tensor":
    """Decode the first frame of a GIF. Transparent and uncovered parts of the canvas are white.

    The transparent colour becomes white in the palette. The blocks between palette and frame are
    removed, because they mark the colour as transparent. Later frames are removed too.
    """
    tf = require("tensorflow", "tensorflow")
    little = tf.constant(False)

    def table_size(flags: "Tensor") -> "Tensor":
        return tf.where(flags >= 128, 3 * tf.bitwise.left_shift(2, flags % 8), 0)

    def pass_blocks(place: "Tensor") -> "Tensor":
        """Return the position after a sequence of data blocks, which ends with an empty block."""
        last = tf.size(data) - 1
        (place,) = tf.while_loop(
            lambda place: data[place] > 0,
            lambda place: (tf.minimum(place + 1 + tf.cast(data[place], tf.int32), last),),
            (tf.minimum(place, last),),
        )
        return place + 1

    def more(place: "Tensor", _: "Tensor") -> "Tensor":
        return tf.equal(data[tf.minimum(place, tf.size(data) - 1)], 0x21)

    def step(place: "Tensor", clear: "Tensor") -> "tuple[Tensor, Tensor]":
        is_control = _is(data, place, b"\x21\xf9")
        has_clear = tf.equal(_number(data, place + 3, 1, little) % 2, 1)
        found = tf.where(has_clear, _number(data, place + 6, 1, little), -1)
        return pass_blocks(place + 2), tf.where(is_control, found, clear)

    flags = _number(data, tf.constant(10), 1, little)
    head = 13 + table_size(flags)
    place, clear = tf.while_loop(more, step, (head, tf.constant(-1)))
    left, top, width, height = (_number(data, place + at, 2, little) for at in (1, 3, 5, 7))
    own = _number(data, place + 9, 1, little)
    end = pass_blocks(place + 10 + table_size(own) + 1)
    table = tf.where(own >= 128, place + 10, 13)
    size = tf.where(own >= 128, table_size(own), table_size(flags))

    def part(start: "Tensor", stop: "Tensor") -> "Tensor":
        return tf.strings.substr(content, start, tf.maximum(stop - start, 0))

    def with_white(start: "Tensor", stop: "Tensor") -> "Tensor":
        """Return a part of the file. In the palette, the transparent colour becomes white."""
        white = table + 3 * clear
        here = (clear >= 0) & (3 * clear < size) & (start <= table) & (table < stop)
        changed = tf.strings.join([part(start, white), b"\xff\xff\xff", part(white + 3, stop)])
        return tf.where(here, changed, part(start, stop))

    # The frame is decoded with offsets of zero. The call of `tf.pad` at the end adds the offsets.
    head_of_frame = tf.strings.join([part(place, place + 1), b"\0\0\0\0"])
    first = tf.strings.join(
        [with_white(tf.constant(0), head), head_of_frame, with_white(place + 5, end), b";"]
    )
    pixels = tf.io.decode_image(first, channels=3, expand_animations=False)
    pixels = tf.ensure_shape(pixels, (None, None, 3))
    below = tf.maximum(_number(data, tf.constant(8), 2, little) - top - height, 0)
    right = tf.maximum(_number(data, tf.constant(6), 2, little) - left - width, 0)
    open_canvas = [[top, below], [left, right], [0, 0]]
    return tf.pad(pixels, open_canvas, constant_values=tf.constant(255, tf.uint8))


def _decode_bmp(content: "Tensor", data: "Tensor") -> "Tensor":
    """Decode a BMP of 8 bits per pixel with a palette, or of 24 or 32 bits per pixel."""
    tf = require("tensorflow", "tensorflow")
    little = tf.constant(False)
    header, bits, coding = (
        _number(data, tf.constant(place), size, little)
        for place, size in ((14, 4), (28, 2), (30, 4))
    )
    masks = _is(data, tf.constant(54), b"\x00\x00\xff\x00\x00\xff\x00\x00\xff\x00\x00\x00")
    plain = tf.equal(coding, 0) | (tf.equal(coding, 3) & tf.equal(bits, 32) & masks)
    check = tf.debugging.Assert(
        (header >= 40) & plain,
        ["a BMP must be uncompressed with 8, 24 or 32 bits per pixel; save it as PNG instead"],
    )
    with tf.control_dependencies([check] if check is not None else []):
        pixels = tf.io.decode_bmp(content, channels=0)

    def by_palette() -> "Tensor":
        start = tf.clip_by_value(14 + header, 54, tf.size(data))
        end = tf.clip_by_value(_number(data, tf.constant(10), 4, little), start, tf.size(data))
        table = tf.reshape(data[start : start + (end - start) // 4 * 4], (-1, 4))[:256, 2::-1]
        table = tf.pad(table, [[0, 256 - tf.shape(table)[0]], [0, 0]])
        return tf.gather(table, tf.cast(pixels[..., 0], tf.int32))

    def with_alpha() -> "Tensor":
        has_alpha = tf.equal(coding, 3) & (header >= 56) & _is(data, tf.constant(66), b"\0\0\0\xff")
        return tf.cond(has_alpha, lambda: _on_white(pixels), lambda: pixels[..., :3])

    return tf.switch_case(
        tf.where(tf.equal(bits, 8), 0, tf.where(tf.equal(bits, 32), 1, 2)),
        [by_palette, with_alpha, lambda: pixels[..., :3]],
    )
