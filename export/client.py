#!/usr/bin/env python3
"""Ask a served detector about pictures: a line for each, and overlays that show where it looks wrong.

    python client.py incoming/                                      REST on http://127.0.0.1:8501, model "parts"
    python client.py --overlays out a.png b.jpg
    python client.py --grpc 127.0.0.1:8500 incoming/

Needs NumPy. Overlays, and pictures that have to be turned upright or converted first, need Pillow; --grpc needs
tensorflow-serving-api. The detector's own package isn't needed.
"""

import argparse
import base64
import http.client
import importlib.util
import io
import json
import os
import random
import struct
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
from pathlib import Path

import numpy as np

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp", ".avif", ".jp2", ".pgm", ".ppm",
    ".tga",
)  # fmt: skip
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
READ_BY_THE_SERVER = (PNG, JPEG, b"GIF8", b"BM")
ORIENTATION, SAMPLE_FORMAT = 0x0112, 0x0153  # EXIF and TIFF tags
WIDEST = 1024  # pixels; overlays are no larger
# The colours of a heatmap from cold to hot, evenly spaced.
HEAT = (
    (48, 18, 59), (70, 107, 227), (40, 187, 236), (49, 242, 153),
    (162, 252, 60), (237, 208, 58), (251, 128, 34), (210, 49, 5),
)  # fmt: skip


class ServingError(Exception):
    """The server gave no answer. `retry`: it may give one later. `rejected`: it didn't like this input."""

    def __init__(self, message, retry=False, rejected=False):
        super().__init__(message)
        self.retry, self.rejected = retry, rejected


class Rest:
    """The REST API of TensorFlow Serving, by the standard library."""

    def __init__(self, url, model, version=None, timeout=60.0):
        base = url.rstrip("/") if "://" in url else f"http://{url.rstrip('/')}"
        self.url = f"{base}/v1/models/{urllib.parse.quote(model)}{f'/versions/{version}' if version else ''}:predict"
        self.timeout = timeout

    def predict(self, signature, name, rows):
        """`rows`, a list of bytes or an array, to a dict of arrays, a row for each."""
        given = rows.tolist() if isinstance(rows, np.ndarray) else [{"b64": base64.b64encode(row).decode()} for row in rows]
        body = json.dumps({"signature_name": signature, "inputs": {name: given}}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                outputs = json.load(response)["outputs"]
        except urllib.error.HTTPError as error:
            said = _first_line(_error_of(error.read()))
            raise ServingError(
                f"{self.url} answers {error.code}: {said}", retry=error.code in (429, 503), rejected=error.code in (400, 412)
            ) from None
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                raise ServingError(_too_slow(self.timeout, "--rest_api_timeout_in_ms")) from None
            raise ServingError(f"{self.url} can't be reached: {reason}. Is the server running?", retry=True) from None
        except (http.client.HTTPException, ValueError, KeyError, TypeError) as error:
            raise ServingError(
                f"{self.url} gives no answer of TensorFlow Serving's REST API ({error!r}); is it another port?"
            ) from None
        return {name: _whole(np.asarray(value)) for name, value in outputs.items()}


class Grpc:
    """The gRPC API of TensorFlow Serving."""

    def __init__(self, address, model, version=None, timeout=60.0):
        try:
            import grpc
            import tensorflow as tf
            from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
        except ImportError as error:
            raise ServingError(f"--grpc needs tensorflow-serving-api: pip install tensorflow-serving-api ({error})") from None
        self.grpc, self.tf, self.request = grpc, tf, predict_pb2.PredictRequest
        self.address, self.model, self.version, self.timeout = address, model, version, timeout
        # By default an answer may have 4 MB, which a batch of maps exceeds.
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(address, unlimited))

    def predict(self, signature, name, rows):
        """As `Rest.predict`."""
        request = self.request()
        request.model_spec.name, request.model_spec.signature_name = self.model, signature
        if self.version:
            request.model_spec.version.value = self.version
        request.inputs[name].CopyFrom(self.tf.make_tensor_proto(rows))
        try:
            response = self.stub.Predict(request, self.timeout)
        except self.grpc.RpcError as error:
            code, codes = error.code(), self.grpc.StatusCode
            if code == codes.DEADLINE_EXCEEDED:
                raise ServingError(_too_slow(self.timeout, "fewer pictures in a request")) from None
            raise ServingError(
                f"{self.address} answers {code.name}: {_first_line(error.details())}",
                retry=code in (codes.UNAVAILABLE, codes.RESOURCE_EXHAUSTED),
                rejected=code in (codes.INVALID_ARGUMENT, codes.FAILED_PRECONDITION),
            ) from None
        return {name: self.tf.make_ndarray(value) for name, value in response.outputs.items()}


def _whole(array):
    """What JSON made double, as it was."""
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _error_of(body):
    try:
        return json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")


def _first_line(text):
    lines = [line.strip() for line in (text or "").splitlines()]
    return next((line[:300] for line in lines if line and line != "Graph execution error:"), "no reason given")


