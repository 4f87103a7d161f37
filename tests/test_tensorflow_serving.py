"""TensorFlow Serving itself, where there is one: over REST and gRPC, with batching and without."""

import concurrent.futures
import contextlib
import importlib
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from anogan_tf.detection.detector import AnoGAN

KIT = Path(__file__).parents[1] / "export"
IMAGE = f"tensorflow/serving:{tf.__version__}"
PATIENCE = 180.0  # seconds for the server to load and warm up, and for Docker to fetch its image


def _docker_runs():
    if not shutil.which("docker"):
        return False
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(["docker", "info"], capture_output=True, timeout=20).returncode == 0
    return False


BINARY = shutil.which("tensorflow_model_server")
pytestmark = pytest.mark.skipif(
    not (BINARY or _docker_runs()), reason="neither tensorflow_model_server on the PATH nor a Docker daemon that answers"
)


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _command(base, batching, grpc_port, rest_port):
    flags = ["--model_name=parts", "--rest_api_timeout_in_ms=120000", "--grpc_max_threads=64", "--rest_api_num_threads=64"]
    if BINARY:
        batch = [f"--batching_parameters_file={KIT / 'batching_parameters.txt'}"]
        places = [f"--port={grpc_port}", f"--rest_api_port={rest_port}", f"--model_base_path={base}"]
        start = [BINARY]
    else:
        batch = ["--batching_parameters_file=/kit/batching_parameters.txt"]
        places = ["--port=8500", "--rest_api_port=8501", "--model_base_path=/models/parts"]
        ports = ["-p", f"127.0.0.1:{grpc_port}:8500", "-p", f"127.0.0.1:{rest_port}:8501"]
        mounts = ["-v", f"{base}:/models/parts:ro", "-v", f"{KIT}:/kit:ro"]
        start = ["docker", "run", "--rm", "--name", f"anogan-{rest_port}", *ports, *mounts]
        start += ["--entrypoint", "/usr/bin/tensorflow_model_server", IMAGE]
    return [*start, *flags, *places, *(["--enable_batching=true", *batch] if batching else [])]


@pytest.fixture(scope="module")
def detector(make_gan, boots):
    return AnoGAN.from_gan(make_gan(), steps=3).calibrate(boots.train[:40])


@pytest.fixture(scope="module", params=[False, True], ids=["alone", "batched"])
def ports(request, detector, tmp_path_factory, process):
    folder = tmp_path_factory.mktemp("serving")
    detector.export(folder / "parts")
    grpc_port, rest_port = _free_port(), _free_port()
    with open(folder / "server.log", "w+") as log:
        command = _command(folder / "parts", request.param, grpc_port, rest_port)
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait(server, f"http://127.0.0.1:{rest_port}/v1/models/parts", folder / "server.log")
            yield grpc_port, rest_port
        finally:
            if not BINARY:
                subprocess.run(["docker", "stop", f"anogan-{rest_port}"], capture_output=True)
            server.terminate()
            server.wait(30)


def _wait(server, url, log):
    stop = time.monotonic() + PATIENCE
    while time.monotonic() < stop and server.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if b"AVAILABLE" in answer.read():
                return
        time.sleep(0.5)
    pytest.fail(f"the server didn't come up:\n{log.read_text()[-3000:]}")


@pytest.fixture(params=["rest", "grpc"])
def server(request, ports, monkeypatch):
    monkeypatch.syspath_prepend(str(KIT))
    client = importlib.import_module("client")
    if request.param == "rest":
        return client.Rest(f"http://127.0.0.1:{ports[1]}", "parts")
    pytest.importorskip("tensorflow_serving", reason="needs tensorflow-serving-api")
    return client.Grpc(f"127.0.0.1:{ports[0]}", "parts")


def test_the_server_gives_the_librarys_answers(server, detector, boots):
    pixels = boots.test[:40]
    expected = detector.predict(pixels, verbose=0)
    images = np.asarray(detector.preprocessing.prepare(pixels))
    files = [tf.io.encode_png(image[..., np.newaxis]).numpy() for image in pixels]
    for signature, name, rows in (("localize", "images", images), ("localize_bytes", "image_bytes", files)):
        answer = server.predict(signature, name, rows)
        for output in ("score", "p_value", "residual", "reconstruction", "z"):
            np.testing.assert_allclose(answer[output], expected[output], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(answer["is_anomaly"], expected["is_anomaly"])


def test_clients_at_once_see_nothing_of_each_other(server, detector, boots):
    images = np.asarray(detector.preprocessing.prepare(boots.test))
    expected = detector.predict(boots.test, verbose=0)["score"]
    rng = np.random.default_rng(0)
    chosen = [rng.choice(len(images), rng.integers(1, 17), replace=False) for _ in range(64)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda rows: server.predict("serving_default", "images", images[rows])["score"], chosen)
        for rows, scores in zip(chosen, answers):
            np.testing.assert_allclose(scores, expected[rows], rtol=1e-5)


def test_a_bad_row_is_marked(server, detector, boots):
    images = np.array(detector.preprocessing.prepare(boots.test[:3]))
    images[1] = 7.0
    answer = server.predict("serving_default", "images", images)
    assert answer["valid"].tolist() == [True, False, True] and answer["is_anomaly"][1] and np.isfinite(answer["score"]).all()
