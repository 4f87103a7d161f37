"""How far a long job has come: one display for the command line, none for others.

A display is made by `progress(description, total)`, a context manager that gives `on_progress(count=1)`, to be called as it goes.
"""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from anogan_tf.runtime.backend import keras

Progress = Callable[[str, int], AbstractContextManager[Callable[..., Any]]]


@contextlib.contextmanager
def no_progress(description, total):
    """A display that shows nothing."""
    yield lambda count=1: None


@contextlib.contextmanager
def show_progress(description, total, console=None):
    """A bar with the time left, on a `rich.console.Console`."""
    with _bars(console) as bars:
        task = bars.add_task(description, total=total)
        yield lambda count=1: bars.advance(task, count)


@contextlib.contextmanager
def show_together(progress=None):
    """One display for all that a long job does: yields a `progress` whose bars stay below each other; or one that is given."""
    if progress is not None:
        yield progress
        return
    with _bars(None) as bars:

        @contextlib.contextmanager
        def add(description, total):
            task = bars.add_task(description, total=total)
            yield lambda count=1: bars.advance(task, count)

        yield add


def _bars(console):
    """An empty display of bars."""
    from rich import progress

    columns = (progress.TextColumn("{task.description:<12}"), progress.BarColumn(), progress.TaskProgressColumn())
    return progress.Progress(*columns, progress.TimeElapsedColumn(), progress.TimeRemainingColumn(), console=console)


class ProgressCallback(keras.callbacks.Callback):
    """Calls `on_progress()` after each batch of `fit` or `predict`, for a display that is not Keras's own."""

    def __init__(self, on_progress: Callable[..., Any]) -> None:
        super().__init__()
        self._on_progress = on_progress

    def on_train_batch_end(self, batch, logs=None):
        self._on_progress()

    def on_predict_batch_end(self, batch, logs=None):
        self._on_progress()
