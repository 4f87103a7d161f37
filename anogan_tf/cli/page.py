"""`anogan app`: a page to try a model on."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from anogan_tf.cli.console import errors, load_calibrated, loading
from anogan_tf.cli.options import Model


def serve_page(
    model: Model,
    examples: Annotated[
        Optional[Path], typer.Option(show_default="none", help="A folder of pictures to choose from; a dozen of them are shown.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to answer on; 0.0.0.0 lets other machines ask.")] = "127.0.0.1",
    port: Annotated[
        Optional[int], typer.Option(min=1, max=65535, show_default="the first free one from 7860 on", help="The port.")
    ] = None,
):
    """Try a model in the browser: drop a picture, see its score, where it is anomalous, and how the search went."""
    with errors():
        with loading():
            from anogan_tf.data.layouts import list_images
            from anogan_tf.workflows.web_app import run_app
        detector = load_calibrated(model)
        paths = [] if examples is None else list(dict.fromkeys(entry.path for entry in list_images(examples)))
        run_app(detector, model.stem, paths, host=host, port=port)
