"""Keras `fit` for models that learn from pixels: checked, prepared, shuffled, and resumable to the bit."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from anogan_tf.data.augmentation import augment_images
from anogan_tf.data.disk import DiskArray
from anogan_tf.data.pixel_checks import check_input
from anogan_tf.data.preprocessing import in_one_line, to_network, to_pixels
from anogan_tf.runtime.backend import keras
from anogan_tf.runtime.models import SavableModel, unavailable
from anogan_tf.runtime.types import PixelArrays

TRAINING_BATCH = 16


def replicas():
    """How many devices a step is shared out to, under a `tf.distribute` strategy; 1 without one."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def is_multi_worker():
    """Whether replicas belong to other processes too."""
    return replicas() > 1 and replicas() > len(tf.distribute.get_strategy().extended.worker_devices)


def sample_across_replicas(count, draw):
    """`draw(count)`, `[count, ...]`; of several replicas each has its share of what one would draw for all their images."""
    if replicas() == 1:
        return draw(count)
    first = tf.distribute.get_replica_context().replica_id_in_sync_group * count
    return draw(count * replicas())[first : first + count]


def scale_for_replicas(loss):
    """A replica's mean loss as its share of the mean over all: Keras adds the replicas' gradients up."""
    return loss if replicas() == 1 else loss / replicas()


def gather_replicas(values):
    """`[count, ...]` of all replicas, in their order."""
    return values if replicas() == 1 else tf.distribute.get_replica_context().all_gather(values, axis=0)


def clip_across_replicas(gradients, norm):
    """Gradients, whose norm over all of them and all replicas together is cut to `norm`, as a replica's share of them.

    An optimizer would cut each replica's own share.
    """
    if replicas() > 1:
        gradients = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, gradients)
    clipped, _ = tf.clip_by_global_norm(gradients, norm)
    return clipped if replicas() == 1 else [gradient / replicas() for gradient in clipped]


def update_average(average, network, momentum, step):
    """Have a network's exponential moving average keep `momentum` of its weights, in the first steps less: they change fast."""
    step = tf.cast(step, tf.float32)
    kept = tf.minimum(momentum, (1.0 + step) / (10.0 + step))
    for mean, weight in zip(average.weights, network.weights):
        mean.assign(kept * mean + (1.0 - kept) * weight)


