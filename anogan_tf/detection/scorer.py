"""What a detector calculates of prepared images: the search, the terms of the score, maps. TensorFlow operations only."""

from typing import Any, NamedTuple

import tensorflow as tf

from anogan_tf.data.preprocessing import to_pixels
from anogan_tf.detection import maps
from anogan_tf.detection.terms import ScoreTerms, TermBuilder, pool_scores, whole_images
from anogan_tf.detection.tiling import TileGrid, Tiling, extract_tiles, pool, stitch, tile_grid
from anogan_tf.search.search import SearchResult
from anogan_tf.search.searcher import Searcher


class Found(NamedTuple):
    """What a search found of images, or of their tiles."""

    images: tf.Tensor
    grid: TileGrid | None
    result: SearchResult
    terms: ScoreTerms


class Scorer(NamedTuple):
    """From prepared images to scores and maps. `predict`, `calibrate` and an exported graph all go through it.

    Attributes:
        searcher: a `Searcher`.
        build_terms: a `TermBuilder`.
        tiling: a `Tiling`, or None.
        image_shape: `(H, W, C)` of the networks.
    """

    searcher: Searcher
    build_terms: TermBuilder
    tiling: Tiling | None
    image_shape: tuple

    def find(self, images, sizes, steps=None):
        """Search.

        Args:
            images: `[N, H, W, C]` in [-1, 1].
            sizes: `[N, 2]`, how much of each is image; it matters only with a tiling.
            steps: fewer steps than the settings', or None.

        Returns:
            `Found`.
        """
        grid = None
        if self.tiling is None:
            borders, segment_ids = whole_images(images)
        else:
            shape = tuple(tf.unstack(tf.shape(images)[:3]))
            grid = tile_grid(sizes, shape, self.image_shape[:2], self.tiling.stride)
            images, borders, segment_ids = extract_tiles(images, grid), grid.borders, grid.segment_ids
        result = self.searcher(images, steps=steps)
        return Found(images, grid, result, self.build_terms(images, result, borders, segment_ids))

    def measure(self, images, sizes):
        """What calibrating needs, `(ScoreTerms, residual images [N, H, W, C])`; arguments as for `find`."""
        found = self.find(images, sizes)
        return found.terms, _residual(found)

    def score(self, images, sizes, complexity=None, steps=None) -> dict[str, Any]:
        """Scores and maps as `AnoGAN.predict` gives them, without p-values.

        Args:
            images, sizes, steps: as for `find`.
            complexity: the `Complexity` that scores are relative to, or None.
        """
        found = self.find(images, sizes, steps)
        result, grid = found.result, found.grid
        score, weights = pool_scores(found.terms, complexity, self.tiling, self.searcher.execution.block)
        out = {"score": score, "residual": _residual(found)}
        losses = {"residual_score": result.residual_loss, "discrimination_score": result.discrimination_loss}
        reconstruction = to_pixels(result.reconstruction)
        if grid is None:
            out |= {**losses, "reconstruction": reconstruction, "z": result.z}
            return {**out, "steps": result.steps, "converged": result.converged}
        return {
            **out,
            **{name: pool(values, weights, grid.segment_ids) for name, values in losses.items()},
            "reconstruction": stitch(reconstruction, grid),
            "steps": tf.math.segment_max(result.steps, grid.segment_ids),
            "converged": tf.math.segment_min(tf.cast(result.converged, tf.int32), grid.segment_ids) > 0,
        }


def _residual(found):
    """The residual images `[N, H, W, C]` of what was found."""
    residual = maps.residual_image(found.images, found.result.reconstruction)
    return residual if found.grid is None else stitch(residual, found.grid)
