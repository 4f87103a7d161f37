"""Training on several devices, and by several processes, by plain `fit`: the losses of one device on the same global batch."""

import json
import os
import socket
import subprocess
import sys

import numpy as np

CODE = """
import json, os, sys
import numpy as np
import tensorflow as tf
if "TF_CONFIG" in os.environ:
    strategy = tf.distribute.MultiWorkerMirroredStrategy()  # before anything else of TensorFlow
else:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
from anogan_tf import GAN, ComparatorTrainer, EncoderTrainer, Preprocessing

pixels = np.random.default_rng(0).integers(0, 256, (64, 16, 16), np.uint8)

def train(strategy, augment=(), **options):
    with strategy.scope():
        gan = GAN((16, 16, 1), 4, base_filters=4, preprocessing=Preprocessing((16, 16, 1), augment=augment), **options)
        gan.compile()
    found = gan.fit(pixels, epochs=3, verbose=0).history
    with strategy.scope():
        trainer = EncoderTrainer.from_gan(gan, method="ziz")
        trainer.compile()
    encoder = trainer.fit(pixels, epochs=2, verbose=0).history
    with strategy.scope():
        comparator = ComparatorTrainer.from_gan(gan, trainer.encoder, base_filters=4)
        comparator.compile(steps=8)
    drawn = comparator.fit(pixels, epochs=2, verbose=0).history["loss"]
    gan.save(sys.argv[2])
    sums = [float(np.abs(weights).sum()) for weights in GAN.load(sys.argv[2]).get_weights()]
    return {**found, "encoder": encoder["loss"], "comparator": drawn, "steps": [int(gan.batches_seen.numpy())], "weights": sums}

options = json.loads(sys.argv[1])
if "TF_CONFIG" not in os.environ:
    try:
        train(strategy, objective="wgan-gp")
    except ValueError as error:
        assert "take 'dcgan' or 'hinge' on several devices" in str(error)
    else:
        raise AssertionError("an objective that skips steps can't be shared out, and was")
one = [] if "TF_CONFIG" in os.environ else [train(tf.distribute.get_strategy(), **options)]
print(json.dumps([*one, train(strategy, **options)]))
"""
OPTIONS = {"self_supervision": 0.5, "augment": ["mirror", "shift"]}


def start(path, options, **environment):
    command = [sys.executable, "-c", CODE, json.dumps(options), str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})


def answer(process):
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    return json.loads(out.splitlines()[-1])


def assert_alike(one, other):
    assert one.keys() == other.keys() and one["steps"] == other["steps"] == [12]
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5, err_msg=name)


def test_two_devices_have_the_losses_of_one_or_say_that_they_can_t(tmp_path, process):
    assert_alike(*answer(start(tmp_path / "gan.keras", {"objective": "hinge"})))


def test_two_processes_have_the_losses_of_one_and_of_two_devices(tmp_path, process):
    with socket.socket() as first, socket.socket() as second:
        for held in (first, second):
            held.bind(("127.0.0.1", 0))
        cluster = {"worker": ["{}:{}".format(*held.getsockname()) for held in (first, second)]}
    tasks = [json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}) for index in (0, 1)]
    workers = [start(tmp_path / f"{index}.keras", OPTIONS, TF_CONFIG=task) for index, task in enumerate(tasks)]
    try:
        (first,), (second,) = (answer(worker) for worker in workers)
    finally:
        for worker in workers:
            worker.kill()
    assert first == second
    for others in answer(start(tmp_path / "gan.keras", OPTIONS)):
        assert_alike(first, others)