class ImageTrainer(SavableModel):
    """A `keras.Model` whose `fit` takes pixels as they come.

    A subclass has a `preprocessing` and a `seed`; it implements `train_on_images` and `test_on_images`, and keeps its
    metrics in `self._trackers`.
    """

    @property
    def batches_seen(self):
        """Batches it was trained on so far, a variable: where a resumed run goes on."""
        return self.optimizer.iterations

    @property
    def metrics(self):
        """The model's own, without those of the networks it holds."""
        return getattr(self, "_trackers", [])

    def fit(
        self,
        x: PixelArrays | DiskArray | tf.data.Dataset,
        y: None = None,
        batch_size: int = TRAINING_BATCH,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        validation_data: PixelArrays | tf.data.Dataset | None = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_freq: int = 1,
    ) -> keras.callbacks.History:
        """Train on normal images.

        Args:
            x: pixels as they come: array `[N, h, w]` or `[N, h, w, c]` (uint8, uint16, or float in [0, 1]), a list of images
                of differing sizes, a `data.disk.DiskArray`, or a batched `tf.data.Dataset` (labels beside the pixels are
                ignored). All but a dataset are shuffled anew for each pass, and what doesn't fill a batch waits for the
                next one.
            y: none; the images are all there is to learn from.
            batch_size: images in a step; not for a dataset.
            validation_data: other normal images, as x; after each pass the metrics of `evaluate` on them are logged as
                `val_...`. Nothing is learned from them.
            epochs, verbose, callbacks, initial_epoch, steps_per_epoch, validation_freq: as in `keras.Model.fit`.

        Returns:
            `keras.callbacks.History`.

        Raises:
            ValueError: for pixels that can't be used, naming the remedy.
        """
        self._require_compiled("fit")
        if y is not None:
            raise ValueError(
                "fit() takes no labels, it learns from normal images alone: pass these, such as x[y == 0], and no y."
            )
        check_input(x)
        if isinstance(x, tf.data.Dataset):
            images = self._prepared(x, batch_size)
        else:
            count, read = self.row_reader(x)
            batch_size = min(batch_size, count)
            steps_per_epoch = steps_per_epoch or count // batch_size
            images = self._shuffled_rows(count, batch_size).map(read)
        # Prepared here, not in `train_step`: XLA, where it compiles that, can't resize.
        images = images.prefetch(2)
        validation = None if validation_data is None else self._prepared(validation_data, batch_size, "validation_data")
        with in_one_line():
            return super().fit(
                images,
                epochs=epochs,
                verbose=verbose,
                callbacks=callbacks,
                shuffle=False,
                validation_data=validation,
                initial_epoch=initial_epoch,
                steps_per_epoch=steps_per_epoch,
                validation_freq=validation_freq,
            )

    def evaluate(
        self, x: PixelArrays | DiskArray | tf.data.Dataset, y: None = None, batch_size: int = TRAINING_BATCH, **options: Any
    ) -> Any:
        """The metrics on other normal images, without learning from them.

        Args:
            x, y, batch_size: as for `fit`.
            **options: as for `keras.Model.evaluate`: verbose, return_dict, ...

        Returns:
            The losses as a list, or with `return_dict=True` as a dict.
        """
        self._require_compiled("evaluate")
        if "_use_cached_eval_dataset" not in options:  # else Keras asks, within `fit`, and has what `fit` prepared
            x = self._prepared(x, batch_size)
        with in_one_line():
            return super().evaluate(x, **options)

    train_on_batch = unavailable("train_on_batch", "call fit(), which prepares the pixels")
    test_on_batch = unavailable("test_on_batch", "call evaluate(), which prepares the pixels")

    def _require_compiled(self, method):
        if not self.compiled:
            raise ValueError(f"Call compile() before {method}(); without arguments it sets the defaults.")

    def _prepared(self, x, batch_size, name="x"):
        """Batches of prepared images, in their order, as a `tf.data.Dataset`."""
        check_input(x, name)
        if isinstance(x, tf.data.Dataset):
            return x.map(lambda *batch: self.preprocessing(self.preprocessing.require_valid(batch[0])))
        count, read = self.row_reader(x, name)
        return tf.data.Dataset.range(count).batch(min(batch_size, count)).map(read)

    def fit_on(self, x: PixelArrays | DiskArray, batch_size: int = TRAINING_BATCH, epochs: int = 1, **options: Any) -> None:
        """`fit` until `epochs` passes have been made in all, from wherever the step count stands: after loading, mid-pass too.

        Args:
            x: as for `fit`, but no dataset, and the same as before.
            batch_size, epochs: as for `fit`.
            **options: as for `fit`.
        """
        steps = max(1, len(x) // min(batch_size, len(x)))
        done, part = divmod(int(self.batches_seen.numpy()), steps)
        if part:  # the rest of a pass, whose logged losses are of that rest
            rest: dict[str, Any] = {"initial_epoch": done, "epochs": done + 1, "steps_per_epoch": steps - part}
            self.fit(x, batch_size=batch_size, **rest, **options)
            done += 1
        if done < epochs:
            self.fit(x, batch_size=batch_size, epochs=epochs, initial_epoch=done, **options)

    def _shuffled_rows(self, count, batch_size):
        """Endless batches of row numbers from where the step count stands; each pass has its order from (seed, pass)."""
        order = tf.range(count)

        def one_pass(number):
            seed = tf.stack([tf.cast(self.seed, tf.int64), number])
            shuffled = tf.random.experimental.stateless_shuffle(order, seed, alg="philox")
            return tf.data.Dataset.from_tensor_slices(shuffled).batch(batch_size, drop_remainder=True)

        passes, done = divmod(int(self.batches_seen.numpy()), count // batch_size)
        return tf.data.Dataset.range(passes, tf.int64.max).flat_map(one_pass).skip(done)

    def row_reader(self, x, name="x"):
        """`(number of images, function from row numbers to prepared images)` of what `fit` takes, but a dataset."""
        if isinstance(x, DiskArray):
            shape = (None, *x.shape[1:])

            def read(rows):
                return self.preprocessing(tf.ensure_shape(tf.numpy_function(x.take, [rows], tf.float32), shape))

            return len(x), read
        if isinstance(x, (list, tuple)):  # of any sizes
            images = tf.constant(np.stack([self.preprocessing.read(image, f"{name}[{row}]") for row, image in enumerate(x)]))
            return len(x), lambda rows: to_network(tf.gather(images, rows))
        pixels = tf.constant(self.preprocessing.check(x, name))
        return len(pixels), lambda rows: self.preprocessing(tf.gather(pixels, rows))

    def train_step(self, data):
        """One step on one batch of images that `fit` has prepared."""
        images = keras.utils.unpack_x_y_sample_weight(data)[0]
        # Nothing may move before the images are there: at the end of a dataset of unknown length Keras runs one step
        # more than it has batches, and of that step only what needs no images would take place.
        with tf.control_dependencies([images]):
            return self.train_on_images(self._augmented(images))

    def _augmented(self, images):
        """The images changed at random as the preprocessing says, here alone: never when they are scored."""
        if not self.preprocessing.augment:
            return images
        step = tf.cast(self.batches_seen, tf.int32)  # drawn from (seed, step): a resumed run is the same run
        return to_network(
            augment_images(to_pixels(images), self.preprocessing.augment, (self.seed, step), sample_across_replicas)
        )

    def train_on_images(self, images):
        """One step on images `[N, H, W, C]` in [-1, 1]; returns the metrics' results."""
        raise NotImplementedError

    def test_step(self, data):
        """The metrics of one batch of images that `evaluate` has prepared."""
        return self.test_on_images(keras.utils.unpack_x_y_sample_weight(data)[0])

    def test_on_images(self, images):
        """The metrics' results on images `[N, H, W, C]` in [-1, 1], without a step."""
        raise NotImplementedError

    def _track(self, *values):
        for tracker, value in zip(self._trackers, values):
            tracker.update_state(value)
        found = self.get_metrics_result()
        if is_multi_worker():  # of each Keras takes the mean over its first axis then, which a number hasn't
            return {name: tf.reshape(value, (1,)) for name, value in found.items()}
        return found


class ImagePredictor(ImageTrainer):
    """An `ImageTrainer` whose `call` is worth asking: its `predict` takes pixels as they come, too."""

    def predict(
        self,
        x: PixelArrays | tf.data.Dataset,
        batch_size: int = TRAINING_BATCH,
        verbose: int | str = "auto",
        steps: int | None = None,
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
    ) -> np.ndarray:
        """What the model gives for pixels as `fit` takes them, `[N, ...]`: an encoder z = E(x), a comparator logits.

        Args:
            x: pixels, as for `fit`.
            batch_size: images in a batch; not for a dataset.
            verbose, steps, callbacks: as in `keras.Model.predict`.
        """
        return super().predict(self._prepared(x, batch_size), verbose=verbose, steps=steps, callbacks=callbacks)

    predict_on_batch = unavailable("predict_on_batch", "call predict(), which prepares the pixels")
