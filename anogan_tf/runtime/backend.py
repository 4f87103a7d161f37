"""Keras, once it is certain that it runs on TensorFlow: every module of the package takes it from here."""

import json
import os
from pathlib import Path


def require_tensorflow():
    """Raise an ImportError that says what to set where Keras is configured for another backend."""
    name = keras_backend()
    if name != "tensorflow":
        raise ImportError(
            f"anogan_tf needs Keras on TensorFlow, but Keras is set to {name!r}. Set the environment variable "
            'KERAS_BACKEND=tensorflow before Python starts (or "backend": "tensorflow" in ~/.keras/keras.json).'
        )


def keras_backend():
    """The backend that Keras uses or will use: environment variable, then keras.json, then TensorFlow.

    Keras itself is not asked: importing it fails where the backend it is set to isn't installed.
    """
    if os.environ.get("KERAS_BACKEND"):
        return os.environ["KERAS_BACKEND"]
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    try:
        return json.loads((home / "keras.json").read_text()).get("backend", "tensorflow")
    except (OSError, ValueError):
        return "tensorflow"


require_tensorflow()
import keras  # noqa: E402, F401
