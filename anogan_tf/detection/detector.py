"""The detector: how anomalous an image is, and where (AnoGAN, Schlegl et al. 2017)."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from anogan_tf.data.batching import join_outputs, prepared_batches, unpad, with_sizes
from anogan_tf.data.pixel_checks import check_input
from anogan_tf.data.preprocessing import Preprocessing, in_one_line
from anogan_tf.detection.anomaly_map import TermMaps
from anogan_tf.detection.calibration import FALSE_POSITIVE_RATE, Calibration, CalibrationRun, check_count
from anogan_tf.detection.memory_bank import MemoryBank
from anogan_tf.detection.patch_memory import PatchMemory
from anogan_tf.detection.scorer import Scorer
from anogan_tf.detection.terms import (
    ScoreSettings,
    TermBuilder,
    pretext_loss,
    split_settings,
)
from anogan_tf.detection.tiling import Tiling
from anogan_tf.networks import architectures
from anogan_tf.networks.comparator import check_comparator, patch_features, sees_reconstruction
from anogan_tf.runtime.backend import keras
from anogan_tf.runtime.models import SavableModel, unavailable
from anogan_tf.runtime.types import Array, PathLike, PixelArrays
from anogan_tf.search.search import sample_starts
from anogan_tf.search.searcher import Searcher, estimate_basis
from anogan_tf.search.settings import ExecutionSettings, SearchSettings
from anogan_tf.serving.saved_model import FORMAT, MAX_PIXELS, ServedModel, write_saved_model
from anogan_tf.serving.warmup import BATCH_SIZES as WARM_UP

OF_IMAGE_SIZE = ("residual", "reconstruction", "anomaly_map")  # of `predict`'s outputs those that have an image's size
BASIS_SETTINGS = ("prior", "seed", "loss", "weight", "kappa")  # what whitened coordinates depend on
SCORING_BATCH = 256  # enough that rows that finish early find others waiting
INSTEAD = "a detector has nothing to train; train a GAN and an EncoderTrainer, then take AnoGAN.from_gan"


@keras.saving.register_keras_serializable("anogan_tf")
class AnoGAN(SavableModel):
    """Searches the latent space for each image and scores what the search can't explain.

    >>> detector = AnoGAN.from_gan(gan, weight=0.1, steps=500)
    >>> detector.calibrate(held_out_normals, false_positive_rate=0.05)
    >>> out = detector.predict(queries)
    >>> out["score"], out["is_anomaly"], out["residual"]

    The search works on copies of the networks, taken when the first image is scored: weights set after that have no effect.
    Settings stay as they are: `with_settings` makes another detector.

    Args:
        generator: `[N, latent_dim]` to `[N, H, W, C]` in [-1, 1].
        discriminator: `[N, H, W, C]` to `[N, 1]` logits, with a layer named `features`.
        encoder: `[N, H, W, C]` to `[N, latent_dim]`, as `EncoderTrainer` trains it; with one the mode is "refine" unless
            another is given, without one it is "search".
        preprocessing: a `Preprocessing`; by default the one for the networks' image shape.
        classifier: from the discriminator's features to which transform an image has been through, as a `GAN` with
            `self_supervision` trains it.
        memory_bank: a `MemoryBank` of normal images, of the networks' shape.
        comparator: from what `comparator_input` makes of an image, or of its tiles, to a logit for each pixel: as a
            `ComparatorTrainer` trains it. It counts in the score "complexity", and then makes the anomaly maps.
        patch_memory: a `PatchMemory` of normal images as this comparator describes them.
        tiling: a `Tiling` where the networks see only tiles of the images that the preprocessing makes, which may be larger and
            differ in size. Each image has one score, and maps of its size.
        features: name of the discriminator's layer that the discrimination loss compares.
        **settings: fields of `SearchSettings`, `ScoreSettings` and `ExecutionSettings`: mode, weight, steps, score, block, ...

    Raises:
        TypeError: for a setting that there isn't.
        ValueError: for networks that don't fit together, and settings that make no sense.
    """

    PARTS = (
        "generator",
        "discriminator",
        "encoder",
        "preprocessing",
        "classifier",
        "memory_bank",
        "comparator",
        "patch_memory",
    )
    predict_function: Any  # Keras's, made by `make_predict_function`

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        encoder: keras.Model | None = None,
        preprocessing: Preprocessing | None = None,
        classifier: keras.Model | None = None,
        memory_bank: MemoryBank | None = None,
        comparator: keras.Model | None = None,
        patch_memory: PatchMemory | None = None,
        *,
        tiling: Tiling | None = None,
        features: str = architectures.FEATURES,
        name: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(name=name, autocast=False)
        generator = architectures.as_functional(generator, "generator")
        discriminator = architectures.as_functional(discriminator, "discriminator")
        encoder = encoder and architectures.as_functional(encoder, "encoder")
        self.image_shape = architectures.check_pair(generator, discriminator, features)
        self.generator, self.discriminator, self.encoder = generator, discriminator, encoder
        self.classifier, self.memory_bank = classifier, memory_bank
        if encoder is not None:
            architectures.check_encoder(encoder, generator)
        if memory_bank is not None:
            _check_memory_bank(memory_bank, self.image_shape)
        self.preprocessing = preprocessing or Preprocessing(self.image_shape)
        self._tiling = tiling
        if tiling is None:
            architectures.check_prepared(self.preprocessing, self.image_shape)
        else:
            tiling.check(min(self.image_shape[:2]))
            architectures.check_tiled(self.preprocessing, self.image_shape)
        self.comparator = comparator and architectures.as_functional(comparator, "comparator")
        self.patch_memory = patch_memory
        _check_comparator(self)
        self.features = features
        routed = split_settings({"mode": "search" if encoder is None else "refine", **settings})
        self._search_settings, self._score_settings, self._execution = routed
        if self._search_settings.mode != "search" and encoder is None:
            mode = self._search_settings.mode
            raise ValueError(f"mode={mode!r} needs an encoder: train one with `EncoderTrainer` and pass it as encoder=.")
        # Keras would hand `predict` as a whole to XLA, which compiles anew for each number of images.
        self.jit_compile = False
        self._starts = np.asarray(sample_starts(self._search_settings, generator.input_shape[-1]))
        self._basis: np.ndarray | None = None
        self._calibration: Calibration | None = None
        self._scorer: Scorer | None = None
        self.built = True

    @classmethod
    def from_gan(cls, gan: keras.Model, encoder: keras.Model | None = None, **options: Any) -> "AnoGAN":
        """A detector with a copy of a trained GAN's networks, its preprocessing and its prior.

        A copy, so that training on doesn't change a detector that is calibrated already.

        Args:
            gan: a `GAN`.
            encoder: the `encoder` of an `EncoderTrainer` of this GAN, where there is one; it is copied too.
            **options: as for `AnoGAN`: generator (in place of the GAN's), comparator (both are copied), memory_bank, weight,
                steps, restarts, tiling, preprocessing (by default the GAN's, and with a tiling the same for images of their own
                size), ...
        """
        generator = options.pop("generator", None) or gan.ema_generator
        parts = {"generator": generator, "discriminator": gan.discriminator, "encoder": encoder}
        parts |= {"classifier": gan.classifier}
        parts |= {"comparator": options.pop("comparator", None)}
        copies = {part: network and architectures.copy_network(network) for part, network in parts.items()}
        preprocessing = gan.preprocessing.copy(own_size=options.get("tiling") is not None)
        return cls(**copies, **{"preprocessing": preprocessing, "prior": gan.prior, **options})

    def with_settings(
        self,
        *,
        memory_bank: MemoryBank | None = None,
        comparator: keras.Model | None = None,
        patch_memory: PatchMemory | None = None,
        **changes: Any,
    ) -> "AnoGAN":
        """Another detector of the same networks, not calibrated.

        Args:
            memory_bank, comparator, patch_memory: as for the class, in place of this one's.
            **changes: of settings. With the mode changes whatever depends on it and isn't given.
        """
        names = {field.name for field in dataclasses.fields(SearchSettings)}
        search = self.search_settings.replace(**{name: value for name, value in changes.items() if name in names})
        others = {name: value for name, value in changes.items() if name not in names}
        settings = {**self._settings(), "jit_compile": self.execution.jit_compile, **dataclasses.asdict(search), **others}
        given = {"memory_bank": memory_bank, "comparator": comparator, "patch_memory": patch_memory}
        parts = {part: given.get(part) or getattr(self, part) for part in self.PARTS}
        other = type(self)(**parts, tiling=self.tiling, features=self.features, **settings)
        if all(getattr(search, name) == getattr(self.search_settings, name) for name in BASIS_SETTINGS):
            other._basis = self._basis
        return other

    @property
    def search_settings(self) -> SearchSettings:
        """The `SearchSettings`."""
        return self._search_settings

    @property
    def score_settings(self) -> ScoreSettings:
        """The `ScoreSettings`."""
        return self._score_settings

    @property
    def execution(self) -> ExecutionSettings:
        """The `ExecutionSettings`."""
        return self._execution

    @property
    def tiling(self) -> Tiling | None:
        """The `Tiling`, or None."""
        return self._tiling

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

    def _settings(self):
        """What a calibration holds for: every setting that can change a score's bits, by name."""
        execution = {"block": self.execution.block, "precision": self.execution.precision}
        return {**dataclasses.asdict(self.search_settings), **dataclasses.asdict(self.score_settings), **execution}

    def calibrate(
        self,
        normals: PixelArrays,
        false_positive_rate: float = FALSE_POSITIVE_RATE,
        batch_size: int = SCORING_BATCH,
        on_progress: Callable[..., Any] = lambda count: None,
    ) -> "AnoGAN":
        """Learn the threshold, p-values and the heatmaps' scale from normal images that were not trained on.

        A score s gets p = (1 + #{normals with s or more}) / (n + 1) and is anomalous when p <= false_positive_rate.

        Args:
            normals: pixels, as in `predict`; at least 1 / false_positive_rate - 1 images.
            false_positive_rate: share of normal images that may be called anomalous.
            batch_size: as in `predict`.
            on_progress: called with the number of images scored since the last call, for a progress display.

        Returns:
            The detector.

        Raises:
            ValueError: for pixels that can't be used, or too few images for the rate.
        """
        if hasattr(normals, "__len__") and not isinstance(normals, tf.data.Dataset):
            check_count(len(normals), false_positive_rate)
        batches = prepared_batches(normals, self.preprocessing, batch_size, "normals", self.tiling is not None)
        return self.calibrate_prepared(batches, false_positive_rate, on_progress)

    def calibrate_prepared(
        self,
        batches: Iterable[tuple[np.ndarray, np.ndarray]],
        false_positive_rate: float = FALSE_POSITIVE_RATE,
        on_progress: Callable[..., Any] = lambda count: None,
    ) -> "AnoGAN":
        """`calibrate` on images that the preprocessing has made already, batches as for `predict_prepared`."""
        return self.calibrate_across([(self, batches)], false_positive_rate, on_progress)

    def calibrate_across(
        self,
        folds: Iterable[tuple["AnoGAN", Iterable[tuple[np.ndarray, np.ndarray]]]],
        false_positive_rate: float = FALSE_POSITIVE_RATE,
        on_progress: Callable[..., Any] = lambda count: None,
    ) -> "AnoGAN":
        """Calibrate on images that this detector was trained on, each scored by another that was trained without it.

        So no image has to be kept from training (cross-conformal prediction, Vovk 2015, and CV+, Barber et al. 2021; here one
        detector, trained on all, scores what is new).

        Args:
            folds: detectors of the same settings, each with the batches of images that it wasn't trained on, as for
                `predict_prepared`.
            false_positive_rate, on_progress: as for `calibrate`.
        """
        run = CalibrationRun(self.score_settings, self.tiling, self.execution.block, self._make_scorer().map_terms is not None)
        for detector, batches in folds:
            measure = tf.function(detector._make_scorer().measure, input_signature=self._prepared_rows, autograph=False)
            for images, sizes in batches:
                terms, maps = measure(*with_sizes(images, sizes))
                run.update(terms, maps.numpy(), with_sizes(images, sizes)[1].numpy())
                on_progress(len(images))
        self.calibration = run.compute(self._settings(), false_positive_rate)
        return self

    def predict(
        self,
        x: PixelArrays | tf.data.Dataset,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        steps: int | None = None,
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
    ) -> dict[str, Any]:
        """Score images.

        Args:
            x: pixels: array `[N, h, w]` or `[N, h, w, c]` (uint8, uint16, or float in [0, 1]), a batched `tf.data.Dataset` of
                such, or a list of images `[h, w]` or `[h, w, c]` of any sizes.
            batch_size: images handed to the search at once, by default 256; it changes no result unless `block` is None. A
                dataset has its own.
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
            - `anomaly_map` `[N, H, W]`: where it is anomalous, the smoothed `residual`; in the score "complexity" of a
              detector with a `comparator` a sum in deviations of normal pixels, see `detection.anomaly_map`
            - `reconstruction` `[N, H, W, C]`: G(z) in [0, 1]
            - `z` `[N, latent_dim]`, `steps` `[N]`, `converged` `[N]`
            - once calibrated: `p_value` `[N]`, `is_anomaly` `[N]`

            Of a list, what has an image's size is a list. With a `tiling` they are stitched, the scores are
            means over the image's `top` tiles, `steps` is the most that a tile took, and there is no `z`.

        Raises:
            ValueError: for pixels that can't be used, for arguments that would be ignored, or when the settings are not those
                that were calibrated.
        """
        if isinstance(x, tf.data.Dataset) and batch_size is not None:
            raise ValueError(f"batch_size={batch_size} is for arrays and lists; a dataset has batches of its own.")
        check_input(x)
        batch_size = batch_size or SCORING_BATCH
        if isinstance(x, (list, tuple)) or self.tiling is not None:
            _refuse_ignored(verbose, steps, callbacks)
            return self._predict_images(x, batch_size)
        if not isinstance(x, tf.data.Dataset):
            x = tf.data.Dataset.from_tensor_slices(self.preprocessing.check(x, "x")).batch(batch_size)
        # Prepared before Keras sees them: after a few sizes it would trace `call` for unknown ones, channels included.
        x = x.map(lambda *batch: with_sizes(self.preprocessing(self.preprocessing.require_valid(batch[0]))))
        with in_one_line():
            return super().predict(x.map(lambda *batch: (batch,)), verbose=verbose, steps=steps, callbacks=callbacks)

    def _predict_images(self, x, batch_size):
        """`predict` for images of any sizes, or that are cut into tiles: some at a time."""
        outputs = []
        for images, sizes in prepared_batches(x, self.preprocessing, batch_size, "x", self.tiling is not None):
            out = self.predict_prepared(images, sizes)
            outputs.append({name: unpad(value, sizes) if name in OF_IMAGE_SIZE else value for name, value in out.items()})
        return join_outputs(outputs, OF_IMAGE_SIZE, as_list=isinstance(x, (list, tuple)))

    def predict_on_batch(self, x: Array) -> dict[str, Any]:
        """`predict` for one batch of pixels, without a progress bar."""
        if isinstance(x, (list, tuple)):
            return self._predict_images(x, len(x))
        return self.predict_prepared(self.preprocessing(self.preprocessing.check(x, "x")))

    def predict_prepared(self, images: Array, sizes: Array | None = None) -> dict[str, np.ndarray]:
        """`predict` for one batch of images that the detector's preprocessing has made already.

        Args:
            images: `[N, H, W, C]` in [-1, 1].
            sizes: for a detector with a `tiling`, `[N, 2]`, height and width of each image, where some are filled up at the
                bottom and on the right to H x W; the maps then hold 0 there.
        """
        return super().predict_on_batch(with_sizes(tf.convert_to_tensor(images), sizes))

    def call(self, pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        """`predict` for one batch of pixels, as a dict of tensors. NaN and floats outside [0, 1] are not looked for."""
        return self._answer(*with_sizes(self.preprocessing(pixels)))

    def truncated_search(self) -> Callable[..., dict[str, tf.Tensor]]:
        """`predict_prepared` of a search that ends after so many steps, without a calibration; traced once for all numbers.

        Returns:
            A function `(steps, images, sizes=None)` to a dict of tensors; `steps` is no more than the settings'.
        """
        scorer, count = self._make_scorer(), tf.TensorSpec((), tf.int32)

        @tf.function(input_signature=[count, *self._prepared_rows], autograph=False)
        def score(steps, images, sizes):
            return scorer.score(images, sizes, steps=steps)

        return lambda steps, images, sizes=None: score(steps, *with_sizes(tf.convert_to_tensor(images), sizes))

    def heatmap(self, anomaly_map: PixelArrays) -> Any:
        """Anomaly maps on the scale of normal images.

        0: no more than 95% of the pixels of held-out normals show. 1/2: what only `false_positive_rate` of the held-out
        normals reach anywhere. 1: twice as far above.

        Args:
            anomaly_map: from `predict`: `[N, H, W]`, or a list of `[H, W]`.

        Returns:
            `[N, H, W]` in [0, 1], or a list of `[H, W]`.

        Raises:
            ValueError: without a calibration, or for `residual` in its place.
        """
        if self.calibration is None:
            raise ValueError("The heatmap's scale comes from held-out normals: call calibrate() first.")
        if isinstance(anomaly_map, (list, tuple)):
            return [self.heatmap(np.asarray(one)[np.newaxis])[0] for one in anomaly_map]
        if np.ndim(anomaly_map) != 3:
            raise ValueError(f"heatmap() takes `anomaly_map` of predict(), [N, H, W], not {np.shape(anomaly_map)}.")
        return np.asarray(self.calibration.heatmap(anomaly_map))

    def export(
        self,
        filepath: PathLike,
        format: str = FORMAT,  # noqa: A002, as Keras calls it
        *,
        threshold: float | None = None,
        warm_up: Sequence[int] = WARM_UP,
        max_pixels: int = MAX_PIXELS,
        **kwargs: Any,
    ) -> Path:
        """Write a SavedModel that TensorFlow Serving runs, search included, as the next version below a folder.

        Its signatures (`serving.saved_model.SIGNATURES`) take pixels or encoded pictures of any size, and give what `predict`
        gives; `export/README.md` describes them. A row that is no image comes back with `valid` false and `is_anomaly` true.

        Args:
            filepath: the folder of versions: `filepath/1`, `filepath/2`, ...
            format: as in `keras.Model.export`; "tf_saved_model" is the only one there is.
            threshold: scores above it are anomalous; by default the calibrated one.
            warm_up: numbers of images in the requests that the server warms each signature up with; `()` for none. With many
                steps at a large size that takes the server minutes.
            max_pixels: that the encoded pictures of one request may have together. Those beyond it, in their order, come back
                with `valid` false and aren't decoded, which takes up to 34 bytes for each pixel of the largest picture.

        Returns:
            The path of the version's folder.

        Raises:
            ValueError: without a threshold, when the settings are not those that were calibrated, or for another format.
        """
        if format != FORMAT or kwargs:
            given = ", ".join(f"{name}={value!r}" for name, value in {"format": format, **kwargs}.items())
            raise ValueError(f"export({given}): a detector is exported as format={FORMAT!r}, with signatures of its own.")
        self._check_calibration()
        threshold = self.threshold if threshold is None else float(threshold)
        if threshold is None:
            raise ValueError("The detector has no threshold: call calibrate() before export(), or pass threshold=.")
        if not abs(threshold) <= float(np.finfo(np.float32).max):
            raise ValueError(f"threshold={threshold} must be a finite number, of float32.")
        # A server has no XLA, whatever this device has.
        scorer = self._build(dataclasses.replace(self.execution, jit_compile=False))

        def score(images, sizes):
            return scorer.score(images, sizes, *self._scales)

        tile = self.image_shape if self.tiling else None
        model = ServedModel(score, self.preprocessing, self.calibration, threshold, tile, max_pixels)
        return write_saved_model(model, filepath, warm_up)

    fit = unavailable("fit", INSTEAD)
    evaluate = unavailable("evaluate", "call anogan_tf.evaluate(detector, source) for labelled images")
    compile = unavailable("compile", INSTEAD)
    train_on_batch = unavailable("train_on_batch", INSTEAD)
    test_on_batch = unavailable("test_on_batch", "call anogan_tf.evaluate(detector, source) for labelled images")

    @property
    def _prepared_rows(self):
        """What functions of prepared images and their sizes take."""
        return [tf.TensorSpec((None, *self.preprocessing.image_shape)), tf.TensorSpec((None, 2), tf.int32)]

    def make_predict_function(self, force=False):
        """Keras calls this before `predict`; its own function would be traced for each of the first two numbers of images."""
        if self.predict_function is None or force:
            self._make_scorer()
            answer = tf.function(self._answer, input_signature=self._prepared_rows, autograph=False)

            def predict(batches):
                return answer(*keras.utils.unpack_x_y_sample_weight(batches[0])[0])

            self.predict_function = predict
        return self.predict_function

    def _answer(self, images, sizes):
        self._check_calibration()
        out = self._make_scorer().score(images, sizes, *self._scales)
        if self.calibration is not None:
            out["p_value"] = self.calibration.p_values(out["score"])
            out["is_anomaly"] = self.calibration.is_anomaly(out["score"])
        return out

    @property
    def _scales(self):
        """The `Complexity` and the `MapScale` of the calibration; None of what there isn't."""
        return (self.calibration.complexity, self.calibration.map_scale) if self.calibration else (None, None)

    def _make_scorer(self):
        """The `Scorer` of this detector, made when it is first asked for."""
        if self._scorer is None:
            if not tf.executing_eagerly():
                raise RuntimeError("Score a batch with predict() before a tf.function calls the detector: it isn't ready yet.")
            self._scorer = self._build(self.execution)
        return self._scorer

    def _build(self, execution):
        if self._basis is None:
            self._basis = estimate_basis(self.generator, self.discriminator, self.search_settings, self.features)
        options = {"features": self.features, "starts": self._starts, "basis": self._basis}
        parts = (self.generator, self.discriminator, self.encoder, self.search_settings, execution)
        pretext = None
        if self.classifier is not None and self.score_settings.score == "complexity" and self.score_settings.pretext:
            pretext = pretext_loss(self.discriminator, self.classifier, self.image_shape, execution.precision)
        terms = TermBuilder(self.score_settings, execution.block, pretext, self.memory_bank)
        searcher, map_terms = Searcher.build(*parts, **options), None
        if self.comparator is not None and self.score_settings.score == "complexity":
            seen = (self.comparator, self.patch_memory, self.tiling, self.image_shape, execution)
            map_terms = TermMaps(*seen, searcher.reconstruct if self.encoder is not None else None)
        return Scorer(searcher, terms, self.tiling, self.image_shape, map_terms)

    def _check_calibration(self):
        """Raise a ValueError unless the calibration is there where it is needed, and holds for these settings."""
        if self.calibration is None:
            if self.score_settings.score == "complexity":
                raise ValueError(
                    "score='complexity' is relative to held-out normal images: call calibrate() first, or take score='loss'."
                )
            return
        now = self._settings()
        changed = {name: value for name, value in self.calibration.settings.items() if now.get(name) != value}
        if changed:
            was = ", ".join(f"{name}={value!r} (now {now.get(name)!r})" for name, value in changed.items())
            raise ValueError(
                f"The calibration was made with {was} and doesn't hold here. Call calibrate() again, "
                "or set `detector.calibration = None` to have losses without a threshold."
            )

    def get_config(self) -> dict[str, Any]:
        """What the detector is made of, ready for JSON."""
        return {
            "name": self.name,
            **self.parts_config(),
            "tiling": self.tiling and dataclasses.asdict(self.tiling),
            "features": self.features,
            "starts": self._starts.tolist(),
            "basis": None if self._basis is None else self._basis.tolist(),
            "calibration": self.calibration and self.calibration.get_config(),
            **self._settings(),
            "jit_compile": self.execution.jit_compile,
        }

    @classmethod
    def from_config(cls, config):
        """From what `get_config` gave."""
        config = dict(config)
        starts, basis, calibration = (config.pop(name) for name in ("starts", "basis", "calibration"))
        config["tiling"] = config["tiling"] and Tiling(**config["tiling"])
        detector = super().from_config(config)
        # As they were when the detector was made: another device may draw with another last bit.
        detector._starts = np.asarray(starts, np.float32).reshape(-1, detector.generator.input_shape[-1])
        detector._basis = None if basis is None else np.asarray(basis, np.float32)
        detector.calibration = calibration and Calibration.from_config(calibration)
        return detector


def _refuse_ignored(verbose, steps, callbacks):
    """Raise a ValueError for arguments of `predict` that mean nothing for lists and tiles."""
    given = {"verbose": verbose if verbose not in ("auto", 0) else None, "steps": steps, "callbacks": callbacks}
    if ignored := [f"{name}=" for name, value in given.items() if value is not None]:
        raise ValueError(f"{', '.join(ignored)} is for arrays and datasets of images that aren't cut into tiles; leave it out.")


def _check_comparator(detector):
    """Raise a ValueError unless a detector's comparator and its patch memory fit each other and the images."""
    comparator, memory, tiling = detector.comparator, detector.patch_memory, detector.tiling
    if comparator is None:
        if memory is not None:
            raise ValueError("A patch_memory holds what a comparator says of patches: pass comparator= too.")
        return
    channels = detector.image_shape[-1]
    seen = sees_reconstruction(comparator, channels)
    if seen and (tiling is not None or detector.encoder is None):
        raise ValueError("The comparator sees G(E(x)): the detector needs an encoder, and can't cut images into tiles.")
    shape = detector.image_shape if tiling is None else (tiling.context, tiling.context, channels)
    check_comparator(comparator, shape, seen)
    features = patch_features(comparator).output_shape[1][-1]
    if memory is not None and memory.features != features:
        raise ValueError(f"The patch memory is of {memory.features} features; the comparator gives {features}.")


def _check_memory_bank(memory_bank, image_shape):
    if not isinstance(memory_bank, MemoryBank):
        raise TypeError(f"memory_bank={memory_bank!r} must be a MemoryBank: MemoryBank.of(gan.preprocessing(normals)).")
    if memory_bank.image_shape != image_shape:
        raise ValueError(f"The memory bank is of images {memory_bank.image_shape}; the networks' are {image_shape}.")
