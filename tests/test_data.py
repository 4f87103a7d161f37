import hashlib
import zlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tifffile
from PIL import Image, features

from anogan_tf.data import sources
from anogan_tf.data.embedded import load_embedded
from anogan_tf.data.entries import read_entry, read_picture
from anogan_tf.data.layouts import list_images
from anogan_tf.data.pictures import ImageInfo
from anogan_tf.data.preprocessing import Preprocessing
from anogan_tf.data.sources import FileSource, load_images, read_samples
from anogan_tf.runtime.remarks import Remark

rng = np.random.default_rng(0)


def picture(height=20, width=24, channels=None):
    shape = (height, width) if channels is None else (height, width, channels)
    return rng.integers(0, 256, shape, np.uint8)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return pixels


def read(path):
    found = read_picture(path)
    assert found.pixels is not None, found.reason
    return found.pixels


def test_built_in_set():
    images = load_embedded()
    assert images.train.shape == (2000, 28, 28) and images.test.shape == (606, 28, 28) and images.train.dtype == np.uint8
    assert (images.test_label == 0).sum() == 300 and ((images.test_class == 9) == (images.test_label == 0)).all()


def test_built_in_train_and_test_share_no_image():
    def digests(images):
        return {hashlib.sha256(image.tobytes()).digest() for image in images}

    images = load_embedded()
    assert not digests(images.train) & digests(images.test)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".tif", ".PNG"])
@pytest.mark.parametrize("channels", [None, 3])
def test_lossless_formats(tmp_path, suffix, channels):
    pixels = save(tmp_path / f"a{suffix}", picture(channels=channels))
    np.testing.assert_array_equal(read(tmp_path / f"a{suffix}"), pixels.reshape(20, 24, -1))


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_lossy_formats(tmp_path, suffix):
    smooth = np.tile(np.arange(0, 240, 10, np.uint8), (20, 1))
    save(tmp_path / f"a{suffix}", np.stack([smooth] * 3, -1), quality=95)
    assert np.abs(read(tmp_path / f"a{suffix}").astype(int) - smooth[..., None]).mean() < 4


def test_depths_and_modes(tmp_path):
    deep = rng.integers(0, 65536, (20, 24)).astype(np.uint16)
    np.testing.assert_array_equal(read_saved(tmp_path / "deep.png", Image.fromarray(deep))[..., 0], deep)
    floats = rng.uniform(size=(20, 24)).astype(np.float32)
    np.testing.assert_array_equal(read_saved(tmp_path / "float.tiff", Image.fromarray(floats))[..., 0], floats)
    colour = Image.fromarray(picture(channels=3))
    assert read_saved(tmp_path / "palette.png", colour.quantize(16)).shape == (20, 24, 3)
    assert read_saved(tmp_path / "alpha.png", colour.convert("RGBA")).shape == (20, 24, 3)
    assert read_saved(tmp_path / "greyalpha.png", colour.convert("LA")).shape == (20, 24, 1)
    assert read_saved(tmp_path / "bits.png", colour.convert("1")).max() == 255
    assert read_saved(tmp_path / "cmyk.jpg", colour.convert("CMYK")).shape == (20, 24, 3)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_sixteen_bits_of_colour_are_not_cut_and_turned_upright(tmp_path, channels):
    pixels = rng.integers(0, 65536, (20, 24, channels)).astype(np.uint16)
    encoded = tf.io.encode_png(pixels).numpy()
    (tmp_path / "deep.png").write_bytes(encoded)
    kept = pixels[..., : 3 if channels > 2 else 1]
    np.testing.assert_array_equal(read(tmp_path / "deep.png"), kept)
    exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"  # turn a quarter to the right
    chunk = b"eXIf" + exif
    chunk = len(exif).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    (tmp_path / "turned.png").write_bytes(encoded[:33] + chunk + encoded[33:])
    np.testing.assert_array_equal(read(tmp_path / "turned.png"), np.rot90(kept, -1))


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
@pytest.mark.parametrize("channels", [2, 3, 4])
def test_tiff_in_colour_keeps_its_bits(tmp_path, kind, channels):
    pixels = rng.integers(0, 65536, (20, 24, channels)).astype(kind)
    photometric = "minisblack" if channels == 2 else "rgb"
    for name, options in (("one", {}), ("packed", {"compression": "zlib"}), ("turned", {"extratags": [(274, "H", 1, 6, True)]})):
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, photometric=photometric, planarconfig="contig", **options)
    tifffile.imwrite(tmp_path / "apart.tif", np.moveaxis(pixels, -1, 0), photometric=photometric, planarconfig="separate")
    kept = pixels[..., : 3 if channels > 2 else 1]
    for name in ("one", "packed", "apart"):
        np.testing.assert_array_equal(read(tmp_path / f"{name}.tif"), kept)
    np.testing.assert_array_equal(read(tmp_path / "turned.tif"), np.rot90(kept, -1))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_grey_tiff_keeps_its_bits(tmp_path, kind):
    pixels = rng.integers(0, 256, (20, 24)).astype(kind) * (257 if kind == np.uint16 else 1)
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    found = read(tmp_path / "a.tif")
    assert found.dtype == kind
    np.testing.assert_array_equal(found[..., 0], pixels)
    assert FileSource.of(tmp_path).info(0) == ImageInfo(1, deep=kind != np.uint8)