def _too_slow(timeout, remedy):
    return f"no answer in {timeout:g} s: try a larger --timeout, and at the server {remedy}"


def persistently(call, attempts=6, pause=0.25):
    """Call again, after longer and longer pauses, while the server is busy or not there yet."""
    for attempt in range(attempts - 1):
        try:
            return call()
        except ServingError as error:
            if not error.retry:
                raise
            # Spread, so that clients that were refused together don't come back together.
            time.sleep(pause * 2**attempt * random.uniform(0.5, 1.5))
    return call()


def find_pictures(paths):
    """The files themselves, and the pictures below folders."""
    found = []
    for path in map(Path, paths):
        if path.is_dir():
            found += sorted(file for file in path.rglob("*") if _is_picture(file))
        elif path.exists():
            found.append(path)
        else:
            raise ServingError(f"{path}: no such file or folder")
    if not found:
        raise ServingError(f"no pictures there; looked for {', '.join(SUFFIXES)}")
    return found


def _is_picture(file):
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()


def read_picture(path):
    """The bytes to send: those of the file, or a PNG where it has to be turned upright, which the server can't, or converted.

    Converted are CMYK and all formats but PNG and JPEG: of BMP and GIF the server reads the plain ones alone.
    16 bits stay 16 bits, except in colour pictures that have to be turned.
    """
    content = Path(path).read_bytes()
    if importlib.util.find_spec("PIL"):
        return _upright(path, content)
    if not content.startswith(READ_BY_THE_SERVER):
        raise ServingError(f"{path} is in a format that the server doesn't read; converting it needs Pillow: pip install pillow")
    if _orientation(content) != 1:
        raise ServingError(f"{path} has to be turned upright, which needs Pillow: pip install pillow")
    return content


def _upright(path, content):
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as image:
                plain = image.format in ("PNG", "JPEG", "MPO") and image.mode != "CMYK"
                if plain and image.getexif().get(ORIENTATION, 1) == 1:
                    return content
                if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
                    print(f"{path}: the first of {image.n_frames} pages is sent.", file=sys.stderr)
                if image.format == "TIFF" and image.mode == "L" and 2 in np.ravel(image.tag_v2.get(SAMPLE_FORMAT, 1)):
                    raise ValueError("its 8 bits have a sign, which Pillow drops; save it as 8 or 16 bits without")
                stream = io.BytesIO()
                _for_png(ImageOps.exif_transpose(image)).save(stream, "PNG", exif=b"")
                return stream.getvalue()
    except UnidentifiedImageError:
        return content  # no picture at all: the server will say so
    except Exception as error:  # decoders raise many kinds for a damaged file
        raise ServingError(f"{path} can't be read: {str(error) or type(error).__name__}") from None


def _for_png(image):
    from PIL import Image

    if image.mode == "F":
        raise ValueError("its pixels are floating point; send them to the signature serving_default")
    if image.mode.startswith("I"):
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError(f"its pixels span {pixels.min()} to {pixels.max()}, which 16 bits can't hold")
        return Image.fromarray(pixels.astype(np.uint16))
    return image if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA") else image.convert("RGB")


def _orientation(content):
    """EXIF orientation, 1 (upright) to 8, of a JPEG or PNG; 1 where it says nothing. For those without Pillow."""
    exif = _exif(content)
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    try:
        (first,) = struct.unpack_from(f"{order}I", exif, 4)
        for entry in range(struct.unpack_from(f"{order}H", exif, first)[0]):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", exif, first + 2 + 12 * entry)
            if tag == ORIENTATION:
                return value if 1 <= value <= 8 else 1
    except struct.error:  # there is none, or it is damaged
        pass
    return 1


def _exif(content):
    at, png = (8, True) if content.startswith(PNG) else (2, False)
    while content.startswith((PNG, JPEG)) and at + 10 <= len(content):
        if png:
            length, kind = struct.unpack_from(">I4s", content, at)
            if kind == b"eXIf":
                return content[at + 8 : at + 8 + length]
            at += 12 + length
        else:
            marker, length = struct.unpack_from(">HH", content, at)
            if marker == 0xFFFF:  # a filler
                at += 1
                continue
            if marker == 0xFFE1 and content[at + 4 : at + 10] == b"Exif\0\0":
                return content[at + 10 : at + 2 + length]
            if marker == 0xFFDA or marker < 0xFF00:  # the picture itself begins, or the file is damaged
                break
            at += 2 + length
    return b""


