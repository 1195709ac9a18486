"""Images of all kinds are read as Pillow reads them, or rejected by name."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf

from spidercap.models.images import decode_image, decode_or_fault, image_fault

Image = pytest.importorskip("PIL.Image")
ImageOps = pytest.importorskip("PIL.ImageOps")

Y, X = np.mgrid[0:19, 0:23]
RGB = np.stack([X * 11, Y * 13, (X * 7 + Y * 11) % 256], -1).astype(np.uint8)
IMAGE = Image.fromarray(RGB)
GREY = IMAGE.convert("L")
ALPHA = Image.fromarray(np.concatenate([RGB, RGB[..., :1]], -1))
JPEG_TOLERANCE = 4  # the inverse cosine transform may be rounded in several ways


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(kind, orientation, order="<", **options):
    exif = Image.Exif()
    exif.endian = order
    exif[0x0112] = orientation
    return encoded(IMAGE, kind, exif=exif, **options)


def bitmap(bits, rows, palette=b"", header=40, compression=0, height=19, masks=b""):
    """A BMP with bytes of rows; with header=12 it is OS/2's."""
    start = 14 + header + len(masks) + len(palette)
    if header == 12:
        head = struct.pack("<IHHHH", 12, 23, height, 1, bits)
    else:
        used = len(palette) // 4
        head = struct.pack("<IiiHHIIiiII", 40, 23, height, 1, bits, compression, len(rows), 0, 0, used, 0)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + head + masks + palette + rows


def padded(rows):
    return b"".join(row + bytes(-len(row) % 4) for row in rows)


INDICES = [bytes(((X + Y)[y] % 40).tolist()) for y in range(19)]
COLOURS = bytes(np.random.default_rng(0).integers(0, 255, 160).astype(np.uint8))
INVERTED = b"".join(bytes([255 - i] * 3 + [0]) for i in range(256))
WORDS = [struct.pack("<23H", *((X * 2000 + Y * 37)[y] % 2**15).tolist()) for y in range(19)]
MASKS_565 = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
EXACT = {
    "png 1": encoded(IMAGE.convert("1"), "PNG"),
    **{f"png {b} bits": encoded(IMAGE.quantize(2**b), "PNG", bits=b) for b in (1, 2, 4, 8)},
    "png grey": encoded(GREY, "PNG"),
    "png transparent colour": encoded(IMAGE.quantize(16), "PNG", transparency=3),
    "png rgb": encoded(IMAGE, "PNG"),
    "png rgba": encoded(ALPHA, "PNG"),
    "png grey and alpha": encoded(ALPHA.convert("LA"), "PNG"),
    "gif": encoded(IMAGE.quantize(64), "GIF"),
    "gif not interlaced": encoded(IMAGE.quantize(64), "GIF", interlace=0),
    "gif grey": encoded(GREY, "GIF"),
    "gif transparent": encoded(IMAGE.quantize(16), "GIF", transparency=3),
    "gif animated": encoded(IMAGE.quantize(8), "GIF", save_all=True, append_images=[GREY.quantize(8)] * 3),
    "bmp 1": encoded(IMAGE.convert("1"), "BMP"),
    "bmp 4": encoded(IMAGE.quantize(16), "BMP"),
    "bmp grey": encoded(GREY, "BMP"),
    "bmp 256 colours": encoded(IMAGE.quantize(256), "BMP"),
    "bmp 40 colours": bitmap(8, padded(INDICES), COLOURS),
    "bmp inverted grey": bitmap(8, padded(INDICES), INVERTED),
    "bmp palette, top-down": bitmap(8, padded(INDICES), COLOURS, height=-19),
    "bmp 16": bitmap(16, padded(WORDS)),
    "bmp 16 with masks": bitmap(16, padded(WORDS), compression=3, masks=MASKS_565),
    "bmp 24": encoded(IMAGE, "BMP"),
    "bmp 24 top-down": bitmap(24, padded([RGB[y, :, ::-1].tobytes() for y in range(19)]), height=-19),
    "bmp 24 of OS/2": bitmap(24, padded([RGB[y, :, ::-1].tobytes() for y in range(19)]), header=12),
    "bmp 32": encoded(ALPHA, "BMP"),
    "webp": encoded(IMAGE, "WEBP"),
    "webp lossless": encoded(IMAGE, "WEBP", lossless=True),
    "webp alpha": encoded(ALPHA, "WEBP"),
    "webp lossless alpha": encoded(ALPHA, "WEBP", lossless=True),
    **{f"png exif {o}{e}": turned("PNG", o, e) for o in (3, 6) for e in "<>"},
    **{f"webp exif {o}": turned("WEBP", o) for o in (5, 8)},
}
JPEGS = {
    "grey": encoded(GREY, "JPEG"),
    "cmyk": encoded(IMAGE.convert("CMYK"), "JPEG"),
    "rgb": encoded(IMAGE, "JPEG", keep_rgb=True),
    "progressive": encoded(IMAGE, "JPEG", progressive=True),
    **{f"exif {o}{e}": turned("JPEG", o, e) for o in range(1, 9) for e in "<>"},
}
SUBSAMPLED = [encoded(IMAGE, "JPEG", subsampling=s, quality=95) for s in (0, 1, 2)]


