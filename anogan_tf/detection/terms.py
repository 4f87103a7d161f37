"""What a score is made of: its settings, its terms for each image or tile, and how they become one number for an image.

A new term is a field of `ScoreTerms`, a part of `TermBuilder` and a summand of `Complexity`.
"""

import dataclasses
from typing import Any, NamedTuple

import tensorflow as tf

from anogan_tf.detection import maps
from anogan_tf.detection.anomaly_map import TERMS
from anogan_tf.detection.complexity import ALL_BORDERS, image_complexity
from anogan_tf.detection.tiling import pool, top_k_weights
from anogan_tf.networks import losses
from anogan_tf.networks.architectures import feature_extractor
from anogan_tf.networks.inference import for_inference
from anogan_tf.networks.pretext import transform, transform_tables
from anogan_tf.search.blocks import map_blocks
from anogan_tf.search.settings import ExecutionSettings, SearchSettings, check_choice, non_negative

SCORES = ("loss", "complexity", "peak")


@dataclasses.dataclass(frozen=True)
class ScoreSettings:
    """What a score is. It is saved, calibrated and exported with the detector.

    Attributes:
        score: what is reported, the "loss" of the returned z (the paper's A); by how much it exceeds that of normal images as
            busy as this one, "complexity", see `complexity.Complexity`; or the "peak" of the smoothed residual, for defects so
            small that they are lost in a sum over the image.
        pretext: weight of the discriminator's loss in its pretext task in the score "complexity", where it was trained with
            `self_supervision`.
        neighbours: weight of the distance to the nearest normal images in the score "complexity", for a detector with a
            `memory_bank`.
        complexity_deviation: weight in the score "complexity" of how far the complexity itself lies from that of normal images,
            either way.
        anomaly_map: weight in the score "complexity" of what the anomaly map comes to, for a detector with a `comparator`; with a
            `tiling` that is the score, unless the weight is 0.
        logits, patches, relative_residual: weights of the three summands of that map, see `anomaly_map`.

    Raises:
        ValueError: for a setting that makes no sense, naming it.
    """

    score: str = "loss"
    pretext: float = 1.0
    neighbours: float = 1.0
    complexity_deviation: float = 0.0
    anomaly_map: float = 1.0
    logits: float = 1.0
    patches: float = 1.0
    relative_residual: float = 0.5

    def __post_init__(self):
        check_choice("score", self.score, SCORES)
        for name in (*self.weights, *self.map_weights):
            object.__setattr__(self, name, non_negative(name, getattr(self, name)))

    @property
    def weights(self) -> dict[str, float]:
        """The weights of what may be added to the loss above its line, by name."""
        return {name: getattr(self, name) for name in ("pretext", "neighbours", "complexity_deviation", "anomaly_map")}

    @property
    def map_weights(self) -> dict[str, float]:
        """The weights of the summands of the anomaly map, by name."""
        return {name: getattr(self, name) for name in TERMS}


def split_settings(settings: dict[str, Any]) -> tuple[SearchSettings, ScoreSettings, ExecutionSettings]:
    """The settings of a search, of its score and of its execution, from one dict of the fields of all three.

    Raises:
        TypeError: for a name that is none of their fields.
        ValueError: for a setting that makes no sense.
    """
    kinds = (SearchSettings, ScoreSettings, ExecutionSettings)
    names = {kind: [field.name for field in dataclasses.fields(kind)] for kind in kinds}
    known = sorted(name for fields in names.values() for name in fields)
    if unknown := sorted(settings.keys() - set(known)):
        raise TypeError(f"{', '.join(unknown)}: no such setting; there are {', '.join(known)}.")
    given = {kind: {name: settings[name] for name in fields if name in settings} for kind, fields in names.items()}
    return (
        SearchSettings(**given[SearchSettings]),
        ScoreSettings(**given[ScoreSettings]),
        ExecutionSettings(**given[ExecutionSettings]),
    )


