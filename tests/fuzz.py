"""Broken and hostile input by the ten thousand: `python tests/fuzz.py --help`. No test of the suite; what it finds becomes one.

`csv`, `idx`, `npz` and `config` are parsers of this package, driven by atheris (`pip install '.[fuzz]'`). `pictures` and `served`
mutate files of every kind that is read, and read them as the commands and an exported model do; `models` mutates `.keras` files.
A file must be read, or be refused in the way that callers expect, within seconds and in bounded memory. The first input that does
neither is kept, and named.
"""

import argparse
import contextlib
import io
import json
import logging
import os
import random
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

SECONDS, GROWTH = 10.0, 2**20  # for one file: time, and KiB of memory
EXPECTED = (ValueError, OSError)  # what the commands turn into a line that says what to do


def targets(folder):
    """By name, a function of bytes that raises only what is `EXPECTED`."""
    from anogan_tf.data.entries import entries_of, read_entry
    from anogan_tf.data.layouts import list_images
    from anogan_tf.runtime.archives import _allowed, _check_config
    from anogan_tf.runtime.provenance import RECORD, has_record

    (folder / "a.png").write_bytes(b"")
    allowed = _allowed()

    def table(content):
        path = folder / "table.csv"
        path.write_bytes(content)
        list_images(path)

    def read_all(name):
        def target(content):
            path = folder / name
            path.write_bytes(content)
            for entry in entries_of(path)[:2]:
                read_entry(entry)

        return target

    def config(content):
        (folder / RECORD).write_bytes(content)
        with contextlib.suppress(*EXPECTED):
            has_record(folder, {"settings": {"seed": 0}, "data": "x"})
        with contextlib.suppress(RecursionError):  # which `load` expects
            _check_config(json.loads(content), allowed)

    return {"csv": table, "idx": read_all("x-images-idx3-ubyte"), "npz": read_all("x.npz"), "config": config}


def fuzz_parser(name, runs):
    """Drive one of the `targets` by coverage, from a few good inputs."""
    import atheris

    with atheris.instrument_imports(
        include=["anogan_tf.data", "anogan_tf.runtime.provenance", "anogan_tf.runtime.archives", "numpy.lib", "csv", "zipfile"]
    ):
        import anogan_tf.runtime.archives
        import anogan_tf.runtime.provenance  # noqa: F401

    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    target = targets(folder)[name]
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, content in enumerate(good_inputs(name)):
        (corpus / str(number)).write_bytes(content)

    def one(content):
        with contextlib.suppress(*EXPECTED):
            target(content)

    options = [f"-atheris_runs={runs}", "-max_len=4096", f"-timeout={int(SECONDS)}", "-rss_limit_mb=6000", "-len_control=0"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


def good_inputs(name):
    import numpy as np

    if name == "csv":
        return [
            b"path,label,mask,split,group\na.png,good,,train,1\na.png,bad,a.png,test,2\n",
            'file;class\n"a.png";0'.encode("utf-16"),
        ]
    if name == "config":
        layer = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 1}, "registered_name": None}
        return [json.dumps(value).encode() for value in ({"settings": {"seed": 0}, "data": "x", "versions": {}}, layer, [layer])]
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8), np.uint8)
    if name == "idx":
        return [bytes([0, 0, 8, 3]) + np.array(pixels.shape, ">i4").tobytes() + pixels.tobytes()]
    stream = io.BytesIO()
    np.savez(stream, train_images=pixels, train_labels=np.arange(3))
    return [stream.getvalue()]


def real_files(folder):
    """A file of each kind that is read, from the built-in photographs, as `{name: bytes}`."""
    import numpy as np
    import tifffile
    from PIL import Image

    from anogan_tf.data.embedded import load_embedded

    pixels = load_embedded().train[:3]
    colour = np.stack([pixels[0], pixels[1], pixels[2]], axis=-1)
    deep = pixels[0].astype(np.uint16) * 257
    for kind in ("png", "jpg", "bmp", "gif", "tif", "webp"):
        Image.fromarray(colour).save(folder / f"colour.{kind}")
        Image.fromarray(pixels[0]).save(folder / f"grey.{kind}")
    Image.fromarray(deep).save(folder / "deep.png")
    tifffile.imwrite(folder / "deep.tif", np.stack([deep] * 3, axis=-1), photometric="rgb", compression="zlib")
    np.save(folder / "array.npy", pixels)
    np.savez_compressed(folder / "arrays.npz", images=pixels, labels=np.arange(3))
    (folder / "x-images-idx3-ubyte").write_bytes(bytes([0, 0, 8, 3]) + np.array(pixels.shape, ">i4").tobytes() + pixels.tobytes())
    _write_medical(folder, deep)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _write_medical(folder, deep):
    import nibabel
    import numpy as np
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    nibabel.save(nibabel.Nifti1Image(np.stack([deep] * 3, axis=-1).astype(np.int16), np.eye(4)), folder / "volume.nii.gz")
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, "1.2.840.10008.5.1.4.1.1.7"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    scan = FileDataset(str(folder / "scan.dcm"), {}, file_meta=meta, preamble=b"\0" * 128)
    scan.SOPClassUID, scan.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    scan.Rows, scan.Columns, scan.SamplesPerPixel, scan.PixelRepresentation = *deep.shape, 1, 0
    scan.BitsAllocated, scan.BitsStored, scan.HighBit, scan.PhotometricInterpretation = 16, 16, 15, "MONOCHROME2"
    scan.PixelData = deep.tobytes()
    scan.save_as(folder / "scan.dcm", enforce_file_format=True)


