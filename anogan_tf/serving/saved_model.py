"""A detector as a SavedModel that TensorFlow Serving runs: its signatures, its versions, what it says of bad input."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from anogan_tf.data.batching import within
from anogan_tf.runtime.backend import keras
from anogan_tf.runtime.files import write_version
from anogan_tf.serving import warmup
from anogan_tf.serving.decoding import Rows, decode_rows
from anogan_tf.serving.description import write_description

FORMAT = "tf_saved_model"  # as Keras calls it
INVALID_SCORE = 1e30  # of a row that is no image: the most anomalous there is, and a number that JSON can carry
SCORE_OUTPUTS = ("score", "residual_score", "discrimination_score", "p_value", "is_anomaly", "threshold", "steps", "valid")
MAP_OUTPUTS = ("residual", "anomaly_map", "heatmap", "reconstruction", "z")
# Besides the maps, where they need it: how much of a row's maps is image (with tiles, where there is no z); where they lie on it.
PLACES = ("size", "window")
MAX_PIXELS = 2**28  # that the pictures of one request may have together, so that a few don't fill a server's memory
IMAGES = tf.TensorSpec(None, tf.float32, name="images")  # [N, h, w, c], or [N, h, w] for grey
IMAGE_BYTES = tf.TensorSpec((None,), tf.string, name="image_bytes")  # a name in _bytes: the REST API's mark of base64
# Signature: its input, its outputs.
SIGNATURES = {
    "serving_default": (IMAGES, SCORE_OUTPUTS),
    "localize": (IMAGES, SCORE_OUTPUTS + MAP_OUTPUTS),
    "score_bytes": (IMAGE_BYTES, SCORE_OUTPUTS),
    "localize_bytes": (IMAGE_BYTES, SCORE_OUTPUTS + MAP_OUTPUTS),
}


class ServedModel(NamedTuple):
    """What a SavedModel is made of.

    Attributes:
        score: TensorFlow operations from images `[N, H, W, C]` in [-1, 1] and their sizes `[N, 2]` to a dict of tensors, as
            `AnoGAN.predict` gives them, without `p_value` and `is_anomaly`.
        preprocessing: the `Preprocessing` from pixels of any size to those images.
        calibration: a `Calibration`, or None for signatures without `p_value` and `heatmap`.
        threshold: scores above it are anomalous.
        tile: `(H, W, C)` of the networks where they see tiles of the images, or None.
        max_pixels: that encoded pictures of one request may have together; those beyond it are answered as no image.
    """

    score: Callable
    preprocessing: keras.layers.Layer
    calibration: Any
    threshold: float
    tile: tuple | None
    max_pixels: int = MAX_PIXELS


def write_saved_model(model, base, warm_up=warmup.BATCH_SIZES):
    """Write a SavedModel with all `SIGNATURES` as the next version below a folder.

    Args:
        model: a `ServedModel`.
        base: the folder of versions, which TensorFlow Serving calls the base path.
        warm_up: numbers of images in the warm-up requests of each signature; without any no warm-up file is written.

    Returns:
        The version's folder.
    """
    taken = [tf.TensorSpec((None, *model.preprocessing.image_shape), tf.float32), tf.TensorSpec((None, 2), tf.int32)]
    # The search is traced once, for all signatures.
    model = model._replace(score=tf.function(model.score, input_signature=taken, autograph=False))

    names: dict[str, list[str]] = {}  # of the outputs that each signature has

    def endpoint(name, read, outputs):
        def answer(rows):
            out = _answer(model, read(rows, model))
            wanted = (*outputs, *PLACES) if "residual" in outputs else outputs
            names[name] = [output for output in wanted if output in out]
            return {output: out[output] for output in names[name]}

        return answer

    archive = keras.export.ExportArchive()
    for name, (spec, outputs) in SIGNATURES.items():
        archive.add_endpoint(name, endpoint(name, _check_images if spec is IMAGES else _decode, outputs), [spec])

    def write(folder):
        archive.write_out(str(folder), verbose=False)
        given = {name: (spec.name, names[name]) for name, (spec, _) in SIGNATURES.items()}
        write_description(folder, given, model.preprocessing.value_range, model.max_pixels)
        if warm_up:
            shape = model.tile or model.preprocessing.image_shape
            warmup.write_requests(folder, _warm_up_requests(shape, warm_up), Path(base).resolve().name)

    return write_version(base, write)


def _decode(encoded, model):
    return decode_rows(encoded, model.preprocessing, model.max_pixels)


def _check_images(images, model):
    """`Rows`, as `decode_rows` gives them."""
    preprocessing, rank = model.preprocessing, tf.rank(images)
    expected = ["images with", rank, "axes; expected [N, height, width, channels], or [N, height, width] for grey."]
    with tf.control_dependencies([tf.debugging.Assert((rank == 3) | (rank == 4), expected)]):
        images = tf.ensure_shape(tf.reshape(images, tf.concat([tf.shape(images), [1]], axis=0)[:4]), (None,) * 4)
    valid = preprocessing.valid_rows(images)
    prepared = preprocessing(_by_row(valid, images, 0.0))
    sizes, given = (tf.tile(tf.shape(each)[tf.newaxis, 1:3], (tf.shape(each)[0], 1)) for each in (prepared, images))
    return Rows(prepared, sizes, valid, given)


def _answer(model, rows):
    """What the signatures answer. Of a row that isn't valid: that it is anomalous, and 0 for whatever can't be known."""
    out, calibration, valid = dict(model.score(rows.images, rows.sizes)), model.calibration, rows.valid
    if calibration is not None:
        heat = calibration.heatmap(out["anomaly_map"])
        out["heatmap"] = tf.where(within(rows.sizes, tf.shape(heat)), heat, 0.0) if model.tile else heat
    if model.tile:
        out["size"] = rows.sizes
    if model.preprocessing.fit != "stretch" and not model.preprocessing.keeps_size:
        out["window"] = model.preprocessing.window(tf.maximum(rows.given, 1))
    out = {name: _by_row(valid, value, INVALID_SCORE if name.endswith("score") else 0) for name, value in out.items()}
    if calibration is not None:
        out["p_value"] = calibration.p_values(out["score"])
    out["is_anomaly"] = (out["score"] > model.threshold) | ~valid
    out["threshold"] = tf.fill(tf.shape(out["score"]), model.threshold)
    out["valid"] = valid
    return out


def _by_row(valid, value, otherwise):
    """`value` `[N, ...]` in the rows that are valid, a constant in the others."""
    return tf.where(tf.reshape(valid, (-1, *[1] * (value.shape.rank - 1))), value, tf.cast(otherwise, value.dtype))


def _warm_up_requests(image_shape, counts):
    """`(signature, input name, TensorProto)` for every signature and number of images: plain grey pictures."""
    picture = tf.io.encode_png(tf.fill(image_shape, tf.constant(128, tf.uint8))).numpy()
    for name, (spec, _) in SIGNATURES.items():
        for count in counts:
            tensor = warmup.filled((count, *image_shape), 0.5) if spec is IMAGES else tf.make_tensor_proto([picture] * count)
            yield name, spec.name, tensor
