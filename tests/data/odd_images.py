"""Image files of unusual modes, and their expected pixels from independent references."""

import io
import struct

import numpy as np
from PIL import Image, ImageOps

RANDOM = np.random.default_rng(7)
SIZE = (40, 52)  # height and width


def _smooth(channels):
    small = RANDOM.integers(0, 256, (5, 7, channels)).astype("uint8")
    planes = [Image.fromarray(small[..., c]).resize(SIZE[::-1], 3) for c in range(channels)]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def encode(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _colours(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def on_white(rgba):
    """Blend pixels with a white background, in float64."""
    alpha = rgba[..., 3:] / 255.0
    return np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype("uint8")


def _grey(values):
    return np.repeat(np.asarray(values, "uint8")[..., None], 3, axis=-1)


def _found():
    """Yield names, bytes and expected pixels, of type uint8 with three channels."""
    picture = Image.fromarray(_smooth(3))
    deep = RANDOM.integers(0, 65536, SIZE).astype("uint16")
    yield "16_bit_grey.png", encode(Image.fromarray(deep), "PNG"), _grey(deep // 256)

    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for kind in ("jpg", "png", "webp"):
            if kind != "jpg" and orientation not in (3, 6):
                continue
            options = {"jpg": {"quality": 95}, "png": {}, "webp": {"lossless": True}}[kind]
            name = {"jpg": "JPEG"}.get(kind, kind.upper())
            content = encode(picture, name, exif=exif, **options)
            right = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
            yield f"exif_{orientation}.{kind}", content, np.asarray(right)
    big_endian = b"Exif\0\0MM\0\x2a" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    content = encode(picture, "JPEG", exif=big_endian, comment=b"before or after the Exif part")
    right = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    yield "exif_big_endian.jpg", content, np.asarray(right)

    rgba = _smooth(4)
    alpha = Image.fromarray(rgba)
    yield "alpha.png", encode(alpha, "PNG"), on_white(rgba)
    yield "alpha.webp", encode(alpha, "WEBP", lossless=True, exact=True), on_white(rgba)
    la = _smooth(2)
    content = encode(Image.fromarray(la, "LA"), "PNG")
    yield "grey_alpha.png", content, on_white(np.repeat(la, [3, 1], axis=-1))

    few = picture.quantize(8)
    table = np.reshape(few.getpalette(), (-1, 3))
    clear = np.where((np.asarray(few) == 3)[..., None], 255, table[np.asarray(few)]).astype("uint8")
    yield "transparent_palette.png", encode(few, "PNG", transparency=3), clear
    rank = np.asarray(few)
    half = np.concatenate([table, np.array([[0, 32, 64, 96, 128, 160, 192, 224]]).T], axis=1)
    content = encode(few, "PNG", transparency=bytes(half[:, 3].tolist()))
    yield "half_transparent_palette.png", content, on_white(half[rank].astype("uint8"))
    yield "transparent.gif", encode(few, "GIF", transparency=3), clear
    yield "palette.gif", encode(few, "GIF"), table[rank].astype("uint8")
    grey = Image.fromarray(_smooth(1)[..., 0])
    pixels = np.asarray(grey)
    content = encode(grey, "PNG", transparency=int(pixels[3, 4]))
    yield "transparent_grey.png", content, _grey(np.where(pixels == pixels[3, 4], 255, pixels))

    frames = [Image.fromarray(_smooth(4)) for _ in range(3)]
    options = {"save_all": True, "append_images": frames[1:], "duration": 50}
    content = encode(frames[0], "WEBP", lossless=True, exact=True, **options)
    yield "animated.webp", content, on_white(np.asarray(frames[0]))
    others = [Image.fromarray(_smooth(3)).quantize(8) for _ in range(2)]
    content = encode(few, "GIF", save_all=True, append_images=others, duration=50, transparency=3)
    yield "animated.gif", content, clear
    yield "animated.png", encode(frames[0], "PNG", **options), on_white(np.asarray(frames[0]))

    content = encode(few, "GIF", transparency=3)
    screen = struct.pack("<HH", SIZE[1] + 9, SIZE[0] + 6)  # a canvas larger than the frame
    canvas = np.full((SIZE[0] + 6, SIZE[1] + 9, 3), 255, "uint8")
    canvas[: SIZE[0], : SIZE[1]] = clear
    content = content[:6] + screen + content[10:]
    yield "small_frame.gif", content, canvas
    place = content.index(struct.pack("<BHHHH", 0x2C, 0, 0, SIZE[1], SIZE[0]))
    moved = content[: place + 1] + struct.pack("<HH", 4, 2) + content[place + 5 :]
    canvas = np.full_like(canvas, 255)
    canvas[2 : 2 + SIZE[0], 4 : 4 + SIZE[1]] = clear
    yield "moved_frame.gif", moved, canvas

    content = encode(picture.convert("CMYK"), "JPEG", quality=95)
    yield "cmyk.jpg", content, _colours(content)
    yield "grey.jpg", encode(grey, "JPEG", quality=95), _colours(encode(grey, "JPEG", quality=95))
    yield "black_and_white.png", encode(grey.convert("1"), "PNG"), _grey(grey.convert("1")) * 255


ODD = {name: (content, pixels) for name, content, pixels in _found()}
