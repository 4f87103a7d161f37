"""DICOM and NIfTI to pixels: optional, with pydicom and nibabel, which are imported when the first such file is read."""

import functools
import math
import os
import threading

import numpy as np

from anogan_tf.data.pictures import ImageInfo, check_decoded, check_pixel_count, file_stamp

DICOM_SUFFIXES = (".dcm", ".dicom")
NIFTI_SUFFIXES = (".nii", ".nii.gz")
_lock = threading.Lock()  # two threads that want the same volume shall not both read it


def is_dicom(file):
    """Whether a file without a suffix is DICOM, as scanners write them: it says so after 128 bytes."""
    try:
        with open(file, "rb") as opened:
            return opened.read(132)[128:] == b"DICM"
    except OSError:
        return False


def count_frames(file):
    """How many pictures a DICOM file holds."""
    return _frames(_dicom(file, stop_before_pixels=True), file)


def _frames(dataset, file):
    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    if frames > os.path.getsize(file):
        raise ValueError(f"{frames} frames in a file of {os.path.getsize(file)} bytes, could be a decompression bomb")
    return frames


def dicom_info(file, frame=0):
    """The `ImageInfo` of a picture of a DICOM file. Deep is what has more than 8 bits and no window, so comes as it is stored."""
    dataset = _dicom(file, stop_before_pixels=True)
    if not dataset.PhotometricInterpretation.startswith("MONOCHROME"):
        return ImageInfo(3, deep=False)
    view = _view(dataset, frame)
    return ImageInfo(1, deep=not _has_window(view) and (dataset.BitsStored > 8 or _rescaling(view) != (1.0, 0.0)))


def read_dicom(file, frame=0):
    """One picture of a DICOM file, `[h, w, c]`.

    Grey values are rescaled (slope and intercept), and MONOCHROME1 is turned so that higher is brighter. With a window, of which
    the file's first counts, they go through it to float32 in [0, 1]; without one they are uint8 where they have 8 bits, else
    uint16 or float32 in their own units. Of an enhanced file each frame has its own rescaling and window, or the shared ones.
    Colour becomes RGB in [0, 1]. Tables for display (VOI LUT) are left out, and those in place of a slope (modality LUT) refused.
    """
    dataset = _dicom(file, stop_before_pixels=True)
    if "Rows" not in dataset or "PhotometricInterpretation" not in dataset:
        raise ValueError("a DICOM file without an image, or truncated")
    check_pixel_count(dataset.Rows * dataset.Columns)
    from pydicom import pixels

    stored = _stored(file, dataset, frame)
    kind = dataset.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        _turn_palette(dataset)
        return _scaled(pixels.apply_color_lut(stored, dataset)[..., :3])
    if not kind.startswith("MONOCHROME"):
        return _scaled(stored)
    view = _view(dataset, frame)
    if "ModalityLUTSequence" in view:
        raise ValueError("a DICOM file whose values go through a table (Modality LUT)")
    slope, intercept = _rescaling(view)
    ends = sorted(end * slope + intercept for end in _stored_range(dataset))
    values = stored.astype(np.float64) * slope + intercept
    if _has_window(view):
        values = pixels.apply_windowing(values, view)
        values = np.clip((values - ends[0]) / (ends[1] - ends[0]), 0.0, 1.0).astype(np.float32)
        ends = [0.0, 1.0]
    if kind == "MONOCHROME1":
        values = ends[0] + ends[1] - values
    if not _has_window(view):
        plain = (slope, intercept) == (1.0, 0.0) and not dataset.PixelRepresentation and dataset.BitsStored <= 16
        values = values.astype(np.float32 if not plain else np.uint8 if dataset.BitsStored <= 8 else np.uint16)
        if values.dtype == np.uint8 and dataset.BitsStored < 8:
            values = np.round(values * (255.0 / ends[1])).astype(np.uint8)
    return values[..., np.newaxis]


def _stored(file, dataset, frame):
    """The pixels as they are stored; of one frame alone, since all of a long film would need memory for all."""
    from pydicom import pixels

    try:
        return pixels.pixel_array(file, index=frame if _frames(dataset, file) > 1 else None)
    except (RuntimeError, NotImplementedError) as error:  # which lists all of its decoders, on as many lines
        syntax = dataset.file_meta.TransferSyntaxUID
        package = next((package for package, syntaxes in _DECODERS.items() if syntax in syntaxes), None)
        if package is None or "missing dependencies" not in str(error):
            raise
        raise ValueError(f"{syntax.name} needs a decoder: pip install pylibjpeg {package}") from None


