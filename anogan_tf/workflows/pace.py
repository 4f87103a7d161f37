"""How long a training will take: said after its first steps, from what those took and what the other steps cost beside them."""

import time

from anogan_tf.runtime.backend import keras
from anogan_tf.training.comparator import ComparatorTrainer
from anogan_tf.training.gan import GAN

UNTIMED = 12  # steps at the beginning, with the tracing among them
SECONDS, MIN_TIMED = 3.0, 15  # that are timed, and steps at least
# What a step costs, in steps of a GAN without a second task, as measured on two processors.
COSTS = {"gan": 1.0, "encoder": 1.7, "joint": 1.0}
SECOND_TASK = 1.6  # what a GAN's step costs with it
COMPARATOR = 0.63  # a comparator's, where its tiles are as large as the GAN's images


class Pace(keras.callbacks.Callback):
    """Says once, after the first steps of a training, how long all of it will take.

    Args:
        work: a list of `(part, steps)`, the parts "gan", "encoder", "joint" and "comparator".
        image_shape: `(H, W, C)` of the GAN.
        context: side of the comparator's tiles, or None where it sees whole images.
        second_task: whether the discriminator has its pretext task.
        say: called with the line.
    """

    def __init__(self, work, image_shape, context, second_task, say):
        super().__init__()
        larger = 1.0 if context is None else context**2 / (image_shape[0] * image_shape[1])
        self._costs = {**COSTS, "gan": SECOND_TASK if second_task else 1.0, "comparator": COMPARATOR * larger}
        self._all = sum(steps * self._costs[part] for part, steps in work)
        self._say, self._steps, self._started = say, 0, 0.0

    def on_train_batch_end(self, batch, logs=None):
        if self._say is None:
            return
        self._steps += 1
        if self._steps == UNTIMED:
            self._started = time.perf_counter()
        timed, passed = self._steps - UNTIMED, time.perf_counter() - self._started
        if timed >= MIN_TIMED and passed >= SECONDS:
            self._say(f"It will take about {as_time(self._all / self._costs[_part(self.model)] * passed / timed)}.")
            self._say = None


def _part(model):
    """Which part a model trains."""
    if isinstance(model, ComparatorTrainer):
        return "comparator"
    return "gan" if isinstance(model, GAN) else "joint" if model.joint else "encoder"


def as_time(seconds):
    """Seconds in words, no more exact than it is known."""
    if seconds < 90:
        return f"{max(5, 5 * round(seconds / 5))} seconds"
    if seconds < 5400:
        return f"{round(seconds / 60)} minutes"
    return f"{seconds / 3600:.1f} hours"
