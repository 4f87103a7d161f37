"""What every command does alike: errors in one line, quiet imports, progress bars, tables, exit status."""

import contextlib
import os
import tempfile
import warnings

import typer
from rich.console import Console
from rich.markup import escape

from anogan_tf.runtime.remarks import Remark

console = Console(stderr=True, soft_wrap=True)
SOME_SKIPPED = 3  # exit status when images were skipped


@contextlib.contextmanager
def errors():
    """What a user can mend is one line on stderr and exit status 1, a remark a line of its own; anything else is a traceback."""
    try:
        with _remarks():
            yield
    except (ValueError, OSError, ImportError) as error:
        console.print(f"[red]Error:[/red] {_plain(error)}", highlight=False)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.print("Interrupted; files written before are whole.")
        raise typer.Exit(130) from None


@contextlib.contextmanager
def _remarks():
    """Print each `Remark` once; other warnings go their way."""
    usual = warnings.showwarning

    def show(message, category, *where):
        if issubclass(category, Remark):
            console.print(f"[yellow]Note:[/yellow] {escape(str(message))}", highlight=False)
        else:
            usual(message, category, *where)

    with warnings.catch_warnings():
        warnings.simplefilter("once", Remark)
        warnings.showwarning = show
        yield


def _plain(error):
    if isinstance(error, OSError) and error.strerror:
        return escape(": ".join(str(part) for part in (error.filename, error.strerror) if part))
    return escape(str(error))


@contextlib.contextmanager
def loading():
    """Around the imports that load TensorFlow: seconds of waiting, and greetings on stderr that no setting keeps quiet."""
    console.print("Loading TensorFlow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with held_back_stderr():
        import tensorflow as tf

        if tf.config.list_physical_devices("GPU"):  # whose kernels else add up in whatever order they finish
            tf.config.experimental.enable_op_determinism()
        tf.config.list_logical_devices()  # it greets once more when it looks for devices
        tf.get_logger().setLevel("ERROR")  # each detector of a benchmark is traced anew, which it would warn of
        yield


@contextlib.contextmanager
def held_back_stderr():
    """Keep what is written to stderr, by C++ too, and show it only if something fails."""
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except BaseException:
            held_back.seek(0)
            os.write(stderr, held_back.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def progress(description, total):
    """A bar with the time left, see `runtime.progress.show_progress`."""
    from anogan_tf.runtime.progress import show_progress

    return show_progress(description, total, console)


def warn(text):
    """A line that doesn't end the command."""
    console.print(f"[yellow]{text}[/yellow]")


def given(**options):
    """The options that were given; the others keep the library's defaults."""
    return {name: value for name, value in options.items() if value is not None}


def check_folder(folder, overwrite):
    """Raise a ValueError unless a folder is new, empty or to be written over."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; choose another folder with -o.")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise ValueError(f"{folder} exists and isn't empty; choose another folder with -o, or pass --overwrite.")


def print_numbers(numbers):
    """A dict as a table, on stdout."""
    from rich.table import Table

    table = Table("measure", "value")
    for name, value in numbers.items():
        table.add_row(name, str(value))
    Console().print(table)


def end_with_skipped(skipped):
    """List images that couldn't be read, and end with a status of their own if there are any."""
    if skipped:
        console.print(f"[yellow]Skipped {len(skipped)} of the images:[/yellow]")
        for picture in skipped:
            console.print(f"  {picture.name}: {picture.reason}", highlight=False, markup=False)
        raise typer.Exit(SOME_SKIPPED)


def load_calibrated(model):
    """The `AnoGAN` of a model file; a ValueError where it has no threshold."""
    from anogan_tf.detection.detector import AnoGAN

    detector = AnoGAN.load(model)
    if detector.threshold is None:
        raise ValueError(
            f"{model} has no threshold: train it with `anogan train`, or call calibrate() in Python and save it again."
        )
    return detector


def open_source(images, tfds, data_dir, normal_class, root):
    """The images that were named: a `FileSource` or a `TfdsSource`."""
    if bool(images) == bool(tfds):
        raise ValueError("Name images (folders, files or tables), or a set with --tfds; one of the two.")
    if tfds:
        from anogan_tf.data.tfds_sets import TfdsSource

        return TfdsSource(tfds, normal_class, data_dir)
    from anogan_tf.data.sources import FileSource

    return FileSource.of(images, normal_class, root)
