"""Requests that TensorFlow Serving sends to a model itself before the first client does: records of PredictionLog.

The wire format is written out, a few lines, because the message's classes come with no TensorFlow package but the
Serving API's.
"""

from pathlib import Path

import tensorflow as tf

FILE = Path("assets.extra") / "tf_serving_warmup_requests"  # where the server looks
BATCH_SIZES = (1, 16, 32, 48, 64)  # a lone image, and `allowed_batch_sizes` of export/batching_parameters.txt


def write_requests(folder, requests, model):
    """Write the warm-up file of a SavedModel.

    Args:
        folder: of the SavedModel.
        requests: of `(signature, input name, TensorProto)`; the server takes at most 1,000.
        model: the name it will be served by.
    """
    (Path(folder) / FILE).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(Path(folder) / FILE)) as writer:
        for request in requests:
            writer.write(prediction_log(model, *request))


def prediction_log(model, signature, name, tensor):
    """A serialised `tensorflow.serving.PredictionLog` of one Predict request."""
    spec = _field(1, model.encode()) + _field(3, signature.encode())
    entry = _field(1, name.encode()) + _field(2, tensor.SerializeToString())
    request = _field(1, spec) + _field(2, entry)
    return _field(6, _field(1, request))


def filled(shape, value):
    """A TensorProto of one repeated value, which takes no room."""
    proto = tf.make_tensor_proto([value])
    proto.tensor_shape.CopyFrom(tf.TensorShape(shape).as_proto())
    return proto


def _field(number, content):
    """A length-delimited field of a protocol buffer."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value):
    low = value & 0x7F
    return bytes([low | 0x80]) + _varint(value >> 7) if value > 0x7F else bytes([low])
