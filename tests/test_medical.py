"""DICOM and NIfTI, written by pydicom and nibabel."""

import sys

import numpy as np
import pytest

from anogan_tf.data import medical, sources
from anogan_tf.data.entries import read_entry, read_picture
from anogan_tf.data.layouts import list_images
from anogan_tf.data.sources import FileSource

pydicom = pytest.importorskip("pydicom")
nibabel = pytest.importorskip("nibabel")
rng = np.random.default_rng(0)
STORED = rng.integers(0, 4096, (20, 24)).astype(np.uint16)


def write_dicom(path, pixels, kind="MONOCHROME2", bits=12, signed=False, big=False, **elements):
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRBigEndian if big else ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128, is_little_endian=not big, is_implicit_VR=False)
    frames = pixels.ndim == 3 and pixels.shape[-1] != 3
    dataset.Rows, dataset.Columns = pixels.shape[1:3] if frames else pixels.shape[:2]
    if frames:
        dataset.NumberOfFrames = len(pixels)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3 if kind == "RGB" else 1, kind
    if kind == "RGB":
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = pixels.dtype.itemsize * 8
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, int(signed)
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


def read(path, row=None):
    found = read_entry(list_images(path)[row or 0])
    assert found.pixels is not None, found.reason
    return found.pixels


def test_all_bits_of_a_radiograph(tmp_path):
    """Without a window they come as they are stored, so that training takes the range from all, as of a deep PNG."""
    path = write_dicom(tmp_path / "a.dcm", STORED)
    assert read(path).dtype == np.uint16
    np.testing.assert_array_equal(read(path)[..., 0], STORED)
    source = FileSource.of(path)
    assert source.info(0).deep
    low, high = sources.value_range(source, sources.read_infos(source, [0]))
    assert 0 <= low < 100 and 4000 < high <= 4095


def test_monochrome1_is_turned(tmp_path):
    np.testing.assert_array_equal(read(write_dicom(tmp_path / "a.dcm", STORED, "MONOCHROME1"))[..., 0], 4095 - STORED)


RESCALED, WINDOW = {"RescaleSlope": 1, "RescaleIntercept": -1024}, {"WindowCenter": 40, "WindowWidth": 400}
UNITS = STORED.astype(np.float64) - 1024
SHOWN = np.clip((UNITS - 39.5) / 399 + 0.5, 0, 1)  # PS3.3 C.11.2.1.2.1


def test_rescale_slope_and_window(tmp_path):
    """A CT: stored 0 to 4095, Hounsfield units stored - 1024, a window of -160 to 240."""
    np.testing.assert_array_equal(read(write_dicom(tmp_path / "a.dcm", STORED, **RESCALED))[..., 0], UNITS)
    pixels = read(write_dicom(tmp_path / "b.dcm", STORED, **RESCALED, **WINDOW))[..., 0]
    np.testing.assert_allclose(pixels, SHOWN, atol=1e-5)
    slope = read(write_dicom(tmp_path / "c.dcm", STORED, RescaleSlope=2, WindowCenter=80, WindowWidth=801))[..., 0]
    np.testing.assert_allclose(slope, np.clip((STORED * 2.0 - 79.5) / 800 + 0.5, 0, 1), atol=1e-5)
    source = FileSource.of([tmp_path / "a.dcm", tmp_path / "b.dcm"])
    with pytest.raises(ValueError, match="b.dcm comes in .0, 1., by its window .*a.dcm in values up to 3[0-9]+"):
        sources.value_range(source, sources.read_infos(source, [0, 1]))


def test_frames_of_an_enhanced_file_have_their_own_rescaling_and_window(tmp_path):
    from pydicom.dataset import Dataset

    def group(rescaled, window):
        item, values, voi = Dataset(), Dataset(), Dataset()
        for name, value in rescaled.items():
            setattr(values, name, value)
        for name, value in window.items():
            setattr(voi, name, value)
        item.PixelValueTransformationSequence = [values] if rescaled else []
        item.FrameVOILUTSequence = [voi] if window else []
        return item

    film = np.stack([STORED, STORED])
    other = {"WindowCenter": 1000, "WindowWidth": 2001}
    path = write_dicom(
        tmp_path / "a.dcm",
        film,
        SharedFunctionalGroupsSequence=[group(RESCALED, {})],
        PerFrameFunctionalGroupsSequence=[group({}, WINDOW), group({}, other)],
    )
    np.testing.assert_allclose(read(path, 0)[..., 0], SHOWN, atol=1e-5)
    np.testing.assert_allclose(read(path, 1)[..., 0], np.clip((UNITS - 999.5) / 2000 + 0.5, 0, 1), atol=1e-5)


def test_signed_values(tmp_path):
    signed = STORED.astype(np.int16) - 2048
    np.testing.assert_array_equal(read(write_dicom(tmp_path / "a.dcm", signed, signed=True))[..., 0], signed)


@pytest.mark.parametrize("big", [False, True])
def test_palettes_of_either_order_of_bytes(tmp_path, big):
    table = rng.integers(0, 65536, (3, 256)).astype(np.uint16)
    elements = {}
    for colour, entries in zip(("Red", "Green", "Blue"), table):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        elements[f"{colour}PaletteColorLookupTableData"] = entries.astype(">u2" if big else "<u2").tobytes()
    indices = rng.integers(0, 256, (20, 24), np.uint8)
    path = write_dicom(tmp_path / "a.dcm", indices, "PALETTE COLOR", bits=8, big=big, **elements)
    np.testing.assert_allclose(read(path), table.T[indices] / 65535.0, atol=1e-6)


