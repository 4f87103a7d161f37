"""A SavedModel run as TensorFlow Serving runs it, and stand-ins for the server's two front doors.

One session of the graph, the signatures' tensors fed and fetched. The REST and gRPC doors speak as much of the server's
protocol as a client needs; the server itself is tested where there is one (`test_tensorflow_serving.py`).
"""

import base64
import contextlib
import http.server
import json
import threading
from concurrent import futures

import numpy as np
import tensorflow as tf


class Served:
    """`served(signature, images=...)` gives a dict of arrays; may be called by many threads at once."""

    def __init__(self, folder):
        self.session = tf.compat.v1.Session(graph=tf.Graph())
        with self.session.graph.as_default():
            loaded = tf.compat.v1.saved_model.loader.load(self.session, ["serve"], str(folder))
        self.signatures = {name: signature for name, signature in loaded.signature_def.items() if not name.startswith("__")}

    def __call__(self, signature, **inputs):
        signature = self.signatures[signature]
        fed = {signature.inputs[name].name: value for name, value in inputs.items()}
        return self.session.run({name: info.name for name, info in signature.outputs.items()}, fed)

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.session.close()


@contextlib.contextmanager
def rest_door(served, refusals=()):
    """Serves `served` as the model "parts"; gives the URL. The first requests are refused with the status codes given."""
    refusals = list(refusals)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, content = self.answer(request)
            body = json.dumps(content, allow_nan=False).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def answer(self, request):
            if refusals:
                return refusals.pop(0), {"error": "busy"}
            if self.path != "/v1/models/parts:predict":
                return 404, {"error": f"Servable not found for request: {self.path}"}
            inputs = {name: _from_json(value) for name, value in request["inputs"].items()}
            try:
                outputs = served(request["signature_name"], **inputs)
            except tf.errors.InvalidArgumentError as error:
                return 400, {"error": error.message}
            return 200, {"outputs": {name: value.tolist() for name, value in outputs.items()}}

        def log_message(self, *message):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _from_json(value):
    if isinstance(value[0], dict):
        return np.array([base64.b64decode(row["b64"]) for row in value], object)
    return np.asarray(value, np.float32)


@contextlib.contextmanager
def grpc_door(served, refusals=0):
    """As `rest_door`, by the Serving API's classes; gives the address."""
    import grpc
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    refusals = [None] * refusals

    class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            if refusals:
                refusals.pop()
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")
            if request.model_spec.name != "parts":
                context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {request.model_spec.name}")
            inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
            try:
                outputs = served(request.model_spec.signature_name, **inputs)
            except tf.errors.InvalidArgumentError as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
            response = predict_pb2.PredictResponse()
            for name, value in outputs.items():
                response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
            return response

    server = grpc.server(futures.ThreadPoolExecutor(8))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)
