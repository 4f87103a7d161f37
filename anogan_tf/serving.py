"""A detector as a SavedModel that TensorFlow Serving runs: its signatures, its versions, what it says of bad input."""

from pathlib import Path

import tensorflow as tf

from anogan_tf import warmup
from anogan_tf.backend import keras
from anogan_tf.decoding import decode_rows
from anogan_tf.preparation import valid_rows
from anogan_tf.saving import write_version

INVALID_SCORE = 1e30  # of a row that is no image: the most anomalous there is, and a number that JSON can carry
SCORES = ("score", "residual_score", "discrimination_score", "p_value", "is_anomaly", "threshold", "steps", "valid")
MAPS = ("residual", "heatmap", "reconstruction", "z")
IMAGES = tf.TensorSpec((None, None, None, None), tf.float32, name="images")
IMAGE_BYTES = tf.TensorSpec((None,), tf.string, name="image_bytes")  # a name in _bytes: the REST API's mark of base64
# Signature: its input, its outputs.
SIGNATURES = {
    "serving_default": (IMAGES, SCORES),
    "localize": (IMAGES, SCORES + MAPS),
    "score_bytes": (IMAGE_BYTES, SCORES),
    "localize_bytes": (IMAGE_BYTES, SCORES + MAPS),
}


def write_saved_model(score, preparation, calibration, threshold, base, warm_up=warmup.BATCH_SIZES):
    """Write a SavedModel with all `SIGNATURES` as the next version below a folder.

    Args:
        score: TensorFlow operations from pixels `[N, H, W, C]` in [0, 1] to a dict of tensors, as `AnoGAN.call` gives them
            without a calibration.
        preparation: the `Preparation` from pixels of any size to those.
        calibration: a `Calibration`, or None for signatures without `p_value` and `heatmap`.
        threshold: scores above it are anomalous.
        base: the folder of versions, which TensorFlow Serving calls the base path.
        warm_up: numbers of images in the warm-up requests of each signature; without any no warm-up file is written.

    Returns:
        The version's folder.
    """
    pixels = tf.TensorSpec((None, *preparation.image_shape), tf.float32)
    score = tf.function(score, input_signature=[pixels], autograph=False)  # traced once, for all signatures

    def endpoint(read, outputs):
        def answer(rows):
            out = _answer(score, calibration, threshold, *read(rows, preparation))
            return {name: out[name] for name in outputs if name in out}

        return answer

    archive = keras.export.ExportArchive()
    for name, (spec, outputs) in SIGNATURES.items():
        archive.add_endpoint(name, endpoint(_check_images if spec is IMAGES else decode_rows, outputs), [spec])

    def write(folder):
        archive.write_out(str(folder), verbose=False)
        if warm_up:
            warmup.write_requests(folder, _warm_up_requests(preparation.image_shape, warm_up), Path(base).resolve().name)

    return write_version(base, write)


def _check_images(images, preparation):
    """`(pixels, valid)`, as `decode_rows` gives them."""
    valid = valid_rows(images)
    return preparation.resize(_by_row(valid, images, 0.0)), valid


def _answer(score, calibration, threshold, pixels, valid):
    """What the signatures answer. Of a row that isn't valid: that it is anomalous, and 0 for whatever can't be known."""
    out = dict(score(pixels))
    if calibration is not None:
        out["heatmap"] = calibration.heatmap(out["residual"])
    out = {name: _by_row(valid, value, INVALID_SCORE if name.endswith("score") else 0) for name, value in out.items()}
    if calibration is not None:
        out["p_value"] = calibration.p_values(out["score"])
    out["is_anomaly"] = (out["score"] > threshold) | ~valid
    out["threshold"] = tf.fill(tf.shape(out["score"]), threshold)
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