def without_segment(data, marker):
    """A JPEG without its first segment of a kind."""
    place = data.index(bytes([0xFF, marker]))
    return data[:place] + data[place + 2 + int.from_bytes(data[place + 2 : place + 4], "big") :]


REJECTED = {
    "a CMYK JPEG without an Adobe marker": without_segment(JPEGS["cmyk"], 0xEE),
    "a JPEG of other than 8 bits per sample": JPEGS["grey"].replace(b"\xff\xc0\0\x0b\x08", b"\xff\xc0\0\x0b\x0c"),
    "a TIFF": encoded(IMAGE, "TIFF"),
    "an ICO": encoded(IMAGE, "ICO"),
    "a PNM": encoded(IMAGE, "PPM"),
    "a HEIC": b"\0\0\0\x18ftypheic" + bytes(20),
    "an AVIF": b"\0\0\0\x18ftypavif" + bytes(20),
    "an animated WebP": encoded(IMAGE, "WEBP", save_all=True, append_images=[ALPHA]),
    "a run-length encoded BMP": bitmap(8, padded(INDICES), COLOURS, compression=1),
    "empty": b"",
    "no image": b"text",
    "cut off": EXACT["gif"][:-40],
    "cut off or": EXACT["bmp 40 colours"][:-40],
}


def as_pillow(data):
    image = ImageOps.exif_transpose(opened := Image.open(io.BytesIO(data)))
    if opened.format in ("PNG", "WEBP") and image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("name", EXACT)
def test_pixels_are_those_of_pillow(name):
    rounding = 1 if "alpha" in name or "rgba" in name else 0  # of what shows through
    np.testing.assert_allclose(decode_image(EXACT[name]).numpy(), as_pillow(EXACT[name]), atol=rounding)


def test_what_is_transparent_is_white():
    drawing = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    drawing.putpixel((1, 2), (0, 0, 0, 255))
    for kind in ("PNG", "WEBP"):
        shown = decode_image(encoded(drawing, kind, **({"lossless": True} if kind == "WEBP" else {}))).numpy()
        assert (shown == 0).sum() == 3 and (shown == 255).sum() == 45 and not shown[2, 1].any()


@pytest.mark.parametrize("name", JPEGS)
def test_jpegs_are_those_of_pillow_but_for_rounding(name):
    np.testing.assert_allclose(decode_image(JPEGS[name]).numpy(), as_pillow(JPEGS[name]), atol=JPEG_TOLERANCE)


@pytest.mark.parametrize("data", SUBSAMPLED, ids=["4:4:4", "4:2:2", "4:2:0"])
def test_sharp_jpegs_differ_by_the_fast_transform_alone(data):
    """TensorFlow's default, on which stored features rest; Pillow uses the accurate one."""
    np.testing.assert_array_equal(decode_image(data), tf.io.decode_jpeg(data, dct_method="INTEGER_FAST"))
    accurate = tf.io.decode_jpeg(data, dct_method="INTEGER_ACCURATE").numpy().astype(int)
    np.testing.assert_allclose(accurate, as_pillow(data), atol=1)