# Packages and the transfer syntaxes that they read, DICOM PS3.5 A.4.
_DECODERS = {
    "pylibjpeg-libjpeg": [f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70, 80, 81)],
    "pylibjpeg-openjpeg": [f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203)],
}


def _view(dataset, frame):
    """What says how a frame is shown: a dataset with the file's elements, and over them the frame's own or the shared ones of an
    enhanced file (PS3.3 C.7.6.16)."""
    from pydicom.dataset import Dataset

    view = Dataset()
    names = ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction", "ModalityLUTSequence")
    kept = ("BitsStored", "PixelRepresentation", "PhotometricInterpretation")
    for name in (*names, *kept):
        if name in dataset:
            view[name] = dataset[name]
    groups = list(dataset.get("SharedFunctionalGroupsSequence") or ())[:1]
    groups += list(dataset.get("PerFrameFunctionalGroupsSequence") or ())[frame : frame + 1]
    for group in groups:
        for sequence in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            for item in (group.get(sequence) or ())[:1]:
                for name in names:
                    if name in item:
                        view[name] = item[name]
    view.RescaleSlope, view.RescaleIntercept = view.get("RescaleSlope", 1) or 1, view.get("RescaleIntercept", 0) or 0
    return view


def _has_window(view):
    return view.get("WindowCenter") is not None and view.get("WindowWidth") is not None


def _rescaling(view):
    return float(view.RescaleSlope), float(view.RescaleIntercept)


def _turn_palette(dataset):
    """Entries of 16 bits in the machine's order: pydicom takes those of a big-endian file as they lie."""
    little = dataset.file_meta.TransferSyntaxUID.is_little_endian
    if little or dataset.RedPaletteColorLookupTableDescriptor[2] <= 8:
        return
    for colour in ("Red", "Green", "Blue"):
        name = f"{colour}PaletteColorLookupTableData"
        if name in dataset:
            setattr(dataset, name, np.frombuffer(getattr(dataset, name), ">u2").astype("<u2").tobytes())


def _dicom(file, **options):
    try:
        import pydicom
    except ImportError:
        raise ImportError("DICOM needs pydicom: pip install pydicom") from None
    with open(file, "rb") as opened:
        if opened.read(132)[128:] == b"DICM":
            syntax = pydicom.filereader.read_file_meta_info(file).get("TransferSyntaxUID")
            if syntax == pydicom.uid.DeflatedExplicitVRLittleEndian:  # unpacked whole before a word of it is read
                raise ValueError("a deflated DICOM file, which could be a decompression bomb")
    return pydicom.dcmread(file, **options)


def _stored_range(dataset):
    bits = dataset.BitsStored
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dataset.PixelRepresentation else (0, 2**bits - 1)


def _scaled(colours):
    return (colours / np.iinfo(colours.dtype).max).astype(np.float32)


def count_slices(file):
    """How many pictures a NIfTI volume holds: slices along its axial axis."""
    nibabel = _nibabel()
    volume = nibabel.load(file)
    if len(volume.shape) != 3:
        raise ValueError(f"a NIfTI volume of shape {volume.shape}; only those of three axes are read")
    axes = nibabel.orientations.io_orientation(volume.affine)[:, 0]
    return int(volume.shape[list(axes).index(2)])


def read_slice(file, number):
    """One slice of a NIfTI volume, float32 `[h, w, 1]` in the volume's own values: axial, front up, the right side at right."""
    return np.ascontiguousarray(_volume(file)[..., number].T[::-1])[..., np.newaxis]


def _volume(file):
    with _lock:
        return _read_volume(file, file_stamp(file))


@functools.lru_cache(maxsize=2)  # all slices of one are read before the next
def _read_volume(file, stamp):
    nibabel = _nibabel()
    stored = nibabel.load(file)
    check_pixel_count(math.prod(stored.shape) // min(stored.shape))
    check_decoded(file, math.prod(stored.shape) * stored.get_data_dtype().itemsize)
    return nibabel.as_closest_canonical(stored).get_fdata(dtype=np.float32, caching="unchanged")


def _nibabel():
    try:
        import nibabel
    except ImportError:
        raise ImportError("NIfTI needs nibabel: pip install nibabel") from None
    return nibabel