def mutated(content, draw):
    """Some bytes changed, a stretch cut, doubled or zeroed, the end gone; as often as not near the head, where the sizes are."""
    content = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        if not content:
            break
        place = draw.randrange(min(len(content), 256) if draw.random() < 0.5 else len(content))
        length = draw.choice((1, 2, 4, 64))
        change = draw.randrange(6)
        if change < 3:
            content[place] = draw.choice((0, 1, 127, 128, 255, draw.randrange(256)))
        elif change == 3:
            del content[place : place + length]
        elif change == 4:
            content[place:place] = content[place : place + length]
        else:
            content[place : place + length] = bytes(len(content[place : place + length]))
    if draw.random() < 0.1:
        del content[draw.randrange(len(content) + 1) :]
    return bytes(content)


def each_mutated(files, runs, seed, try_one):
    """Try so many mutations of each file; stop at one that raises, takes too long or too much memory, and keep it."""
    for name, content in files.items():
        draw, outcomes, slowest, started = random.Random(f"{seed} {name}"), {}, 0.0, time.monotonic()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for run in range(runs):
            changed, begun = mutated(content, draw), time.monotonic()
            kept = Path(tempfile.gettempdir()) / f"fuzz-{name}"
            kept.write_bytes(changed)  # written first: a crash of the process leaves it
            outcome = try_one(name, changed)
            seconds = time.monotonic() - begun
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            slowest = max(slowest, seconds)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            if seconds > SECONDS or grown > GROWTH:
                sys.exit(f"{kept}: {seconds:.1f} s, {grown // 1024} MiB more than before, at run {run}")
        print(
            f"{name}: {runs} in {time.monotonic() - started:.0f} s, {outcomes}, slowest {slowest:.2f} s, {grown // 1024} MiB",
            flush=True,
        )


def fuzz_pictures(runs, seed, only):
    from anogan_tf.data.entries import entries_of, info_of, read_entry

    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))

    def read(name, content):
        path = folder / name
        path.write_bytes(content)
        entries = entries_of(path)
        if not entries:
            return "empty"
        info_of(entries[0])
        picture = read_entry(entries[0])
        if picture.pixels is None:
            assert picture.reason and "\n\n" not in picture.reason
            return "refused"
        assert picture.pixels.ndim == 3 and picture.pixels.shape[-1] in (1, 3), picture.pixels.shape
        return "read"

    with tempfile.TemporaryDirectory() as made:
        files = real_files(Path(made))
    each_mutated({name: content for name, content in files.items() if only in name}, runs, seed, read)


def fuzz_served(runs, seed, only):
    """Through the graph that an exported model decodes with."""
    import tensorflow as tf

    from anogan_tf.data.preprocessing import Preprocessing
    from anogan_tf.serving.decoding import decode_rows

    preprocessing = Preprocessing((28, 28, 1))
    decode = tf.function(
        lambda rows: decode_rows(rows, preprocessing, 2**28), input_signature=[tf.TensorSpec((None,), tf.string)]
    )

    def read(name, content):
        try:
            rows = decode(tf.constant([content]))
        except tf.errors.InvalidArgumentError:  # which `decode_rows` promises of what is damaged behind its header
            return "error"
        assert rows.images.shape == (1, 28, 28, 1) and bool(tf.reduce_all(tf.math.is_finite(rows.images)))
        return "read" if bool(rows.valid[0]) else "refused"

    with tempfile.TemporaryDirectory() as made:
        files = {
            name: content for name, content in real_files(Path(made)).items() if name.endswith((".png", ".jpg", ".bmp", ".gif"))
        }
    each_mutated({name: content for name, content in files.items() if only in name}, runs, seed, read)


def fuzz_models(runs, seed, only):
    from anogan_tf import GAN

    gan = GAN((16, 16, 1), 4, base_filters=2)
    gan.compile()
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    gan.save(folder / "gan.keras")
    content = (folder / "gan.keras").read_bytes()

    def read(name, changed):
        (folder / name).write_bytes(changed)
        try:
            GAN.load(folder / name)
        except ValueError as error:
            assert name in str(error)
            return "refused"
        return "loaded"

    each_mutated({"changed.keras": content}, runs, seed, read)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("csv", "idx", "npz", "config", "pictures", "served", "models"))
    parser.add_argument("runs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="of pictures: those with this in their name")
    given = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.disable()  # decoders' own complaints
    warnings.simplefilter("ignore")
    several = {"pictures": fuzz_pictures, "served": fuzz_served, "models": fuzz_models}
    if given.what in several:
        several[given.what](given.runs, given.seed, given.only)
    else:
        fuzz_parser(given.what, given.runs)


if __name__ == "__main__":
    main()