def test_a_palette_of_greys_is_grey(tmp_path):
    grey = Image.fromarray(picture())
    np.testing.assert_array_equal(read_saved(tmp_path / "grey.gif", grey)[..., 0], np.asarray(grey))
    assert read_saved(tmp_path / "grey.png", grey.convert("P")).shape == (20, 24, 1)
    grey.convert("RGB").quantize(16).save(tmp_path / "few.png")
    assert [FileSource.of(tmp_path).info(row).channels for row in range(3)] == [1, 1, 1]


def test_a_moving_gif_is_its_first_picture(tmp_path):
    first, second = (Image.fromarray(picture()) for _ in range(2))
    first.save(tmp_path / "moving.gif", save_all=True, append_images=[second])
    with pytest.warns(Remark, match="moving.gif: the first of 2 pages"):
        np.testing.assert_array_equal(read(tmp_path / "moving.gif")[..., 0], np.asarray(first))


def read_saved(path, image):
    image.save(path)
    return read(path)


def test_exif_orientation_is_followed(tmp_path):
    pixels = picture()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter to the right
    save(tmp_path / "turned.png", pixels, exif=exif)
    np.testing.assert_array_equal(read(tmp_path / "turned.png")[..., 0], np.rot90(pixels, -1))


def test_folders_are_read_to_any_depth_in_order(tmp_path):
    for name in ("b/2.png", "a/1.png", "a/deep/er/0.png", "0.png"):
        save(tmp_path / name, picture(int(rng.integers(8, 40)), 24))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._0.png").write_text("what a Mac leaves behind")
    with pytest.warns(Remark, match=r"lie in folders \(., a, b\)"):
        images = load_images(tmp_path)
    assert images.names == [str(tmp_path / name) for name in ("0.png", "a/1.png", "a/deep/er/0.png", "b/2.png")]
    assert all(image.shape[1:] == (24, 1) and image.dtype == np.uint8 for image in images.pixels) and not images.skipped


def test_bad_files_among_good_ones_are_skipped_with_their_reason(tmp_path):
    save(tmp_path / "good.png", picture())
    whole = tmp_path / "whole.png"
    save(whole, picture(200, 200))
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:3000])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("hello")
    save(tmp_path / "thin.png", picture(3, 30))
    Image.fromarray(np.full((20, 20), np.nan, np.float32)).save(tmp_path / "nan.tiff")
    source = FileSource.of(tmp_path)
    samples = list(read_samples(source, Preprocessing((16, 16, 1))))
    assert [sample.entry.name for sample in samples] == [entry.name for entry in source.entries]
    assert [Path(sample.entry.name).name for sample in samples if sample.image is not None] == ["good.png", "whole.png"]
    reasons = {Path(sample.entry.name).name: sample.reason for sample in samples if sample.reason}
    assert reasons.keys() == {"cut.png", "empty.jpg", "text.png", "thin.png", "nan.tiff"}
    assert "truncated" in reasons["cut.png"] and "unknown format" in reasons["text.png"]
    assert "at least 4" in reasons["thin.png"] and "NaN" in reasons["nan.tiff"]
    with pytest.raises(ValueError, match="cut.png: not a readable image"):
        list(read_samples(source, Preprocessing((16, 16, 1)), strict=True))


