"""`anogan demo`: the built-in set end to end."""

from pathlib import Path
from typing import Annotated

import typer

from anogan_tf.cli.console import check_folder, console, errors, loading, print_numbers, progress
from anogan_tf.cli.options import Overwrite, takes
from anogan_tf.workflows.options import TrainingOptions

OPTIONS = ("epochs", "encoder", "steps", "weight", "restarts", "seed")


@takes(TrainingOptions, OPTIONS)
def demo(
    options: TrainingOptions,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for pictures, numbers and the model.")] = Path("anogan-demo"),
    overwrite: Overwrite = False,
):
    """Train on the built-in photographs of boots, score boots and other things, draw what came out."""
    with errors():
        check_folder(out, overwrite)
        with loading():
            from anogan_tf.workflows.demo import run_demo
        numbers = run_demo(out, options, progress=progress)
        print_numbers(numbers)
        console.print(f"Look at contact_sheet.png, roc.png and histogram.png in {out}; the model is {out / 'model.keras'}.")