def overlay(content, heat, window=(0.0, 0.0, 1.0, 1.0)):
    """The picture, with a heatmap `[h, w]` in [0, 1] laid over it: the hotter, the more opaque.

    `window`: top, left, bottom and right of the heatmap, where the picture is 0 to 1.
    """
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(content)) as image:
        picture = _eight_bits(ImageOps.exif_transpose(image))
    picture.thumbnail((WIDEST, WIDEST))
    top, left, bottom, right = (round(float(edge) * side) for edge, side in zip(window, picture.size[::-1] * 2))
    large = Image.fromarray(np.asarray(heat, np.float32)).resize(
        (max(1, right - left), max(1, bottom - top)), Image.Resampling.BILINEAR
    )
    laid = Image.new("F", picture.size)
    laid.paste(large, (left, top))
    heat = np.asarray(laid)[..., np.newaxis]
    places = np.linspace(0.0, 1.0, len(HEAT))
    colours = np.concatenate([np.interp(heat, places, channel) for channel in zip(*HEAT)], axis=-1)
    blended = (1.0 - 0.7 * heat) * np.asarray(picture, np.float32) + 0.7 * heat * colours
    return Image.fromarray(np.uint8(np.round(np.clip(blended, 0, 255))))


def _eight_bits(image):
    from PIL import Image

    if image.mode.startswith("I"):
        image = Image.fromarray(np.uint8(np.asarray(image, np.float64) / 257.0))
    return image.convert("RGB")


def ask(server, paths, signature, batch):
    """Yield `(path, bytes sent, answer)` for each file, the answer a dict of its row, or a `ServingError`."""
    for first in range(0, len(paths), batch):
        sent = []
        for path in paths[first : first + batch]:
            try:
                sent.append((path, read_picture(path)))
            except (ServingError, OSError) as error:
                yield path, None, ServingError(str(error))
        yield from _answers(server, sent, signature)


def _answers(server, sent, signature):
    if not sent:
        return
    try:
        out = persistently(lambda: server.predict(signature, "image_bytes", [content for _, content in sent]))
    except ServingError as error:
        if not error.rejected:
            raise
        if len(sent) == 1:
            yield (*sent[0], error)
            return
        for one in sent:  # a damaged file failed the others with it
            yield from _answers(server, [one], signature)
        return
    for row, one in enumerate(sent):
        yield (*one, {name: value[row] for name, value in out.items()})


def print_row(path, answer, width):
    """A line of the table."""
    numbers = [""] * 3
    if isinstance(answer, ServingError):
        label = f"error: {answer}"
    elif not answer["valid"]:
        label = "not an image that the server reads"
    else:
        chance = f"{answer['p_value']:.4f}" if "p_value" in answer else "-"
        numbers = [f"{answer['score']:.4g}", chance, f"{answer['threshold']:.4g}"]
        label = "anomaly" if answer["is_anomaly"] else "normal"
    print(f"{path!s:<{width}}  {numbers[0]:>10}  {numbers[1]:>8}  {numbers[2]:>10}  {label}", flush=True)


def write_overlay(folder, name, content, answer):
    """`folder/name.png`, the heatmap over the picture."""
    if "heatmap" not in answer:
        raise ServingError("this detector was exported without a calibration, so it has no heatmaps")
    heat = np.asarray(answer["heatmap"])
    if "size" in answer:  # with tiles: the maps are as large as the largest picture of the request
        height, width = answer["size"]
        heat = heat[:height, :width]
    overlay(content, heat, answer.get("window", (0.0, 0.0, 1.0, 1.0))).save(folder / f"{name}.png")


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("pictures", nargs="+", help="files or folders")
    parser.add_argument("--rest", default="http://127.0.0.1:8501", metavar="URL", help="of the REST API (default: %(default)s)")
    parser.add_argument("--grpc", metavar="HOST:PORT", help="use the gRPC API instead, such as 127.0.0.1:8500")
    parser.add_argument("--model", default="parts", help="the name it is served by (default: %(default)s)")
    parser.add_argument("--version", type=int, help="default: the newest")
    parser.add_argument("--overlays", type=Path, metavar="FOLDER", help="write the heatmap over each picture there")
    parser.add_argument("--batch", type=int, default=16, help="pictures in a request (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for a request (default: %(default)s)")
    return parser.parse_args(arguments)


def connect(options):
    server, address = (Grpc, options.grpc) if options.grpc else (Rest, options.rest)
    return server(address, options.model, options.version, options.timeout)


def main(arguments=None):
    """Exit status 0: every file has an answer. 1: some have none."""
    options, failed = parse(arguments), 0
    try:
        if options.overlays:
            if not importlib.util.find_spec("PIL"):
                raise ServingError("--overlays needs Pillow: pip install pillow")
            options.overlays.mkdir(parents=True, exist_ok=True)
        paths = find_pictures(options.pictures)
        width = max(len(str(path)) for path in paths)
        print(f"{'file':<{width}}  {'score':>10}  {'p-value':>8}  {'threshold':>10}  label")
        signature = "localize_bytes" if options.overlays else "score_bytes"
        for number, (path, content, answer) in enumerate(ask(connect(options), paths, signature, max(1, options.batch))):
            print_row(path, answer, width)
            if isinstance(answer, ServingError) or not answer["valid"]:
                failed += 1
            elif options.overlays:
                write_overlay(options.overlays, f"{number:06d}-{path.stem[:60]}", content, answer)
    except BrokenPipeError:  # whoever reads the lines, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ServingError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