def test_a_decompression_bomb_is_skipped(tmp_path):
    Image.new("1", (16000, 12000)).save(tmp_path / "bomb.png")
    assert "decompression bomb" in read_picture(tmp_path / "bomb.png").reason


def test_arrays(tmp_path):
    pixels = picture(20, 24, 5).transpose(2, 0, 1)
    np.save(tmp_path / "five.npy", pixels)
    np.savez(tmp_path / "one.npz", whatever=pixels)
    np.savez(tmp_path / "named.npz", images=pixels[:2], labels=np.zeros(2))
    images = load_images([tmp_path / "five.npy", tmp_path / "one.npz", tmp_path / "named.npz"])
    assert len(images.names) == 12 == len(list_images(tmp_path))
    assert images.names[0] == f"{tmp_path / 'five.npy'}[0]" and images.names[5] == f"{tmp_path / 'one.npz'}:whatever[0]"
    np.testing.assert_array_equal(images.pixels[:5], images.pixels[5:10])


@pytest.mark.parametrize(
    "arrays, reason",
    [
        ({"a": np.zeros((2, 8, 8)), "b": np.zeros(2)}, "holds the arrays a, b; name the one with the images 'images'"),
        ({"x": np.zeros((0, 8, 8), np.uint8)}, "holds no images"),
        ({"x": np.zeros(5)}, r"shape \(5,\); expected"),
        ({"x": np.array([{}], dtype=object)}, "allow_pickle"),
    ],
)
def test_arrays_that_cannot_be_used_are_named(tmp_path, arrays, reason):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=f"bad.npz.*{reason}"):
        load_images(tmp_path)


def test_channels_follow_the_files(tmp_path):
    save(tmp_path / "grey.png", picture())
    save(tmp_path / "rgb.png", np.repeat(picture()[..., np.newaxis], 3, axis=-1))
    source = FileSource.of(tmp_path)
    with pytest.warns(Remark, match="1 images are kept as RGB and show no colour, such as .*rgb.png: taken as grey"):
        assert sources.count_channels(source, sources.read_infos(source, [0, 1])) == 1
    save(tmp_path / "very.png", picture(channels=3))
    source = FileSource.of(tmp_path)
    assert sources.count_channels(source, sources.read_infos(source, [0, 1, 2])) == 3


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or folder"):
        load_images(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no images; looked for .apng"):
        load_images(tmp_path)
    (tmp_path / "bad.png").touch()
    with pytest.raises(ValueError, match="None of 1 images can be read; the first, .*bad.png"):
        load_images(tmp_path)


def test_white_is_white_in_every_kind_of_tiff(tmp_path):
    levels = np.linspace(0, 65535, 480).astype(np.uint16).reshape(20, 24)
    tifffile.imwrite(tmp_path / "white0.tif", 65535 - levels, photometric="miniswhite")
    np.testing.assert_array_equal(read(tmp_path / "white0.tif")[..., 0], levels)
    tifffile.imwrite(tmp_path / "cmyk.tif", np.stack([levels] * 4, -1), photometric="separated")
    tifffile.imwrite(tmp_path / "many.tif", np.stack([levels] * 20, -1), photometric="minisblack", planarconfig="contig")
    for name in ("cmyk", "many"):
        assert "only grey and RGB" in read_picture(tmp_path / f"{name}.tif").reason


def test_names_that_are_not_utf8_are_read(tmp_path):
    import os

    save(tmp_path / "a.png", picture())
    os.rename(os.fsencode(tmp_path / "a.png"), os.fsencode(tmp_path) + b"/\xff.png")
    (sample,) = read_samples(FileSource.of(tmp_path), Preprocessing((16, 16, 1)))
    assert sample.image is not None and sample.entry.name.endswith("\\udcff.png")


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".jp2", ".pgm", ".ppm", ".tga", ".dib", ".pcx", ".sgi", ".mpo", ".avif"])
def test_whatever_pillow_reads_is_taken(tmp_path, suffix):
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    smooth = np.tile(np.arange(0, 240, 10, np.uint8), (20, 1))
    image = Image.fromarray(np.stack([smooth] * 3, -1)) if suffix == ".ppm" else Image.fromarray(smooth)
    image.save(tmp_path / f"a{suffix}")
    (entry,) = list_images(tmp_path)
    assert np.abs(read_entry(entry).pixels[..., :1].astype(int) - smooth[..., None]).mean() < 4


