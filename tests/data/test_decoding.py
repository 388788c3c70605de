"""Image files of every mode decode to the same pixels in every function of the package."""

import io
import struct
import time
import warnings
import zlib

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image", reason="the decoder on the host")

from keras_tokenlearner.data import FileImages, decode_image, from_folder  # noqa: E402
from keras_tokenlearner.data.decoding import (  # noqa: E402
    FOLDER_FORMATS,
    MAX_HEADER_READS,
    MAX_PIXELS,
    count_pixels,
)
from tests.data.odd_images import ODD, encode  # noqa: E402

pytestmark = pytest.mark.once("torch")

SMALL = np.random.default_rng(0).integers(0, 256, (6, 5, 3)).astype("uint8")


@pytest.mark.parametrize("name", ODD)
def test_decode_image_of_an_unusual_mode_gives_the_reference_pixels(name, tmp_path):
    content, right = ODD[name]
    found = decode_image(content)
    assert found.dtype == np.uint8 and found.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(found, right)
    (tmp_path / name).write_bytes(content)
    np.testing.assert_array_equal(FileImages([tmp_path / name], [0], ["a"])[0][0], right)
    grey = np.asarray(Image.fromarray(right).convert("L"))[..., None]
    np.testing.assert_array_equal(decode_image(tmp_path / name, channels=1), grey)
    assert count_pixels(content) == right[..., 0].size


@pytest.mark.parametrize("kind", ["TIFF", "AVIF"])
def test_tiff_and_avif_images_load_by_from_folder_and_raise_in_decode_image(kind, tmp_path):
    options = {"quality": 100, "subsampling": "4:4:4"} if kind == "AVIF" else {}
    try:
        content = encode(Image.fromarray(SMALL), kind, **options)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow does not write {kind}")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / f"0.{kind.lower()}").write_bytes(content)
    pixels, _ = from_folder(tmp_path)[0]
    np.testing.assert_allclose(pixels.astype(int), SMALL, atol=0 if kind == "TIFF" else 4)
    with pytest.raises(ValueError, match="decode_image: .*JPEG, PNG"):
        decode_image(content)


