"""Images of a source through a detector, some at a time, and its answers as text."""

from anogan_tf.data import sources
from anogan_tf.data.batching import batch_by_pixels, pad_and_stack, unpad
from anogan_tf.detection.detector import OF_IMAGE_SIZE

FILES_AT_ONCE = 64  # rows are written and the progress bar moves so often; fewer would leave rows of a block without work


SCORE_COLUMNS = ("score", "residual_score", "discrimination_score", "p_value", "label")


ANOMALY = "anomaly"  # the label of an image whose score is above the threshold


def score_batches(detector, source, rows, skipped, display_side=0, strict=False, on_progress=lambda: None):
    """Score images of a source, some at a time.

    Args:
        detector, source, rows, strict: as for `score_files`.
        skipped: a list, to which the `DecodedImage`s that can't be read are added.
        display_side: as for `image_dataset`.
        on_progress: called for each image that can't be read.

    Yields:
        `(samples, results)`: a list of `Sample`; what `predict_prepared` gives, of which what has an image's size is a list of
        images or maps of their own sizes.
    """
    samples = sources.read_samples(source, detector.preprocessing, rows, display_side, strict)
    for batch in batch_by_pixels(sources.readable(samples, skipped, on_progress), FILES_AT_ONCE, lambda sample: sample.image):
        images, sizes = pad_and_stack([sample.image for sample in batch])
        results = detector.predict_prepared(images, sizes)
        yield batch, {name: unpad(value, sizes) if name in OF_IMAGE_SIZE else value for name, value in results.items()}


def score_columns(results, row):
    """One row of `AnoGAN.predict` as text, in the order of `SCORE_COLUMNS`."""
    label = ANOMALY if results["is_anomaly"][row] else "normal"
    return (*(f"{results[column][row]:.6g}" for column in SCORE_COLUMNS[:-1]), label)
