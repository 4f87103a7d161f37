"""The detector: how anomalous an image is, and where (AnoGAN, Schlegl et al. 2017)."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from anogan_tf import losses, maps, networks
from anogan_tf.annotations import Array, PathLike, PixelArrays
from anogan_tf.backend import keras
from anogan_tf.calibration import (
    FALSE_POSITIVE_RATE,
    TERMS,
    WHOLE,
    Calibration,
    Complexity,
    check_count,
    mean_variation,
    thinned,
)
from anogan_tf.folding import for_inference
from anogan_tf.inversion import Networks, SearchResult, compile_stages, draw_starts, map_blocks, search, whitening_basis
from anogan_tf.memory import Memory
from anogan_tf.preparation import Preparation, to_network, to_pixels
from anogan_tf.saving import OneFileModel
from anogan_tf.serving import ServedModel, write_saved_model
from anogan_tf.settings import SearchSettings
from anogan_tf.tiling import Layout, Tiling, cut, fill_up, grouped, highest, images_of, lay_out, pool, stitch
from anogan_tf.transforms import transform, transform_tables
from anogan_tf.warmup import BATCH_SIZES as WARM_UP

IMAGES = ("residual", "reconstruction")  # of `predict`'s outputs those of an image's size
BASIS_SETTINGS = ("prior", "seed", "loss", "weight", "kappa")  # what whitened coordinates depend on
BATCH_SIZE = 256  # enough that rows that finish early find others waiting


class _Terms(NamedTuple):
    """What scores are made of, a row for each image or tile."""

    losses: tf.Tensor  # or peaks
    complexities: tf.Tensor | None  # where the settings ask for them
    sides: tf.Tensor  # see `Layout`
    surprises: tf.Tensor | None  # where there is a classifier, too
    distances: tf.Tensor | None  # where there is a memory, too
    owners: tf.Tensor  # ascending: which image it is of


class _Searched(NamedTuple):
    """What a search found."""

    images: tf.Tensor  # or tiles
    layout: Layout | None
    result: SearchResult
    terms: _Terms


@keras.saving.register_keras_serializable("anogan_tf")
class AnoGAN(OneFileModel):
    """Searches the latent space for each image and scores what the search can't explain.

    >>> detector = AnoGAN.from_gan(gan, weight=0.1, steps=500)
    >>> detector.calibrate(held_out_normals, false_positive_rate=0.05)
    >>> out = detector.predict(queries)
    >>> out["score"], out["is_anomaly"], out["residual"]

    The search works on copies of the networks, taken when the first image is scored: weights set after that have no effect.

    Args:
        generator: `[N, latent_dim]` to `[N, H, W, C]` in [-1, 1].
        discriminator: `[N, H, W, C]` to `[N, 1]` logits, with a layer named `features`.
        encoder: `[N, H, W, C]` to `[N, latent_dim]`, as `EncoderTrainer` trains it; with one the mode is "refine" unless
            another is given, without one it is "search".
        preparation: a `Preparation`; by default the one for the networks' image shape.
        classifier: from the discriminator's features to which transform an image has been through, as a `GAN` with
            `self_supervision` trains it.
        memory: a `Memory` of normal images, of the networks' shape.
        tiling: a `Tiling` where the networks see only tiles of the images that the preparation makes, which may be larger and
            differ in size. Each image has one score, and maps of its size.
        features: name of the discriminator's layer that the discrimination loss compares.
        jit_compile: whether XLA compiles the steps of a block: "auto" (on a GPU only: on a CPU it is slower), True or False.
        **settings: the fields of `SearchSettings`: mode, weight, steps, restarts, ...
    """

    PARTS = ("generator", "discriminator", "encoder", "preparation", "classifier", "memory")
    predict_function: Any  # Keras's, made by `make_predict_function`

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        encoder: keras.Model | None = None,
        preparation: Preparation | None = None,
        classifier: keras.Model | None = None,
        memory: Memory | None = None,
        *,
        tiling: Tiling | None = None,
        features: str = networks.FEATURES,
        jit_compile: bool | str = "auto",
        name: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(name=name, autocast=False)
        self.image_shape = networks.check_pair(generator, discriminator)
        self.generator = generator
        self.discriminator = discriminator
        self.encoder = encoder
        self.classifier = classifier
        self.memory = memory
        if memory is not None and not isinstance(memory, Memory):
            raise TypeError(f"memory={memory!r} must be a Memory: Memory.of(gan.preparation(normals)).")
        if memory is not None and memory.image_shape != self.image_shape:
            raise ValueError(f"The memory is of images {memory.image_shape}; the networks' are {self.image_shape}.")
        if encoder is not None:
            networks.check_encoder(encoder, generator)
        self.preparation = preparation or Preparation(self.image_shape)
        self._tiling = tiling
        if tiling is None:
            networks.check_prepared(self.preparation, self.image_shape)
        else:
            tiling.check(min(self.image_shape[:2]))
            networks.check_tiled(self.preparation, self.image_shape)
        self.features = features
        self.search_jit_compile = jit_compile
        # Keras would hand `predict` as a whole to XLA, which compiles anew for each number of images.
        self.jit_compile = False
        self._calibration: Calibration | None = None
        self._settings: Any = None
        self._starts: Any = None
        self._basis: Any = None
        self._search: Any = None
        self._surprise: Any = None
        known = {field.name for field in dataclasses.fields(SearchSettings)}
        if unknown := sorted(settings.keys() - known):
            raise TypeError(f"{', '.join(unknown)}: no such setting of the search; there are {', '.join(sorted(known))}.")
        self.settings = SearchSettings(**{"mode": "search" if encoder is None else "refine", **settings})
        if jit_compile is True and self.settings.block is None:
            raise ValueError("jit_compile=True needs blocks of a fixed size; give block=16, say, in place of None.")
        networks.feature_extractor(discriminator, features)  # a wrong name is an error now, not at the first image
        self.built = True

    @classmethod
    def from_gan(cls, gan: keras.Model, encoder: keras.Model | None = None, **options: Any) -> "AnoGAN":
        """A detector with a copy of a trained GAN's networks, its preparation and its prior.

        A copy, so that training on doesn't change a detector that is calibrated already.

        Args:
            gan: a `GAN`.
            encoder: the `encoder` of an `EncoderTrainer` of this GAN, where there is one; it is copied too.
            **options: as for `AnoGAN`: memory, weight, steps, restarts, tiling, preparation (by default the GAN's, and with a
                tiling the same for images of their own size), ...
        """
        parts = {"generator": gan.averaged_generator, "discriminator": gan.discriminator, "encoder": encoder}
        parts |= {"classifier": gan.classifier}
        copies = {part: network and networks.copy_network(network) for part, network in parts.items()}
        preparation = gan.preparation.copy(own_size=options.get("tiling") is not None)
        return cls(**copies, **{"preparation": preparation, "prior": gan.prior, **options})

    @property
    def tiling(self) -> Tiling | None:
        """The `Tiling`, or None. For another make another detector, since what was calibrated holds for this one."""
        return self._tiling

    @property
    def settings(self) -> SearchSettings:
        """The `SearchSettings`. Assign `detector.settings.replace(steps=100)` to change them."""
        return self._settings

    @settings.setter
    def settings(self, settings: SearchSettings) -> None:
        if settings.mode != "search" and self.encoder is None:
            raise ValueError(f"mode={settings.mode!r} needs an encoder: train one with `EncoderTrainer` and pass it as encoder=.")
        before = self._settings
        if _differ(before, settings, ("prior", "drawn", "seed")):
            self._starts = np.asarray(draw_starts(settings, self.generator.input_shape[-1]))
        if _differ(before, settings, BASIS_SETTINGS):
            self._basis = None
        self._settings = settings
        self._forget_graphs()

    def with_settings(self, *, memory: Memory | None = None, **changes: Any) -> "AnoGAN":
        """Another detector of the same networks, not calibrated.

        Args:
            memory: a `Memory` in place of this one's.
            **changes: of settings, as for `SearchSettings.replace`.
        """
        settings = dataclasses.asdict(self.settings.replace(**changes))
        parts = {**{part: getattr(self, part) for part in self.PARTS}, "memory": memory or self.memory}
        options: dict[str, Any] = {"tiling": self.tiling, "features": self.features, "jit_compile": self.search_jit_compile}
        other = type(self)(**parts, **options, **settings)
        if not _differ(self.settings, other.settings, BASIS_SETTINGS):
            other._basis = self._basis
        return other

    @property
    def calibration(self) -> Calibration | None:
        """The `Calibration`, or None. Assign None to score without a threshold, where the score is the loss."""
        return self._calibration

    @calibration.setter
    def calibration(self, calibration: Calibration | None) -> None:
        self._calibration = calibration
        self.predict_function = None  # a calibration is a constant of the graph, but changes no search

    @property
    def threshold(self) -> float | None:
        """An image whose score is above this is anomalous; None before `calibrate`."""
        return None if self.calibration is None else self.calibration.threshold

    def calibrate(
        self,
        normals: PixelArrays,
        false_positive_rate: float = FALSE_POSITIVE_RATE,
        batch_size: int = BATCH_SIZE,
        advance: Callable[..., Any] = lambda count: None,
    ) -> "AnoGAN":
        """Learn the threshold, p-values and the heatmaps' scale from normal images that were not trained on.

        A score s gets p = (1 + #{normals with s or more}) / (n + 1) and is anomalous when p <= false_positive_rate.

        Args:
            normals: pixels, as in `predict`; at least 1 / false_positive_rate - 1 images.
            false_positive_rate: share of normal images that may be called anomalous.
            batch_size: as in `predict`.
            advance: called with the number of images scored since the last call, for a progress display.

        Returns:
            The detector.
        """
        if hasattr(normals, "__len__") and not isinstance(normals, tf.data.Dataset):
            check_count(len(normals), false_positive_rate)
        return self.calibrate_prepared(self._prepared_batches(normals, batch_size, "normals"), false_positive_rate, advance)

    def calibrate_prepared(
        self,
        batches: Iterable[tuple[np.ndarray, np.ndarray]],
        false_positive_rate: float = FALSE_POSITIVE_RATE,
        advance: Callable[..., Any] = lambda count: None,
    ) -> "AnoGAN":
        """`calibrate` on images that the preparation has made already, batches as for `predict_prepared`."""
        measure = self._measurement()
        found, smoothed, complexity = [], [], None
        for images, sizes in batches:
            terms, residual = measure(*self._with_sizes(images, sizes))
            found.append(terms)
            smoothed += [thinned(one) for one in self._smoothed(residual.numpy(), sizes)]
            advance(len(images))
        if not found:
            raise ValueError("There are no images to calibrate on.")
        if self.settings.score == "complexity":
            columns = [None if column[0] is None else np.concatenate(column) for column in zip(*found)]
            weights = {name: getattr(self.settings, name) for name in TERMS}
            complexity = Complexity.fit(*columns[:5], **weights)
            complexity = complexity.pooled_to(np.concatenate([self._pool(terms, complexity)[0] for terms in found]))
        scores = np.concatenate([self._pool(terms, complexity)[0] for terms in found])
        settings = dataclasses.asdict(self.settings)
        self.calibration = Calibration.fit(scores, smoothed, false_positive_rate, settings, complexity)
        return self

    def _measurement(self):
        """What calibrating needs of prepared images: a `tf.function` to `(_Terms, residual maps)`."""
        search = self._ready_search()

        def measure(images, sizes):
            searched = self._search_images(search, images, sizes)
            residual = maps.residual_image(searched.images, searched.result.reconstruction)
            return searched.terms, residual if searched.layout is None else stitch(residual, searched.layout)

        return tf.function(measure, input_signature=self._prepared_rows, autograph=False)

    def stopping_after(self) -> Callable[..., dict[str, tf.Tensor]]:
        """`predict_prepared` of a search that ends after so many steps, without a calibration; traced once for all numbers.

        Returns:
            A function `(steps, images, sizes=None)` to a dict of tensors; `steps` is no more than the settings'.
        """
        search, count = self._ready_search(), tf.TensorSpec((), tf.int32)

        @tf.function(input_signature=[count, *self._prepared_rows], autograph=False)
        def score(steps, images, sizes):
            return self._score(functools.partial(search, steps=steps), images, sizes)

        return lambda steps, images, sizes=None: score(steps, *self._with_sizes(tf.convert_to_tensor(images), sizes))

    @property
    def _prepared_rows(self):
        """What functions of prepared images and their sizes take."""
        return [tf.TensorSpec((None, *self.preparation.image_shape)), tf.TensorSpec((None, 2), tf.int32)]

    def predict(
        self,
        x: PixelArrays | tf.data.Dataset,
        batch_size: int = BATCH_SIZE,
        verbose: int | str = "auto",
        steps: int | None = None,
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
    ) -> dict[str, Any]:
        """Score images.

        Args:
            x: pixels: array `[N, h, w]` or `[N, h, w, c]` (uint8, uint16, or float in [0, 1]), a batched `tf.data.Dataset` of
                such, or a list of images `[h, w]` or `[h, w, c]` of any sizes.
            batch_size: images handed to the search at once; it changes no result unless `block` is None.
            verbose, steps, callbacks: as in `keras.Model.predict`; not for a list, or with a tiling.

        Returns:
            A dict of NumPy arrays, a row for each image, all taken at the same z. Higher scores are more anomalous.

            - `score` `[N]`: A = (1 - weight) * residual_score + weight * discrimination_score
              (with the loss "f-anogan" the sum is residual_score + kappa * discrimination_score, and both are mean squares);
              or with `score="complexity"` how far A lies above normal images as busy, in their standard deviations;
              or with `score="peak"` the highest value of the smoothed `residual`
            - `residual_score` `[N]`: R, the sum of `residual`
            - `discrimination_score` `[N]`: D
            - `residual` `[N, H, W, C]`: `|x - G(z)|` in network units (the pixels' range is 2)
            - `reconstruction` `[N, H, W, C]`: G(z) in [0, 1]
            - `z` `[N, latent_dim]`, `steps` `[N]`, `converged` `[N]`
            - once calibrated: `p_value` `[N]`, `is_anomaly` `[N]`

            With a `tiling` the scores are means over the image's `top` tiles; `residual` and `reconstruction` are stitched,
            and lists of `[H, W, C]` where x is a list of images; `steps` is the most that a tile took; there is no `z`.

        Raises:
            ValueError: for pixels that can't be used, or when the settings are not those that were calibrated.
        """
        if isinstance(x, (list, tuple)) or self.tiling is not None:
            return self._predict_images(x, batch_size)
        if not isinstance(x, tf.data.Dataset):
            x = tf.data.Dataset.from_tensor_slices(self.preparation.check(x, "x")).batch(batch_size)
        # Prepared before Keras sees them: after a few sizes it would trace `call` for unknown ones, channels included.
        x = x.map(lambda *batch: self._with_sizes(self.preparation(self.preparation.require_valid(batch[0]))))
        return super().predict(x.map(lambda *batch: (batch,)), verbose=verbose, steps=steps, callbacks=callbacks)

    def predict_on_batch(self, x: Array) -> dict[str, np.ndarray]:
        """`predict` for one batch of pixels, without a progress bar."""
        if isinstance(x, (list, tuple)):
            return self._predict_images(x, len(x))
        return self.predict_prepared(self.preparation(self.preparation.check(x, "x")))

    def predict_prepared(self, images: Array, sizes: Array | None = None) -> dict[str, np.ndarray]:
        """`predict` for one batch of images that the detector's preparation has made already.

        Args:
            images: `[N, H, W, C]` in [-1, 1].
            sizes: for a detector with a `tiling`, `[N, 2]`, height and width of each image, where some are filled up at the
                bottom and on the right to H x W; the maps then hold 0 there.
        """
        return super().predict_on_batch(self._with_sizes(tf.convert_to_tensor(images), sizes))

    def call(self, pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        """`predict` for one batch of pixels, as a dict of tensors. NaN and floats outside [0, 1] are not looked for."""
        return self._answer(*self._with_sizes(self.preparation(pixels)))

    def _answer(self, images, sizes):
        self._check_calibrated_settings()  # once a trace is enough: changed settings are traced anew
        out = self._score(self._ready_search(), images, sizes)
        if self.calibration is not None:
            out["p_value"] = self.calibration.p_values(out["score"])
            out["is_anomaly"] = self.calibration.is_anomaly(out["score"])
        return out

    def _score(self, search, images, sizes):
        """Scores and maps of prepared images `[N, H, W, C]`, of which `sizes` `[N, 2]` matter only with a tiling."""
        searched = self._search_images(search, images, sizes)
        result, layout = searched.result, searched.layout
        score, shares = self._pool(searched.terms, self.calibration and self.calibration.complexity)
        residual, reconstruction = maps.residual_image(searched.images, result.reconstruction), to_pixels(result.reconstruction)
        if layout is None:
            return {
                "score": score,
                "residual_score": result.residual_loss,
                "discrimination_score": result.discrimination_loss,
                "residual": residual,
                "reconstruction": reconstruction,
                "z": result.z,
                "steps": result.steps,
                "converged": result.converged,
            }
        return {
            "score": score,
            "residual_score": pool(result.residual_loss, shares, layout.owners),
            "discrimination_score": pool(result.discrimination_loss, shares, layout.owners),
            "residual": stitch(residual, layout),
            "reconstruction": stitch(reconstruction, layout),
            "steps": tf.math.segment_max(result.steps, layout.owners),
            "converged": tf.math.segment_min(tf.cast(result.converged, tf.int32), layout.owners) > 0,
        }

    def _search_images(self, search, images, sizes):
        """`_Searched` images, or their tiles."""
        layout, owners = None, tf.range(tf.shape(images)[0])
        sides = tf.fill(tf.shape(owners), WHOLE)
        if self.tiling is not None:
            layout = lay_out(sizes, tuple(tf.unstack(tf.shape(images)[:3])), self.image_shape[:2], self.tiling.stride)
            images, owners, sides = cut(images, layout), layout.owners, layout.sides
        result = search(images, tf.constant(self._starts))
        scored, busy, surprises, distances = result.loss, None, None, None
        if self.settings.score == "peak":
            scored = map_blocks(maps.peak, (images, result.reconstruction), self.settings.block)
        if self.settings.score == "complexity":
            busy = map_blocks(mean_variation, (images,), self.settings.block)
        if self._surprise is not None:
            surprises = map_blocks(self._surprise, (images,), self.settings.block)
        if self._remembers:
            distances = map_blocks(self.memory, (images,), self.settings.block)
        return _Searched(images, layout, result, _Terms(scored, busy, sides, surprises, distances, owners))

    def _pool(self, terms, complexity):
        """`(scores [N], shares [T])` of images from their own terms or their tiles'; `complexity` is None or a `Complexity`."""
        scores = terms.losses
        if complexity is not None:
            # In blocks: a logarithm's last bit depends on how many are taken at once.
            columns = {name: column for name, column in terms._asdict().items() if name != "owners" and column is not None}
            scores = map_blocks(
                lambda *rows: complexity.of_tiles(**dict(zip(columns, rows))), tuple(columns.values()), self.settings.block
            )
        if self.tiling is None:
            return (scores if complexity is None else complexity.of_images(scores)), None
        shares = highest(scores, terms.owners, self.tiling.top)
        pooled = pool(scores, shares, terms.owners)
        return (pooled if complexity is None else complexity.of_images(pooled)), shares

    def _with_sizes(self, images, sizes=None):
        """`(images, sizes)`; without sizes the images are whole."""
        if sizes is not None:
            return images, tf.cast(sizes, tf.int32)
        count, height, width = tf.unstack(tf.shape(images)[:3])
        return images, tf.tile([[height, width]], (count, 1))

    def _predict_images(self, x, batch_size):
        """`predict` for images of any sizes, or that are cut into tiles: some at a time."""
        outs = []
        for images, sizes in self._prepared_batches(x, batch_size, "x"):
            out = self.predict_prepared(images, sizes)
            outs.append({name: images_of(value, sizes) if name in IMAGES else value for name, value in out.items()})
        joined = {name: np.concatenate([out[name] for out in outs]) for name in outs[0] if name not in IMAGES}
        lists = {name: [image for out in outs for image in out[name]] for name in IMAGES}
        # Of a list a list, whether or not its images happen to be alike.
        listed = isinstance(x, (list, tuple)) and self.preparation.keeps_size
        same_size = not listed and len({image.shape for image in lists["residual"]}) == 1
        return {**joined, **{name: np.stack(images) if same_size else images for name, images in lists.items()}}

    def _prepared_batches(self, x, batch_size, name):
        """Yield `(images, sizes)` for `predict_prepared` from pixels as `predict` takes them."""
        if isinstance(x, tf.data.Dataset):
            for batch in x:
                batch = batch[0] if isinstance(batch, tuple) else batch
                yield self._with_sizes(self.preparation(self.preparation.check(batch, name)))
            return
        if not isinstance(x, (list, tuple)):
            x = self.preparation.check(x, name)
        if self.tiling is None and not isinstance(x, (list, tuple)):
            for first in range(0, len(x), batch_size):
                yield self._with_sizes(self.preparation(x[first : first + batch_size]))
            return
        if not len(x):
            raise ValueError(f"{name} holds no images.")
        prepared = (to_network(self.preparation.read(image, f"{name}[{row}]")) for row, image in enumerate(x))
        yield from map(fill_up, grouped(prepared, batch_size))

    def _smoothed(self, residual, sizes):
        """Smoothed residuals, a list of `[H, W]`."""
        if self.tiling is None:
            return list(np.asarray(maps.smooth(residual)))
        return [np.asarray(maps.smooth(one[np.newaxis]))[0] for one in images_of(residual, sizes)]

    def heatmap(self, residual: PixelArrays) -> Any:
        """Smoothed residuals on the scale of normal images.

        0: no more than 95% of the pixels of held-out normals show. 1/2: what only `false_positive_rate` of the held-out
        normals reach anywhere. 1: twice as far above.

        Args:
            residual: from `predict`: `[N, H, W, C]`, or a list of `[H, W, C]`.

        Returns:
            `[N, H, W]` in [0, 1], or a list of `[H, W]`.
        """
        if self.calibration is None:
            raise ValueError("The heatmap's scale comes from held-out normals: call calibrate() first.")
        if isinstance(residual, (list, tuple)):
            return [np.asarray(self.calibration.heatmap(one[np.newaxis]))[0] for one in residual]
        return np.asarray(self.calibration.heatmap(residual))

    def export(self, base: PathLike, threshold: float | None = None, warm_up: Sequence[int] = WARM_UP) -> Path:
        """Write a SavedModel that TensorFlow Serving runs, search included, as the next version below `base`.

        Its signatures (`anogan_tf.serving.SIGNATURES`) take pixels or encoded pictures of any size, and give what `predict`
        gives; `export/README.md` describes them. A row that is no image comes back with `valid` false and `is_anomaly` true.

        Args:
            base: the folder of versions: `base/1`, `base/2`, ...
            threshold: scores above it are anomalous; by default the calibrated one.
            warm_up: numbers of images in the requests that the server warms each signature up with; `()` for none. With many
                steps at a large size that takes the server minutes.

        Returns:
            The path of the version's folder.

        Raises:
            ValueError: without a threshold, or when the settings are not those that were calibrated.
        """
        self._check_calibrated_settings()
        threshold = self.threshold if threshold is None else float(threshold)
        if threshold is None:
            raise ValueError("The detector has no threshold: call calibrate() before export(), or pass threshold=.")
        if not abs(threshold) <= float(np.finfo(np.float32).max):
            raise ValueError(f"threshold={threshold} must be a finite number, of float32.")
        # A server has no XLA, whatever this device has.
        score = functools.partial(self._score, self._build_search(jit_compile=False))
        model = ServedModel(score, self.preparation, self.calibration, threshold, self.image_shape if self.tiling else None)
        return write_saved_model(model, base, warm_up)

    def _critic(self):
        """What judges G(z) in the search: the feature extractor, or the logits for the reference loss."""
        if self.settings.loss == "reference":
            return self.discriminator
        return networks.feature_extractor(self.discriminator, self.features)

    def make_predict_function(self, force=False):
        """Keras calls this before `predict`; its own function would be traced for each of the first two numbers of images."""
        if self.predict_function is None or force:
            self._ready_search()
            answer = tf.function(self._answer, input_signature=self._prepared_rows, autograph=False)

            def predict(batches):
                return answer(*keras.utils.unpack_x_y_sample_weight(batches[0])[0])

            self.predict_function = predict
        return self.predict_function

    def _ready_search(self):
        """`search` with this detector's networks, as copies made for it, its settings and compiled stages."""
        if self._search is None:
            if not tf.executing_eagerly():
                raise RuntimeError("Score a batch with predict() before a tf.function calls the detector: it isn't ready yet.")
            self._search = self._build_search(self._jit_compiled())
        return self._search

    def _build_search(self, jit_compile):
        precision = self.settings.precision
        generator, critic = (for_inference(network, precision) for network in (self.generator, self._critic()))
        encoder = self.encoder and for_inference(self.encoder, precision)
        self._surprise = self._build_surprise()
        searched = Networks(generator, critic, encoder, self._whitening())
        compiled = None if self.settings.block is None else compile_stages(searched, self.settings, jit_compile)
        return functools.partial(search, searched, settings=self.settings, compiled=compiled)

    def _build_surprise(self):
        """How surprised the discriminator is by transforms of images `[B, H, W, C]`, a function to `[B]`; None if not asked."""
        if self.classifier is None or self.settings.score != "complexity" or not self.settings.surprise:
            return None
        parts = (networks.feature_extractor(self.discriminator), self.classifier)
        extractor, classifier = (for_inference(network, self.settings.precision) for network in parts)
        tables = transform_tables(*self.image_shape[:2])

        def surprise(images):
            def of_one(number):
                numbers = tf.fill(tf.shape(images)[:1], number)
                features = extractor(transform(images, tf.constant(tables), numbers), training=False)
                return losses.transform_loss(classifier(features, training=False), numbers)

            each = tf.map_fn(
                of_one, tf.range(len(tables)), fn_output_signature=tf.TensorSpec(images.shape[:1]), parallel_iterations=1
            )
            return tf.reduce_mean(each, axis=0)

        return surprise

    @property
    def _remembers(self):
        return self.memory is not None and self.settings.score == "complexity" and self.settings.neighbours > 0.0

    def _whitening(self):
        if not (self.settings.whiten and self.settings.steps):
            return None
        if self._basis is None:
            searched = Networks(self.generator, self._critic())
            self._basis = whitening_basis(searched, self.generator.input_shape[-1], self.settings)
        return tf.constant(self._basis)

    def _jit_compiled(self):
        if self.search_jit_compile == "auto":
            return bool(tf.config.list_logical_devices("GPU"))
        return self.search_jit_compile

    def _check_calibrated_settings(self):
        if self.calibration is None:
            if self.settings.score == "complexity":
                raise ValueError(
                    "score='complexity' is relative to held-out normal images: call calibrate() first, or take score='loss'."
                )
            return
        now = dataclasses.asdict(self.settings)
        changed = {name: value for name, value in self.calibration.settings.items() if now.get(name) != value}
        if changed:
            was = ", ".join(f"{name}={value!r} (now {now.get(name)!r})" for name, value in changed.items())
            raise ValueError(
                f"The calibration was made with {was} and doesn't hold any more. Call calibrate() again, "
                "or set `detector.calibration = None` to have losses without a threshold."
            )

    def _forget_graphs(self):
        """Settings and calibration are constants of the traced graphs."""
        self._search = self._surprise = None
        self.predict_function = None

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            **self.parts_config(),
            "tiling": self.tiling and dataclasses.asdict(self.tiling),
            "features": self.features,
            "jit_compile": self.search_jit_compile,
            "starts": self._starts.tolist(),
            "basis": self._basis is not None and self._basis.tolist(),
            "calibration": self.calibration and self.calibration.get_config(),
            **dataclasses.asdict(self.settings),
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        starts, basis, calibration = (config.pop(name) for name in ("starts", "basis", "calibration"))
        config["tiling"] = config["tiling"] and Tiling(**config["tiling"])
        detector = super().from_config(config)
        # As they were when the detector was made: another device may draw with another last bit.
        detector._starts = np.asarray(starts, np.float32).reshape(-1, detector.generator.input_shape[-1])
        detector._basis = np.asarray(basis, np.float32) if basis else None
        detector.calibration = calibration and Calibration.from_config(calibration)
        return detector


def _differ(before, after, names):
    return before is None or any(getattr(before, name) != getattr(after, name) for name in names)