@pytest.mark.parametrize("what", REJECTED)
def test_what_cannot_be_read_is_named(what):
    assert what in image_fault(REJECTED[what]).numpy().decode()
    with pytest.raises(tf.errors.InvalidArgumentError, match=what):
        decode_image(REJECTED[what])


@pytest.mark.parametrize("name", [*EXACT, *JPEGS])
def test_without_a_fault_the_pixels_are_the_same(name):
    data = (EXACT | JPEGS)[name]
    image, fault = decode_or_fault(data)
    assert not fault.numpy()
    np.testing.assert_array_equal(image, decode_image(data))


def test_a_fault_is_told_and_nothing_is_raised():
    whole = {kind: encoded(IMAGE.resize((300, 200)), kind) for kind in ("JPEG", "PNG", "GIF", "WEBP")}
    damaged = [data[: len(data) // 2] + b"\xff\0" * 8 + data[len(data) // 2 + 16 :] for data in whole.values()]
    damaged += [data[: len(data) // 2] for data in whole.values()]
    damaged += [whole["JPEG"].replace(b"\xff\xc4", b"\xff\xc4\xff\xff", 1), whole["PNG"][:8] + b"IHDR" * 9]
    asked = [*damaged, *REJECTED.values(), *whole.values()]

    def decode(data):
        image, fault = decode_or_fault(data, 10**6)
        return fault, tf.shape(image)

    specs = tf.TensorSpec([], tf.string), tf.TensorSpec([3], tf.int32)
    faults, shapes = tf.map_fn(decode, tf.constant(asked), fn_output_signature=specs)
    faults = [fault.decode() for fault in faults.numpy()]
    alone = []
    for data in damaged:
        try:
            decode_image(data, 10**6)
            alone.append(False)  # the damage is in pixels alone
        except tf.errors.InvalidArgumentError:
            alone.append(True)
    assert [bool(fault) for fault in faults[: len(damaged)]] == alone and sum(alone) >= 7
    assert all(what in fault for what, fault in zip(REJECTED, faults[len(damaged) :], strict=False))
    assert faults[-4:] == [""] * 4 and shapes[-4:].numpy().tolist() == [[200, 300, 3]] * 4
    assert (shapes.numpy()[[bool(fault) for fault in faults]] == [1, 1, 3]).all()


def test_of_16_bits_the_upper_8_remain():
    deep = (X * 2800 + Y).astype(np.uint16)
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(deep), "PNG")).numpy()[..., 0], deep >> 8)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "JPEG", "WEBP"])
@pytest.mark.parametrize("options", [{}, {"lossless": True, "exif": Image.Exif()}])
def test_too_many_pixels_are_named_with_their_size(kind, options):
    data = encoded(IMAGE, kind, **options)
    assert image_fault(data, 23 * 19).numpy() == b""
    assert image_fault(data, 23 * 19 - 1).numpy() == b"has 23 x 19 pixels, more than the 436 allowed"


def test_damaged_exif_means_upright():
    whole, rng = turned("JPEG", 6), np.random.default_rng(1)
    place = whole.index(b"Exif") + 6
    upright = decode_image(encoded(IMAGE, "JPEG")).numpy()
    for change in (struct.pack("<I", 2**32 - 1), struct.pack("<I", 2**31), struct.pack("<I", 0), b"\4\0\0\0"):
        data = whole[: place + 4] + change + whole[place + 8 :]
        np.testing.assert_array_equal(decode_image(data).numpy(), upright)
    for _ in range(50):  # anything may stand there, and never is an error
        data = bytearray(whole)
        for at in rng.integers(place, place + 26, 4):
            data[at] = rng.integers(256)
        assert image_fault(bytes(data)).numpy() == b""
