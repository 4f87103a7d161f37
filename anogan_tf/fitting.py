"""Keras `fit` for models that learn from pixels: checked, prepared, shuffled, and resumable to the bit."""

import tensorflow as tf

from anogan_tf.backend import keras
from anogan_tf.preparation import check_pixels, require_valid
from anogan_tf.saving import OneFileModel

BATCH_SIZE = 16


class PixelModel(OneFileModel):
    """A `keras.Model` whose `fit` takes pixels as they come.

    A subclass has a `preparation`, a `seed` and, once compiled, an `optimizer` that steps once for each batch; it
    implements `train_on_images` and keeps its metrics in `self._trackers`.
    """

    @property
    def metrics(self):
        """The model's own, without those of the networks it holds."""
        return getattr(self, "_trackers", [])

    def fit(
        self,
        x,
        batch_size=BATCH_SIZE,
        epochs=1,
        verbose="auto",
        callbacks=None,
        initial_epoch=0,
        steps_per_epoch=None,
    ):
        """Train on normal images.

        Args:
            x: pixels as they come: array `[N, h, w]` or `[N, h, w, c]` (uint8, uint16, or float in [0, 1]), or a batched
                `tf.data.Dataset` of such pixels (labels beside them are ignored). An array is shuffled anew for each
                pass, and what doesn't fill a batch waits for the next one.
            batch_size: images in a step; not for a dataset.
            epochs, verbose, callbacks, initial_epoch, steps_per_epoch: as in `keras.Model.fit`.

        Returns:
            `keras.callbacks.History`.

        Raises:
            ValueError: for pixels that can't be used, naming the remedy.
        """
        if not self.compiled:
            raise ValueError("Call compile() before fit(); without arguments it sets the defaults.")
        if not isinstance(x, tf.data.Dataset):
            pixels = check_pixels(x, "x")
            batch_size = min(batch_size, len(pixels))
            steps_per_epoch = steps_per_epoch or len(pixels) // batch_size
            x = self._shuffled_batches(pixels, batch_size)
        # Checked and resized here, not in `train_step`: XLA, where it compiles that, can do neither.
        x = x.map(lambda *batch: self.preparation.resize(require_valid(batch[0]))).prefetch(2)
        return super().fit(
            x,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            shuffle=False,
            initial_epoch=initial_epoch,
            steps_per_epoch=steps_per_epoch,
        )

    def _shuffled_batches(self, pixels, batch_size):
        """Endless batches from where the step count stands; each pass over the pixels has its order from (seed, pass)."""
        pixels = tf.constant(pixels)
        order = tf.range(len(pixels))

        def one_pass(number):
            seed = tf.stack([tf.cast(self.seed, tf.int64), number])
            shuffled = tf.random.experimental.stateless_shuffle(order, seed, alg="philox")
            return tf.data.Dataset.from_tensor_slices(shuffled).batch(batch_size, drop_remainder=True)

        passes, done = divmod(int(self.optimizer.iterations.numpy()), len(pixels) // batch_size)
        rows = tf.data.Dataset.range(passes, tf.int64.max).flat_map(one_pass).skip(done)
        return rows.map(lambda rows: tf.gather(pixels, rows))

    def train_step(self, data):
        """One step on one batch of pixels."""
        images = self.preparation(keras.utils.unpack_x_y_sample_weight(data)[0])
        # Nothing may move before the images are there: at the end of a dataset of unknown length Keras runs one step
        # more than it has batches, and of that step only what needs no images would take place.
        with tf.control_dependencies([images]):
            return self.train_on_images(images)

    def train_on_images(self, images):
        """One step on images `[N, H, W, C]` in [-1, 1]; returns the metrics' results."""
        raise NotImplementedError

    def _track(self, *values):
        for tracker, value in zip(self._trackers, values):
            tracker.update_state(value)
        return self.get_metrics_result()
