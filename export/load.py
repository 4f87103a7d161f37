#!/usr/bin/env python3
"""How many pictures a second a served detector answers, and how long a client waits.

    python load.py --rest http://127.0.0.1:8501 --size 64x64x1
    python load.py --grpc 127.0.0.1:8500 --clients 1 8 32
    python load.py --folder serving/parts/1          the SavedModel in this process: one session, as the server has it

Prints a Markdown table. The pictures are noise unless --pictures names a .npy file of some, [N, h, w, c] in [0, 1].
"""

import argparse
import concurrent.futures
import functools
import os
import sys
import time
from pathlib import Path

import client
import numpy as np


class Folder:
    """A SavedModel run here, as TensorFlow Serving runs it."""

    def __init__(self, folder):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")
        started = time.perf_counter()
        self.session = tf.compat.v1.Session(graph=tf.Graph())
        with self.session.graph.as_default():
            self.signatures = tf.compat.v1.saved_model.loader.load(self.session, ["serve"], str(folder)).signature_def
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        print(f"{folder}: {size / 1e6:.2f} MB, loaded in {time.perf_counter() - started:.2f} s\n")

    def predict(self, signature, name, rows):
        signature = self.signatures[signature]
        fetched = {output: info.name for output, info in signature.outputs.items()}
        return self.session.run(fetched, {signature.inputs[name].name: rows})


def measure(server, pictures, rows, clients, seconds):
    """Requests of so many rows from so many clients at once, for some seconds: (seconds each waited, failed, seconds taken)."""
    stop = time.perf_counter() + seconds

    def one_client(number):
        random, waits, failed = np.random.default_rng(number), [], 0
        while not waits or time.perf_counter() < stop:
            request = ("serving_default", "images", pictures[random.integers(0, len(pictures), rows)])
            started = time.perf_counter()
            try:
                client.persistently(functools.partial(server.predict, *request))
            except client.ServingError as error:
                failed += 1
                if failed > 10:
                    raise
                print(f"failed: {error}", file=sys.stderr)
                continue
            waits.append(time.perf_counter() - started)
        return waits, failed

    started = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        waits, failures = zip(*pool.map(one_client, range(clients)))
    return np.concatenate(waits), sum(failures), time.perf_counter() - started


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rest", default="http://127.0.0.1:8501", metavar="URL")
    parser.add_argument("--grpc", metavar="HOST:PORT")
    parser.add_argument("--folder", type=Path, metavar="VERSION", help="a SavedModel's folder, run in this process")
    parser.add_argument("--model", default="parts")
    parser.add_argument("--version", type=int)
    parser.add_argument("--timeout", type=float, default=600.0)
    parser.add_argument("--size", default="64x64x1", help="HEIGHTxWIDTHxCHANNELS of the noise (default: %(default)s)")
    parser.add_argument("--pictures", type=Path, help="a .npy file")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 64], help="pictures in a request")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8], help="clients at once")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each line of the table")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse(arguments)
    try:
        server = Folder(options.folder) if options.folder else client.connect(options)
        pictures = _pictures(options)
        measure(server, pictures, 1, 1, 0.0)  # the first request waits for what is set up once
        print("| images in a request | clients | requests | failed | images/s | p50 ms | p95 ms | p99 ms |")
        print("|---:|---:|---:|---:|---:|---:|---:|---:|")
        for rows in options.rows:
            for clients in options.clients:
                waits, failed, taken = measure(server, pictures, rows, clients, options.seconds)
                p50, p95, p99 = 1e3 * np.percentile(waits, (50, 95, 99))
                speed = len(waits) * rows / taken
                line = f"{rows} | {clients} | {len(waits)} | {failed} | {speed:.1f} | {p50:.0f} | {p95:.0f} | {p99:.0f}"
                print(f"| {line} |", flush=True)
    except (client.ServingError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _pictures(options):
    if options.pictures is None:
        return np.random.default_rng(0).uniform(size=(256, *map(int, options.size.split("x")))).astype(np.float32)
    pictures = np.load(options.pictures)
    if pictures.ndim != 4 or pictures.dtype.kind != "f" or not 0.0 <= pictures.min() <= pictures.max() <= 1.0:
        raise ValueError(f"{options.pictures} holds {pictures.dtype} {pictures.shape}; expected floats [N, h, w, c] in [0, 1]")
    return pictures.astype(np.float32)


if __name__ == "__main__":
    sys.exit(main())
