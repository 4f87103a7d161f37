"""What a detector calculates of prepared images: the search, the terms of the score, maps. TensorFlow operations only."""

from typing import Any, NamedTuple

import tensorflow as tf

from anogan_tf.data.preprocessing import to_pixels
from anogan_tf.detection import maps
from anogan_tf.detection.anomaly_map import TermMaps, map_each, smoothed_residual
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
        map_terms: the `TermMaps` of a detector whose anomaly maps are a comparator's, or None for smoothed residuals.
    """

    searcher: Searcher
    build_terms: TermBuilder
    tiling: Tiling | None
    image_shape: tuple
    map_terms: TermMaps | None = None

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
        """What calibrating needs, `(ScoreTerms, maps)` as `CalibrationRun.update` takes them; arguments as for `find`."""
        found = self.find(images, sizes)
        if self.map_terms is None:
            return found.terms, self._each(smoothed_residual, _residual(found), sizes)[0]
        return found.terms, self.map_terms(images, sizes, _residual(found))

    def score(self, images, sizes, complexity=None, map_scale=None, steps=None) -> dict[str, Any]:
        """Scores and maps as `AnoGAN.predict` gives them, without p-values.

        Args:
            images, sizes, steps: as for `find`.
            complexity: the `Complexity` that scores are relative to, or None.
            map_scale: the `MapScale` of anomaly maps, where they are a comparator's.
        """
        found = self.find(images, sizes, steps)
        result, grid, residual = found.result, found.grid, _residual(found)
        mapped = None
        if map_scale is None or self.map_terms is None:
            anomaly_map, _ = self._each(smoothed_residual, residual, sizes)
        else:
            anomaly_map, mapped = self._each(map_scale.combine, self.map_terms(images, sizes, residual), sizes)
        score, weights = pool_scores(found.terms, complexity, self.tiling, self._block, mapped)
        out = {"score": score, "residual": residual, "anomaly_map": anomaly_map[..., 0]}
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

    @property
    def _block(self):
        return self.searcher.execution.block

    def _each(self, function, rows, sizes):
        return map_each(function, (rows,), sizes, self.tiling, self._block, 1)


def _residual(found):
    """The residual images `[N, H, W, C]` of what was found."""
    residual = maps.residual_image(found.images, found.result.reconstruction)
    return residual if found.grid is None else stitch(residual, found.grid)
