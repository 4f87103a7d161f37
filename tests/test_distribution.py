"""Training on several devices by plain `fit`: the losses of one device on the same global batch."""

import json
import subprocess
import sys

import numpy as np
import pytest

CODE = """
import json, sys
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from anogan_tf import GAN, EncoderTrainer

pixels = np.random.default_rng(0).integers(0, 256, (64, 16, 16), np.uint8)

def train(strategy, **options):
    with strategy.scope():
        gan = GAN((16, 16, 1), 4, width=4, **options)
        gan.compile()
    found = gan.fit(pixels, epochs=3, verbose=0).history
    with strategy.scope():
        trainer = EncoderTrainer.from_gan(gan, method="ziz")
        trainer.compile()
    encoder = trainer.fit(pixels, epochs=2, verbose=0).history
    return {**found, "encoder": encoder["loss"], "steps": [int(gan.batches_seen.numpy())]}

def mirrored():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

options = json.loads(sys.argv[1])
if options.get("objective") == "wgan-gp":
    try:
        train(mirrored(), **options)
    except ValueError as error:
        print(json.dumps(str(error)))
else:
    print(json.dumps([train(strategy, **options) for strategy in (tf.distribute.get_strategy(), mirrored())]))
"""


def run(**options):
    done = subprocess.run([sys.executable, "-c", CODE, json.dumps(options)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("options", [{"self_supervision": 0.5}, {"objective": "hinge"}])
def test_two_devices_have_the_losses_of_one(options):
    one, two = run(**options)
    assert one.keys() == two.keys() and one["steps"] == two["steps"] == [12]
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-5, err_msg=name)


def test_an_objective_that_skips_steps_says_that_it_can_t():
    assert "take 'dcgan' or 'hinge' on several devices" in run(objective="wgan-gp")
