"""A bad warm-up file stops the server: what is written is compared with what the Serving API's own classes write."""

import numpy as np
import pytest
import tensorflow as tf

from anogan_tf.serving import warmup

SHAPES = [(1, 28, 28, 1), (64, 200, 300, 3)]


def read(path):
    return [record.numpy() for record in tf.data.TFRecordDataset(str(path))]


def requests():
    yield from (("serving_default", "images", warmup.filled(shape, 0.5)) for shape in SHAPES)
    yield "score_bytes", "image_bytes", tf.make_tensor_proto([b"x" * 300, b"", bytes(range(256))])


def test_a_filled_tensor_is_small_and_whole():
    proto = warmup.filled((64, 200, 300, 3), 0.5)
    assert proto.ByteSize() < 100
    np.testing.assert_array_equal(tf.make_ndarray(proto), np.full((64, 200, 300, 3), 0.5, np.float32))


def test_the_file_is_where_the_server_looks(tmp_path):
    warmup.write_requests(tmp_path, requests(), "parts")
    records = read(tmp_path / "assets.extra" / "tf_serving_warmup_requests")
    assert records == [warmup.prediction_log("parts", *request) for request in requests()]


@pytest.mark.parametrize("request_", list(requests()), ids=["one", "many", "bytes"])
def test_the_bytes_are_those_of_the_serving_api(request_):
    prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    signature, name, tensor = request_
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.name = "parts"
    log.predict_log.request.model_spec.signature_name = signature
    log.predict_log.request.inputs[name].CopyFrom(tensor)
    written = warmup.prediction_log("parts", *request_)
    assert written == log.SerializeToString(deterministic=True)
    assert prediction_log_pb2.PredictionLog.FromString(written) == log