def test_decode_image_of_tiff_applies_orientation_and_reduces_16_bits():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encode(Image.fromarray(SMALL), "TIFF", exif=exif)
    found = decode_image(turned, formats=FOLDER_FORMATS)
    np.testing.assert_array_equal(found, np.rot90(SMALL, -1))
    deep = np.arange(0, 65536, 1311, "uint16")[None]
    found = decode_image(encode(Image.fromarray(deep), "TIFF"), formats=FOLDER_FORMATS)
    np.testing.assert_array_equal(found[..., 0], deep // 256)


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_decode_image_of_32_bit_values_raises(dtype):
    content = encode(Image.fromarray(SMALL[..., 0].astype(dtype)), "TIFF")
    with pytest.raises(ValueError, match="16 bits.*mode"):
        decode_image(content, formats=FOLDER_FORMATS)


def test_eps_file_called_photo_jpg_never_starts_ghostscript(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    def start(*_):
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", start)
    folder = tmp_path / "cat"
    folder.mkdir()
    Image.fromarray(SMALL).save(folder / "photo.jpg", "EPS")
    with pytest.raises(ValueError, match=r"JPEG, PNG.*photo\.jpg"):
        from_folder(tmp_path)[0]


def _png_of_size(width, height):
    def chunk(kind, data):
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_image_of_too_many_pixels_raises_before_decoding(tmp_path):
    for width, pixels in ((12_000, "144000000"), (60_000, "720000000")):
        for read in (decode_image, count_pixels):
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # Pillow has its own warning and its own limit
                with pytest.raises(ValueError, match=f" {MAX_PIXELS} pixels.* {pixels}"):
                    read(_png_of_size(width, 12_000))
    assert count_pixels(_png_of_size(20_000, 10_000), max_pixels=2 * 10**8) == 2 * 10**8
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.png").write_bytes(encode(Image.fromarray(SMALL), "PNG"))
    assert from_folder(tmp_path, max_pixels=30)[0][0].shape == (6, 5, 3)
    with pytest.raises(ValueError, match=r"0\.png.* 29 .* 30"):
        from_folder(tmp_path, max_pixels=29)[0]


def _gif(width, height, parts=b""):
    """Return a GIF with a small canvas, a frame of any size, and parts before the frame."""
    content = encode(Image.fromarray(SMALL[..., 0]), "GIF")
    place = content.index(struct.pack("<BHHHH", 0x2C, 0, 0, 5, 6))
    frame = struct.pack("<BHHHH", 0x2C, 0, 0, width, height)
    return content[:place] + parts + frame + content[place + 9 :]


@pytest.mark.parametrize("disposal", [0, 2])
def test_gif_frame_of_too_many_pixels_raises_in_every_decoder(disposal, tmp_path):
    """Pillow has its own limit, and allocates the frame while it opens the file."""
    control = b"\x21\xf9\x04" + bytes([disposal << 2, 0, 0, 0, 0])
    (tmp_path / "a").mkdir()
    for width, pixels in ((12_000, "144000000"), (60_000, "720000000")):
        content = _gif(width, 12_000, control)
        (tmp_path / "a" / "0.gif").write_bytes(content)
        routes = (
            lambda content: decode_image(content),
            lambda content: count_pixels(content),
            lambda content: decode_image(tmp_path / "a" / "0.gif"),
            lambda content: from_folder(tmp_path)[0],
        )
        for read in routes:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                with pytest.raises(ValueError, match=f" {MAX_PIXELS} pixels.* {pixels}"):
                    read(content)
    assert count_pixels(_gif(50, 60, control)) == 3000


def _chunks(count):
    """Return a PNG with a given number of header chunks that readers skip."""
    content = encode(Image.fromarray(SMALL), "PNG")
    place = content.index(b"IDAT") - 4
    part = b"\0\0\0\0prVt" + struct.pack(">I", zlib.crc32(b"prVt"))
    return content[:place] + part * count + content[place:]


MANY_PARTS = {
    "GIF comment": (lambda n: _gif(5, 6, b"\x21\xfe" + (b"\xff" + b"a" * 255) * n + b"\0"), 4_000),
    "GIF comments": (lambda n: _gif(5, 6, b"\x21\xfe\x01a\0" * n), 3_000),
    "GIF junk": (lambda n: _gif(5, 6, b"x" * n), 16_000),
    "PNG chunks": (_chunks, 3_000),
    "JPEG padding": (
        lambda n: b"\xff\xd8" + b"\xff" * n + encode(Image.fromarray(SMALL), "JPEG")[2:],
        16_000,
    ),
}


@pytest.mark.parametrize("kind", MANY_PARTS)
def test_image_header_of_too_many_parts_raises_in_a_short_time(kind):
    """Pillow takes a second for each megabyte of padding in a JPEG."""
    make, most = MANY_PARTS[kind]
    assert count_pixels(make(most)) == 30
    assert decode_image(make(most)).shape == (6, 5, 3)
    content, start = make(40 * most), time.process_time()
    for read in (decode_image, count_pixels):
        with pytest.raises(ValueError, match=f" {MAX_HEADER_READS} reads"):
            read(content)
    assert time.process_time() - start < 5


def test_jpeg_with_hundreds_of_scans_raises():
    content = encode(Image.fromarray(SMALL), "JPEG", progressive=True)
    start = content.rindex(b"\xff\xda")
    scan = content[start:-2]
    with pytest.raises(ValueError, match="scans"):
        decode_image(content[:start] + scan * 800 + b"\xff\xd9")


def test_png_with_many_compressed_text_chunks_raises():
    from PIL.PngImagePlugin import PngInfo

    for count in (3, 17):
        info = PngInfo()
        for index in range(count):
            info.add_text(f"text {index}", "a" * 10_000, zip=True)
        content = encode(Image.fromarray(SMALL), "PNG", pnginfo=info)
        if count == 3:
            np.testing.assert_array_equal(decode_image(content), SMALL)
            continue
        for read in (decode_image, count_pixels):
            with pytest.raises(ValueError, match=" 16 text chunks.* 17"):
                read(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
def test_damaged_image_files_raise_only_value_error(kind):
    content = encode(Image.fromarray(SMALL).resize((40, 30)), kind)
    random = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content)
        for place in random.integers(2, len(content), 3):
            damaged[place] = random.integers(256)
        try:
            pixels = decode_image(bytes(damaged[: random.integers(10, len(content) + 1)]))
        except ValueError:
            continue
        assert pixels.dtype == np.uint8 and pixels.shape[-1] == 3


def test_decode_image_of_damaged_exif_ignores_the_orientation():
    picture = Image.fromarray(SMALL)
    plain = decode_image(encode(picture, "PNG"))
    for exif in (b"Exif\0\0", b"Exif\0\0MM\0*\0\0\xff\xff", b"Exif\0\0nothing at all"):
        stream = io.BytesIO()
        picture.save(stream, "PNG", exif=exif)
        np.testing.assert_array_equal(decode_image(stream.getvalue()), plain)


@pytest.mark.parametrize("channels", [2, 4, "3"])
def test_decode_image_with_channels_other_than_one_and_three_raises(channels):
    with pytest.raises(ValueError, match=f"channels={channels!r}"):
        decode_image(encode(Image.fromarray(SMALL), "PNG"), channels=channels)
