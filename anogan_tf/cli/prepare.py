"""`anogan prepare`: files to a set of tensorflow-datasets."""

from pathlib import Path
from typing import Annotated

import typer

from anogan_tf.cli.console import console, errors, held_back_stderr, loading
from anogan_tf.cli.options import DataDir, NormalClass, Root


def prepare(
    images: Annotated[list[Path], typer.Argument(help="Folders, files or CSV tables of images.")],
    name: Annotated[str, typer.Option(help="NAME or NAME/CONFIG of the set.")],
    data_dir: DataDir = None,
    normal_class: NormalClass = None,
    root: Root = None,
):
    """Write images as a set of tensorflow-datasets, labels and masks included, for --tfds NAME."""
    with errors():
        with loading():
            from anogan_tf.data.sources import FileSource
            from anogan_tf.data.tfds_sets import prepare_set
        with held_back_stderr():
            folder = prepare_set(FileSource.of(images, normal_class, root), name, data_dir)
        console.print(f"Wrote {folder}: `anogan train --tfds {name}{f' --data-dir {data_dir}' if data_dir else ''} ...`.")