def test_a_picture_is_known_by_its_content(tmp_path):
    pixels = save(tmp_path / "a.png", picture())
    for name in ("scan", "a.jpg", "part.0001", "a.png.bak", "b.png~"):
        (tmp_path / name).write_bytes((tmp_path / "a.png").read_bytes())
    names = [Path(entry.path).name for entry in list_images(tmp_path)]
    assert sorted(names) == ["a.jpg", "a.png", "part.0001", "scan"]
    np.testing.assert_array_equal(read(tmp_path / "scan")[..., 0], pixels)


@pytest.mark.parametrize(
    "name, remedy",
    [
        ("a.heic", "save it as PNG or JPEG"), ("a.DNG", "develop it to a TIFF"), ("a.cr2", "develop it"), ("a.mp4", "ffmpeg"),
        ("a.exr", "TIFF of floats"), ("a.czi", "OME-TIFF"), ("a.nrrd", "NIfTI"), ("a.fits", "TIFF or .npy"),
    ],
)  # fmt: skip
def test_pictures_that_cannot_be_read_here_are_listed_with_the_remedy(tmp_path, name, remedy):
    (tmp_path / name).write_bytes(b"II*\0" + bytes(100))
    (entry,) = list_images(tmp_path)
    assert remedy in read_entry(entry).reason


def test_postscript_starts_no_program(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n")
    assert "unknown format" in read_picture(tmp_path / "a.png").reason


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif", "a.gif", "a.webp", "a.apng"])
def test_every_page_is_an_image_of_its_own(tmp_path, name):
    pages = np.stack([picture() for _ in range(3)])
    if name.endswith(".tif"):
        tifffile.imwrite(
            tmp_path / name,
            pages,
            photometric="minisblack",
            **({"metadata": {"axes": "ZYX"}, "ome": True} if "ome" in name else {}),
        )
    else:
        first, *others = (Image.fromarray(page) for page in pages)
        options = {"lossless": True} if name.endswith("webp") else {"format": "PNG"} if name.endswith("apng") else {}
        first.save(tmp_path / name, save_all=True, append_images=others, **options)
    entries = list_images(tmp_path)
    assert [entry.name for entry in entries] == [f"{tmp_path / name}#{number}" for number in (1, 2, 3)]
    assert [entry.number for entry in entries] == [1, 2, 3]
    for entry, page in zip(entries, pages):
        np.testing.assert_array_equal(read_entry(entry).pixels[..., :1], page[..., np.newaxis])
    infos = {FileSource.of(tmp_path).info(row) for row in range(3)}
    assert len(infos) == 1 and not infos.pop().deep
    with pytest.warns(Remark, match=f"{name}: the first of 3 pages"):
        np.testing.assert_array_equal(read(tmp_path / name)[..., 0], pages[0])


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32, np.int16])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_later_pages_are_read_as_the_first_is(tmp_path, kind, compression):
    pages = rng.integers(0, 200, (3, 20, 24)).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", pages, photometric="minisblack", compression=compression)
    source = FileSource.of(tmp_path)
    found = [read_entry(entry).pixels for entry in source.entries]
    np.testing.assert_array_equal(np.stack(found)[..., 0], pages)
    assert len({one.dtype for one in found}) == 1 and len({source.info(row) for row in range(3)}) == 1


def test_later_pages_that_pillow_alone_reads(tmp_path):
    first, *others = (Image.fromarray(picture(channels=3)).quantize(16) for _ in range(3))
    first.save(tmp_path / "a.tif", save_all=True, append_images=others)
    for entry, page in zip(list_images(tmp_path), (first, *others)):
        np.testing.assert_array_equal(read_entry(entry).pixels, np.asarray(page.convert("RGB")))


