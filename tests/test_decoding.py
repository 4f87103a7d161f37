import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from anogan_tf.data.entries import read_picture
from anogan_tf.data.preprocessing import Preprocessing
from anogan_tf.serving.decoding import decode_rows

SIZES = ((28, 28), (40, 61), (13, 90))
GREY = (28, 28, 1)
COLOUR = (28, 28, 3)


def drawing(height, width, mode):
    """A smooth picture, so that JPEG has something to say."""
    coarse = np.random.default_rng(height).integers(0, 256, (6, 7, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def saved(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def deep(height, width, channels):
    pixels = np.random.default_rng(height).integers(0, 65536, (height, width, channels)).astype(np.uint16)
    return tf.io.encode_png(pixels).numpy()


def decode(files, shape=GREY, max_pixels=2**28):
    preprocessing = Preprocessing(shape)
    signature = [tf.TensorSpec([None], tf.string)]
    rows = tf.function(lambda rows: decode_rows(rows, preprocessing, max_pixels), signature, autograph=False)(tf.constant(files))
    assert (rows.sizes.numpy() == shape[:2]).all()
    return rows.images.numpy(), rows.valid.numpy()


def read(path, content, shape=GREY):
    """As the library reads the same file."""
    path.write_bytes(content)
    picture = read_picture(path)
    assert picture.pixels is not None, picture.reason
    return Preprocessing(shape)(picture.pixels[np.newaxis]).numpy()[0]


def pictures():
    for height, width in SIZES:
        for mode in ("L", "RGB"):
            image = drawing(height, width, mode)
            yield f"{mode}.png {height}x{width}", saved(image, "PNG")
            yield f"{mode}.bmp {height}x{width}", saved(image, "BMP")
            yield f"{mode}.gif {height}x{width}", saved(image, "GIF")
            yield f"{mode}.jpg {height}x{width}", saved(image, "JPEG")
            yield f"{mode}.jpg fine {height}x{width}", saved(image, "JPEG", quality=97, subsampling=0)
            yield f"{mode}.jpg progressive {height}x{width}", saved(image, "JPEG", progressive=True)
        for channels in (1, 2, 3, 4):
            yield f"16 bits, {channels} channels {height}x{width}", deep(height, width, channels)
    colour = drawing(30, 20, "RGB")
    for mode in ("RGBA", "LA", "P", "1"):
        yield f"{mode}.png", saved(colour.convert(mode), "PNG")
    yield "palette with transparency.png", saved(colour.convert("P"), "PNG", transparency=3)
    yield "palette of greys.png", saved(colour.convert("L").convert("P"), "PNG")
    yield "palette.gif", saved(colour.convert("P"), "GIF")
    yield "moving.gif", saved(colour, "GIF", save_all=True, append_images=[drawing(30, 20, "RGB").rotate(180)])
    yield "32 bits.bmp", saved(colour.convert("RGBA"), "BMP")
    yield "cmyk.jpg", saved(colour.convert("CMYK"), "JPEG")


@pytest.mark.parametrize("shape", [GREY, COLOUR], ids=["grey network", "colour network"])
def test_the_same_numbers_as_the_library_reads(tmp_path, shape):
    names, files = zip(*pictures())
    pixels, valid = decode(files, shape)
    assert valid.all()
    for row, (name, file) in enumerate(zip(names, files)):
        np.testing.assert_array_equal(pixels[row], read(tmp_path / f"{row}{name.split()[0][-4:]}", file, shape), err_msg=name)


def test_sixteen_bits_are_not_cut():
    """Levels that differ in their low byte alone."""
    pixels = np.arange(28 * 28, dtype=np.uint16).reshape(28, 28, 1) % 256 + 512
    np.testing.assert_allclose(decode([tf.io.encode_png(pixels).numpy()])[0][0], pixels / 32767.5 - 1.0, atol=1e-6)


def crafted_png(width, height):
    return (
        b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\0\0\0\0" + b"\0" * 40
    )


NO_PICTURES = {
    "empty": b"",
    "text": b"hello",
    "a web page": b"<html>" + b" " * 2000,
    "tiff": saved(drawing(20, 20, "L"), "TIFF"),
    "webp": saved(drawing(20, 20, "L"), "WEBP"),
    "too small": saved(drawing(3, 30, "L"), "PNG"),
    "no pixels": crafted_png(0, 10),
    "bomb.png": crafted_png(2**16, 2**16),
    "bomb of all bits.png": crafted_png(2**32 - 1, 2**32 - 1),
    "three bits.png": crafted_png(9, 9).replace(b"\x08\0\0\0\0", b"\x03\0\0\0\0"),
    "no bits.png": crafted_png(9, 9).replace(b"\x08\0\0\0\0", b"\x00\x08\0\0\0"),
    "kind five.png": crafted_png(9, 9).replace(b"\x08\0\0\0\0", b"\x08\5\0\0\0"),
    "bomb.gif": b"GIF89a\xff\xff\xff\xff" + b"\0" * 40,
    "bomb.jpg": saved(drawing(20, 20, "L"), "JPEG").replace(b"\x08\x00\x14\x00\x14", b"\x08\xf0\x00\xf0\x00"),
    "bmp with a palette": saved(drawing(20, 20, "P"), "BMP"),
    "bmp of one bit": saved(drawing(20, 20, "1"), "BMP"),
    "only a head.png": b"\x89PNG\r\n\x1a\n",
}


def test_what_is_no_picture_is_marked_and_the_others_are_not_touched():
    good = saved(drawing(28, 28, "L"), "PNG")
    alone = decode([good])[0][0]
    pixels, valid = decode([good, *NO_PICTURES.values(), good])
    assert valid.tolist() == [True, *[False] * len(NO_PICTURES), True], list(NO_PICTURES)
    assert not pixels[1:-1].any()
    np.testing.assert_array_equal(pixels[0], alone)
    np.testing.assert_array_equal(pixels[-1], alone)


def test_no_rows_at_all():
    pixels, valid = decode(np.zeros(0, object).astype(bytes))
    assert pixels.shape == (0, *GREY) and valid.shape == (0,)


def test_damage_behind_the_header_fails():
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode([saved(drawing(200, 200, "RGB"), "PNG")[:3000]])


@pytest.mark.parametrize("width, height", [(80_000_000, 1), (10_000_000, 8), (1_000_001, 5)])
def test_a_side_that_no_decoder_takes_is_marked_by_its_header(tmp_path, width, height):
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    good = saved(drawing(30, 20, "L"), "PNG")
    images, valid = decode([header + bytes(40), good])
    assert valid.tolist() == [False, True]
    np.testing.assert_array_equal(images[1], read(tmp_path / "a.png", good))
    Image.new("1", (1_000_001, 5)).save(tmp_path / "long.png")
    assert "no side may be longer than 1000000" in read_picture(tmp_path / "long.png").reason


def test_pictures_beyond_the_bound_are_not_decoded():
    files = [saved(drawing(30, 20, mode), kind) for mode, kind in (("L", "PNG"), ("RGB", "JPEG"), ("L", "GIF"), ("RGB", "BMP"))]
    for most, count in ((599, 0), (600, 1), (1800, 3), (2400, 4)):
        assert decode(files, max_pixels=most)[1].tolist() == [True] * count + [False] * (4 - count)
    assert decode([b"no picture", files[0]], max_pixels=600)[1].tolist() == [False, True]
