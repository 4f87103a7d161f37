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


def dicom_info(file):
    """The `ImageInfo` of a DICOM file. Never deep: its pixels come in [0, 1]."""
    dataset = _dicom(file, stop_before_pixels=True)
    return ImageInfo(1 if dataset.PhotometricInterpretation.startswith("MONOCHROME") else 3, deep=False)


def read_dicom(file, frame=0):
    """One picture of a DICOM file, float32 `[h, w, c]` in [0, 1].

    Grey values are rescaled (slope and intercept) and put through the file's first window, where it has one; 0 and 1 are then
    the ends of what its bits can store, and MONOCHROME1 is turned so that higher is brighter. Colour becomes RGB. Tables for
    display (VOI LUT) are left out, and those in place of a slope (modality LUT) refused.
    """
    dataset = _dicom(file, stop_before_pixels=True)
    if "Rows" not in dataset or "PhotometricInterpretation" not in dataset:
        raise ValueError("a DICOM file without an image, or truncated")
    check_pixel_count(dataset.Rows * dataset.Columns)
    from pydicom import pixels

    # One frame alone: all of a long film would need memory for all.
    stored = pixels.pixel_array(file, index=frame if _frames(dataset, file) > 1 else None)
    kind = dataset.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        return _scaled(pixels.apply_color_lut(stored, dataset))
    if not kind.startswith("MONOCHROME"):
        return _scaled(stored)
    if "ModalityLUTSequence" in dataset:
        raise ValueError("a DICOM file whose values go through a table (Modality LUT)")
    low, high = _stored_range(dataset)
    slope, intercept = float(dataset.get("RescaleSlope", 1) or 1), float(dataset.get("RescaleIntercept", 0) or 0)
    values = pixels.apply_windowing(pixels.apply_rescale(stored, dataset), dataset).astype(np.float64)
    low, high = sorted((low * slope + intercept, high * slope + intercept))
    values = np.clip((values - low) / (high - low), 0.0, 1.0).astype(np.float32)
    return (1.0 - values if kind == "MONOCHROME1" else values)[..., np.newaxis]


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
