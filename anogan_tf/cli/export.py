"""`anogan export`: a model file to a SavedModel for TensorFlow Serving."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from anogan_tf.cli.console import console, errors, given, held_back_stderr, loading
from anogan_tf.cli.options import Model


def export(
    model: Model,
    base: Annotated[Path, typer.Argument(help="The folder of versions that TensorFlow Serving watches: BASE/1, BASE/2, ...")],
    threshold: Annotated[
        Optional[float], typer.Option(show_default="the calibrated one", help="Scores above it are anomalous.")
    ] = None,
    warm_up: Annotated[
        bool, typer.Option("--warm-up/--no-warm-up", help="Requests by which the server warms up before it answers.")
    ] = True,
    max_pixels: Annotated[
        Optional[int],
        typer.Option(
            min=1, show_default="268 million", help="That the pictures of one request may have together; the server's memory."
        ),
    ] = None,
):
    """Write a SavedModel, search included, that TensorFlow Serving runs: the next version below BASE."""
    with errors():
        if base.exists() and not base.is_dir():
            raise ValueError(f"{base} is a file; name a folder.")
        with loading():
            from anogan_tf.detection.detector import AnoGAN
            from anogan_tf.serving.description import FILE
        detector = AnoGAN.load(model)
        if detector.threshold is None and threshold is None:
            raise ValueError(
                f"{model} has no threshold: give one with --threshold, or call calibrate() in Python and save it again."
            )
        with held_back_stderr():
            version = detector.export(base, threshold=threshold, **given(warm_up=None if warm_up else (), max_pixels=max_pixels))
        console.print(f"Wrote {version}. Point TensorFlow Serving's model_base_path at {base.resolve()}.", highlight=False)
        console.print(
            f"{version / FILE} says what its inputs and outputs mean, and how many pixels a request may have.", highlight=False
        )