def test_what_needs_another_decoder_names_it(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "a.dcm", STORED)
    dataset = pydicom.dcmread(path)
    for syntax, package in (("1.2.840.10008.1.2.4.80", "pylibjpeg-libjpeg"), ("1.2.840.10008.1.2.4.70", "pylibjpeg-libjpeg")):
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8" + bytes(100)])
        dataset["PixelData"].VR = "OB"
        dataset.save_as(tmp_path / "packed.dcm")
        reason = read_picture(tmp_path / "packed.dcm").reason
        if "missing" in reason or "needs a decoder" in reason:  # unless it is installed here
            assert f"needs a decoder: pip install pylibjpeg {package}" in reason
        assert len(reason.splitlines()) == 1


def test_colour_and_frames(tmp_path):
    colour = rng.integers(0, 256, (20, 24, 3), np.uint8)
    np.testing.assert_allclose(read(write_dicom(tmp_path / "c.dcm", colour, "RGB", bits=8)), colour / 255.0, atol=1e-6)
    film = rng.integers(0, 256, (3, 20, 24), np.uint8)
    path = write_dicom(tmp_path / "f.dcm", film, bits=8)
    assert [entry.name for entry in list_images(path)] == [f"{path}[{frame}]" for frame in range(3)]
    for frame in range(3):
        np.testing.assert_array_equal(read(path, frame)[..., 0], film[frame])
    source = FileSource.of([path, tmp_path / "c.dcm"])
    assert [source.info(row).channels for row in range(4)] == [1, 1, 1, 3]
    assert sources.value_range(source, sources.read_infos(source, range(4))) is None  # they come in 8 bits and in [0, 1]


def test_files_as_scanners_name_them(tmp_path):
    for name in ("IM000001", "1.2.840.113619.2"):
        write_dicom(tmp_path / name, STORED)
    (tmp_path / "README").write_text("no image")
    assert len(list_images(tmp_path)) == 2 and read(tmp_path / "IM000001").shape == (20, 24, 1)


def test_a_dicom_file_that_is_none_or_too_large(tmp_path, monkeypatch):
    (tmp_path / "text.dcm").write_text("hello")
    assert "not a readable image" in read_picture(tmp_path / "text.dcm").reason
    path = write_dicom(tmp_path / "a.dcm", STORED)
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 100)
    assert "decompression bomb" in read_picture(path).reason


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_slices_of_a_volume_upright_in_their_own_values(tmp_path, name):
    """Stored left to right, back to front, bottom to top: row 0 of a slice is the front."""
    values = rng.normal(size=(7, 9, 5)).astype(np.float32) * 1000
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 1.0, 2.0, 1.0])), tmp_path / name)
    entries = list_images(tmp_path)
    assert [entry.name for entry in entries] == [f"{tmp_path / name}[{row}]" for row in range(5)]
    for row, entry in enumerate(entries):
        np.testing.assert_array_equal(read_entry(entry).pixels[..., 0], values[:, ::-1, row].T)
    # The same volume stored in another order of axes, and front to back, gives the same slices.
    turned = nibabel.Nifti1Image(
        values.transpose(2, 0, 1)[:, :, ::-1], np.array([[0, 1, 0, 0], [0, 0, -1, 8], [2, 0, 0, 0], [0, 0, 0, 1.0]])
    )
    nibabel.save(turned, tmp_path / "turned.nii")
    again = list_images(tmp_path / "turned.nii")
    assert len(again) == 5
    for one, other in zip(entries, again):
        np.testing.assert_array_equal(read_entry(one).pixels, read_entry(other).pixels)
    low, high = sources.value_range(FileSource(entries), sources.read_infos(FileSource(entries), range(5)))
    assert values.min() <= low < -1000 and 1000 < high <= values.max()


def test_a_volume_of_no_slices_is_not_passed_over(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 0), np.int16), np.eye(4)), tmp_path / "empty.nii")
    (entry,) = list_images(tmp_path)
    assert "holds no images" in entry.refused


def test_a_volume_of_four_axes_is_refused(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4, 2), np.float32), np.eye(4)), tmp_path / "v.nii")
    assert "only those of three axes" in read_entry(list_images(tmp_path)[0]).reason


def test_without_the_packages_the_remedy_is_named(tmp_path, monkeypatch):
    paths = [tmp_path / "a.dcm", tmp_path / "v.nii"]
    write_dicom(paths[0], STORED)
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4)), paths[1])
    monkeypatch.setitem(sys.modules, "pydicom", None)
    monkeypatch.setitem(sys.modules, "nibabel", None)
    medical._read_volume.cache_clear()
    for path, package in zip(paths, ("pydicom", "nibabel")):
        assert f"pip install {package}" in read_entry(list_images(path)[0]).reason


def test_tables_and_bombs_in_dicom_are_refused(tmp_path):
    from pydicom.dataset import Dataset

    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType, table.LUTData = [2, 0, 16], "US", np.array([0, 65535], np.uint16).tobytes()
    path = write_dicom(tmp_path / "lut.dcm", STORED, ModalityLUTSequence=[table])
    assert "Modality LUT" in read_entry(list_images(path)[0]).reason
    path = write_dicom(tmp_path / "film.dcm", STORED, NumberOfFrames=3_000_000)
    assert "decompression bomb" in list_images(path)[0].refused
    dataset = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", STORED))
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "deflated.dcm")
    assert "deflated" in list_images(tmp_path / "deflated.dcm")[0].refused