class ScoreTerms(NamedTuple):
    """What the scores of T images, or tiles of them, are made of. What isn't asked for is None.

    Attributes:
        loss: `[T]`, of the search, or the peak of the smoothed residual.
        complexity: `[T]`, see `image_complexity`.
        borders: `[T]` int32, see `TileGrid`; `ALL_BORDERS` for whole images.
        pretext: `[T]`, the discriminator's loss in its pretext task.
        neighbours: `[T]`, distances to the nearest images of the memory bank.
        segment_ids: `[T]` int32, ascending: which image each is of.
    """

    loss: Any
    complexity: Any
    borders: Any
    pretext: Any
    neighbours: Any
    segment_ids: Any

    def columns(self):
        """What `Complexity` takes, by name; without what is None."""
        return {name: value for name, value in self._asdict().items() if name != "segment_ids" and value is not None}


class TermBuilder:
    """From images and what a search found to `ScoreTerms`, in blocks of rows: an image's terms don't depend on its company.

    Args:
        settings: `ScoreSettings`.
        block: as in `ExecutionSettings`.
        pretext: from images `[B, H, W, C]` to their pretext loss `[B]`, see `pretext_loss`; or None.
        memory_bank: a `MemoryBank`, or None.
    """

    def __init__(self, settings, block, pretext=None, memory_bank=None):
        relative = settings.score == "complexity"
        self._peak, self._relative, self._block = settings.score == "peak", relative, block
        self._pretext = pretext if relative and settings.pretext else None
        self._memory_bank = memory_bank if relative and settings.neighbours else None

    def __call__(self, images, result, borders, segment_ids):
        """The terms of images `[T, H, W, C]` in [-1, 1] with the `SearchResult` of their search."""
        return ScoreTerms(
            loss=self._in_blocks(maps.peak, images, result.reconstruction) if self._peak else result.loss,
            complexity=self._in_blocks(image_complexity, images) if self._relative else None,
            borders=borders,
            pretext=self._pretext and self._in_blocks(self._pretext, images),
            neighbours=self._memory_bank and self._in_blocks(self._memory_bank, images),
            segment_ids=segment_ids,
        )

    def _in_blocks(self, function, *rows):
        return map_blocks(function, rows, self._block)


def whole_images(images):
    """`(borders, segment_ids)` of images `[N, H, W, C]` that aren't cut into tiles."""
    segment_ids = tf.range(tf.shape(images)[0])
    return tf.fill(tf.shape(segment_ids), ALL_BORDERS), segment_ids


def pool_scores(terms, complexity, tiling, block, mapped=None):
    """Scores of images from the terms of themselves, or of their tiles.

    Args:
        terms: `ScoreTerms`.
        complexity: a `Complexity`, or None for scores that are losses.
        tiling: a `Tiling`, or None.
        block: as in `ExecutionSettings`.
        mapped: `[N]`, what the anomaly maps of the images come to, where they count.

    Returns:
        `(scores [N], weights [T])`, the weights of `top_k_weights`, or None without a tiling.
    """
    scores = terms.loss
    if complexity is not None:
        columns = terms.columns()
        # In blocks: a logarithm's last bit depends on how many are taken at once.
        scores = map_blocks(lambda *rows: complexity.score_tiles(**dict(zip(columns, rows))), tuple(columns.values()), block)
    weights = None
    if tiling is not None:
        weights = top_k_weights(scores, terms.segment_ids, tiling.top)
        scores = pool(scores, weights, terms.segment_ids)
    return (scores if complexity is None else complexity.normalize(scores, mapped)), weights


def pretext_loss(discriminator, classifier, image_shape, precision):
    """How badly a discriminator tells the transforms of images apart, a function of images `[B, H, W, C]` to `[B]`.

    Args:
        discriminator, classifier: as a `GAN` with `self_supervision` trains them; they are copied.
        image_shape: `(H, W, C)`.
        precision: as in `ExecutionSettings`.
    """
    parts = (feature_extractor(discriminator), classifier)
    extractor, classifier = (for_inference(network, precision) for network in parts)
    tables = transform_tables(*image_shape[:2])

    def mean_loss(images):
        def of_one(number):
            numbers = tf.fill(tf.shape(images)[:1], number)
            features = extractor(transform(images, tf.constant(tables), numbers), training=False)
            return losses.transform_loss(classifier(features, training=False), numbers)

        each = tf.map_fn(
            of_one, tf.range(len(tables)), fn_output_signature=tf.TensorSpec(images.shape[:1]), parallel_iterations=1
        )
        return tf.reduce_mean(each, axis=0)

    return mean_loss
