"""Decodes image files, in the same way for training, prediction and serving."""

import io
import os
import struct
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

import numpy as np

from keras_tokenlearner._checks import check_choice
from keras_tokenlearner._extras import require

if TYPE_CHECKING:
    from PIL import Image, ImageFile, TiffImagePlugin

# Formats that training, prediction and serving all read. Pillow would also open other formats,
# whatever the name of the file. For an EPS file, Pillow would start Ghostscript.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
FOLDER_FORMATS = (*FORMATS, "TIFF", "AVIF")

MAX_PIXELS = 89_478_485  # a quarter of a gibibyte in three channels
MAX_SCANS = 64  # scans of a JPEG; encoders write about ten, and each scan covers all pixels
MAX_TEXTS = 16  # text chunks (zTXt or iTXt) of a PNG; Pillow unpacks up to 1 MiB of each
# Calls of `read` for a header. Pillow reads headers in Python, and the padding of a JPEG in single
# bytes. A megabyte of padding takes a second.
MAX_HEADER_READS = 2**14
MAX_READS = 2**20  # calls of `read` for pixels; a BMP with run-length coding needs many

_ORIENTATION = 0x0112  # tag number in Exif and TIFF
_BITS_PER_SAMPLE = 258


def decode_image(
    file: str | os.PathLike[str] | bytes,
    channels: int = 3,
    formats: tuple[str, ...] = FORMATS,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Decode an image file to the pixels that training, prediction and serving use.

    * Exif orientation is applied, as viewers and browsers do. Colour profiles are ignored.
    * Transparent pixels get a white background: `round((c * alpha + 255 * (255 - alpha)) / 255)`.
    * The first frame of an animation is decoded. Uncovered parts of the canvas are white.
    * 16-bit values keep their upper byte, `value >> 8`, as Pillow and libpng do for colours.
    * Images of 32-bit integers or floats raise an error, because the value of white is unknown.
    * For 3 channels, images with a palette, CMYK images and grey images become RGB. For 1 channel,
      Pillow's `convert("L")` makes colours grey.

    Args:
        file: Path of the file, or its bytes.
        channels: Integer, 3 for colours or 1 for grey.
        formats: Pillow's names of the accepted formats, such as `FOLDER_FORMATS`. The content of
            the file decides the format. The name of the file has no effect.
        max_pixels: Integer, the largest accepted number of pixels of an image.

    Returns:
        Array of type uint8 and shape (height, width, channels).

    Raises:
        ValueError: If the file is missing, damaged, too large, of another format, or has values of
            32 bits. The message names the file.
        ImportError: If Pillow, the extra `image`, is not installed.

    Example:

    >>> decode_image("images/cat/0.png").shape
    (24, 32, 3)
    """
    check_choice("decode_image", "channels", channels, (1, 3))
    pillow = require("PIL.Image", "image")
    name = f"{len(file)} bytes" if isinstance(file, bytes) else str(file)
    try:
        with (
            _reader(file) as stream,
            _open(pillow, stream, formats, max_pixels) as image,
        ):
            stream.left = MAX_READS
            pixels = _in_colours(pillow, image)
    except pillow.UnidentifiedImageError as error:
        raise ValueError(
            f"decode_image: the image must have one of the formats {', '.join(formats)}; "
            f"save it in one of these formats. Received: {name}"
        ) from error
    except Exception as error:  # noqa: BLE001, damaged files raise anything
        raise ValueError(
            f"decode_image: the image must be readable; check the file. Received: {name}: "
            f"{error or type(error).__name__}"
        ) from error
    if channels == 3:
        return pixels
    return np.asarray(pillow.fromarray(pixels).convert("L"))[..., None]


def count_pixels(
    file: bytes, formats: tuple[str, ...] = FORMATS, max_pixels: int = MAX_PIXELS
) -> int:
    """Return the number of pixels of an image file, from its header alone.

    Args:
        file: Bytes of the file.
        formats: Pillow's names of the accepted formats.
        max_pixels: Integer, the largest accepted number of pixels of an image.

    Raises:
        ValueError: If the file is not an image of these formats, or is too large.

    Example:

    >>> count_pixels(Path("images/cat/0.png").read_bytes())
    768
    """
    pillow = require("PIL.Image", "image")
    try:
        with (
            _reader(file) as stream,
            _open(pillow, stream, formats, max_pixels) as image,
        ):
            return image.width * image.height
    except pillow.UnidentifiedImageError as error:
        raise ValueError(
            f"an image must have one of the formats {', '.join(formats)}; got {len(file)} bytes "
            "of another format"
        ) from error
    except Exception as error:  # noqa: BLE001, damaged headers raise anything
        raise ValueError(
            f"an image must be readable; check the file: "
            f"{error or type(error).__name__}; got {len(file)} bytes"
        ) from error


def orient(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Rotate and mirror an image by its Exif orientation, an integer from 1 to 8.

    Args:
        pixels: Array of shape (height, width, channels).
        orientation: Integer. Values other than 2 to 8 change nothing.

    Example:

    >>> orient(np.array([[[1], [2], [3]]]), 6)[..., 0].tolist()  # a quarter turn clockwise
    [[1], [2], [3]]

    Source: CIPA DC-008 (Exif 2.32), tag 274.
    """
    if 5 <= orientation <= 8:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


class _Reader(io.BufferedReader):
    """A stream with a limited number of reads.

    Attributes:
        left: Integer, number of calls of `read` before `read` raises `ValueError`.
    """

    left = MAX_HEADER_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise ValueError(
                f"an image must need at most {MAX_HEADER_READS} reads for its header and "
                f"{MAX_READS} for its pixels; save the image again"
            )
        return super().read(size)


def _reader(file: str | os.PathLike[str] | bytes) -> _Reader:
    if isinstance(file, bytes):
        return _Reader(io.BytesIO(file))
    return _Reader(Path(file).open("rb", buffering=0))


def _open(
    pillow: ModuleType, stream: _Reader, formats: tuple[str, ...], max_pixels: int
) -> "ImageFile.ImageFile":
    """Open an image without decoding its pixels. Raise `ValueError` beyond a limit."""
    pillow.init()
    start = stream.read(4)
    if start == b"GIF8" and "GIF" in formats:
        stream.seek(0)
        _check_pixels(_gif_pixels(stream), max_pixels)  # Pillow has its own limit, of another value
        stream.left = MAX_HEADER_READS
    if start == b"\x89PNG":
        content = stream.read()
        texts = content.count(b"zTXt") + content.count(b"iTXt")
        if texts > MAX_TEXTS:
            raise ValueError(
                f"a PNG must have at most {MAX_TEXTS} text chunks (zTXt or iTXt); save the image "
                f"without text chunks; got {texts} text chunks"
            )
    stream.seek(0)
    prefix = stream.read(16)
    # Like `pillow.open`, but without Pillow's own warning and limit for images of many pixels.
    for name in formats:
        factory, accept = pillow.OPEN.get(name, (None, None))
        accepted = factory is not None and (accept is None or accept(prefix))
        if not accepted or isinstance(accepted, str):  # a string names the missing library
            continue
        stream.seek(0)
        try:
            image = cast("ImageFile.ImageFile", factory(stream, ""))
        except (SyntaxError, IndexError, TypeError, struct.error):  # the file has another format
            continue
        _check_pixels(image.width * image.height, max_pixels)
        _check_scans(image, stream)
        return image
    raise pillow.UnidentifiedImageError


def _gif_pixels(stream: io.BufferedIOBase) -> int:
    """Return the number of pixels of the canvas that holds the first frame of a GIF."""
    width, height, flags = struct.unpack_from("<HHB", stream.read(13), 6)
    stream.read(6 << flags % 8 if flags >= 128 else 0)  # the palette
    while (kind := stream.read(1)) not in (b"", b";"):
        if kind == b",":
            left, top, across, down = struct.unpack("<4H", stream.read(8))
            return max(width, left + across) * max(height, top + down)
        if kind == b"!":
            stream.read(1)
            while size := stream.read(1)[0]:
                stream.read(size)
    return width * height


def _check_pixels(pixels: int, max_pixels: int) -> None:
    """Raise `ValueError` if decoding an image would take too much memory."""
    if pixels > max_pixels:
        raise ValueError(
            f"an image must have at most {max_pixels} pixels; resize the image; got {pixels} pixels"
        )


def _check_scans(image: "Image.Image", stream: io.BufferedIOBase) -> None:
    """Raise `ValueError` if decoding an open image would take too much time."""
    if image.format in ("JPEG", "MPO"):
        place = stream.tell()
        stream.seek(0)
        scans = stream.read().count(b"\xff\xda")
        stream.seek(place)
        if scans > MAX_SCANS:
            raise ValueError(
                f"a JPEG must have at most {MAX_SCANS} scans; save the image again; "
                f"got {scans} scans"
            )


def _in_colours(pillow: ModuleType, image: "ImageFile.ImageFile") -> np.ndarray:
    """Return an opened image as uint8 RGB pixels, with a white background for transparency."""
    frame = image.tile[0][1] if image.format == "GIF" and image.tile else None
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        pixels = _upper_byte(image)
    elif image.mode in ("I", "F"):
        raise ValueError(
            "an image must have unsigned values of at most 16 bits. Scale the values to 0..255, "
            f"and save the image with 8 bits per channel; got Pillow's mode {image.mode!r}"
        )
    elif image.has_transparency_data:
        pixels = _on_white(np.asarray(image.convert("RGBA")))
    else:
        pixels = np.asarray(image.convert("RGB"))
    if frame is not None and frame != (0, 0, image.width, image.height):
        left, top, right, bottom = frame
        canvas = np.full_like(pixels, 255)
        canvas[top:bottom, left:right] = pixels[top:bottom, left:right]
        pixels = canvas
    # The orientation is read last, because a PNG file may store it after the pixels.
    return orient(pixels, _orientation(pillow, image))


def _orientation(pillow: ModuleType, image: "Image.Image") -> int:
    """Return the Exif orientation of an image, or 1 for a missing or unreadable orientation.

    Pillow applies TIFF's orientation itself.
    """
    content = image.info.get("exif")
    if image.format == "TIFF" or not isinstance(content, bytes):
        return 1
    exif = pillow.Exif()
    try:
        exif.load(content)
        return int(exif.get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001, damaged metadata of a camera do not damage the image
        return 1


def _upper_byte(image: "Image.Image") -> np.ndarray:
    """Return a 16-bit grey image as 8-bit RGB pixels. Its transparent grey value becomes white."""
    values = np.asarray(image).astype("int64")
    bits = 16
    if image.format == "TIFF":
        tiff = cast("TiffImagePlugin.TiffImageFile", image)
        bits = tiff.tag_v2.get(_BITS_PER_SAMPLE, (16,))[0]  # scanners and microscopes store 12 bits
    grey = np.clip(values >> (bits - 8), 0, 255).astype("uint8")
    if isinstance(image.info.get("transparency"), int):
        grey[values == image.info["transparency"]] = 255
    return np.repeat(grey[..., None], 3, axis=-1)


def _on_white(pixels: np.ndarray) -> np.ndarray:
    """Return RGBA pixels as RGB on white, computed in bands of rows to save memory."""
    found = np.empty((*pixels.shape[:2], 3), "uint8")
    rows = max(1, 2**20 // max(1, pixels.shape[1]))
    for start in range(0, len(pixels), rows):
        band = pixels[start : start + rows]
        alpha = band[..., 3:].astype("uint16")
        white = 255 * (255 - alpha)
        found[start : start + rows] = (band[..., :3] * alpha + white + 127) // 255
    return found