def test_smaller_copies_of_a_page_are_no_images(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(picture(40, 48))
        tiff.write(picture(20, 24), subfiletype=1)
        tiff.write(picture(40, 48))
    assert [entry.row for entry in list_images(tmp_path)] == [0, 2]


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.float64])
def test_signed_tiff_keeps_its_values(tmp_path, kind):
    values = rng.integers(-100, 100, (20, 24)).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", values)
    found = read(tmp_path / "a.tif")
    assert found.dtype == np.float32 and FileSource.of(tmp_path).info(0) == ImageInfo(1, deep=True)
    np.testing.assert_array_equal(found[..., 0], values)


def test_integers_that_a_float_cannot_hold_are_refused_with_the_reason(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((20, 24), 2**30, np.uint32))
    assert "integers from 1073741824 to 1073741824" in read_picture(tmp_path / "a.tif").reason
    tifffile.imwrite(tmp_path / "b.tif", np.full((20, 24), 700, np.uint32))
    assert read(tmp_path / "b.tif").dtype == np.uint16


@pytest.mark.parametrize(
    "shape, pixels", [((20, 24), (20, 24, 1)), ((20, 24, 1), (20, 24, 1)), ((20, 24, 3), (20, 24, 3)), ((20, 24, 4), (20, 24, 3))]
)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_one_image_in_an_array_is_one_image(tmp_path, shape, pixels, suffix):
    array = picture(*shape[:2], *shape[2:])
    (np.save if suffix == "npy" else np.savez)(tmp_path / f"one.{suffix}", array)
    (entry,) = list_images(tmp_path)
    np.testing.assert_array_equal(read_entry(entry).pixels, array.reshape(20, 24, -1)[..., : pixels[-1]])


@pytest.mark.parametrize("shape, said", [((3, 20, 24), "3 grey images, or one in colour"), ((5, 3, 20, 24), "channels first")])
def test_arrays_with_two_meanings_are_asked_about(tmp_path, shape, said):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    assert said in list_images(tmp_path)[0].refused


def test_labels_say_that_three_images_are_three(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((3, 20, 24), np.uint8), labels=[0, 1, 0])
    assert len(list_images(tmp_path)) == 3


def test_eight_bits_among_twelve_are_both_seen(tmp_path):
    for number in range(3):
        Image.fromarray(rng.integers(0, 4096, (20, 24)).astype(np.uint16)).save(tmp_path / f"{number}.png")
    save(tmp_path / "8.png", picture())
    source = FileSource.of(tmp_path)
    with pytest.warns(Remark, match="8.png has 8 bits and 3 images have 12; white is 255 in the one kind, 4095 in the others"):
        found = sources.value_range(source, sources.read_infos(source, range(4)))
    assert found == (0.0, 4095.0)
    means = [sample.image.mean() for sample in read_samples(source, Preprocessing((16, 16, 1), value_range=found))]
    assert np.abs(means).max() < 0.15  # none is black


def test_signed_values_beside_8_bits_are_said(tmp_path):
    tifffile.imwrite(tmp_path / "signed.tif", np.arange(-200, 280).reshape(20, 24).astype(np.int16))
    save(tmp_path / "8.png", picture())
    source = FileSource.of(tmp_path)
    with pytest.warns(Remark, match="8.png has 8 bits, and 1 images hold values from -199.* to 279"):
        low, high = sources.value_range(source, sources.read_infos(source, [0, 1]))
    assert -200 <= low < -190 and high == 279


def test_a_stream_says_once_that_twelve_bits_are_all_but_black(tmp_path):
    for number in range(3):
        Image.fromarray(rng.integers(0, 4096, (20, 24)).astype(np.uint16)).save(tmp_path / f"{number}.png")
    with pytest.warns(Remark) as said:
        list(read_samples(FileSource.of(tmp_path), Preprocessing((16, 16, 1))))
    assert len(said) == 1 and "no value above 4095" in str(said[0].message) and ".png" in str(said[0].message)
