"""One `.keras` file for each model, written beside and renamed; loading with errors that name the file."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from anogan_tf.runtime.archives import UnsafeFile, check_archive, foreign_classes, own_classes
from anogan_tf.runtime.backend import keras
from anogan_tf.runtime.files import replacing
from anogan_tf.runtime.remarks import remark
from anogan_tf.runtime.types import PathLike


class SavableModel(keras.Model):
    """A `keras.Model` that is saved whole to one `.keras` file.

    A subclass names in `PARTS` the attributes that are networks or layers, and arguments of its constructor (or None).
    """

    PARTS: tuple[str, ...] = ()

    def parts_config(self):
        """The share of `PARTS` in `get_config`."""
        return {part: keras.saving.serialize_keras_object(getattr(self, part)) for part in self.PARTS}

    @classmethod
    def from_config(cls, config):
        # A file may be from before there was a part.
        return cls(**{**config, **{part: keras.saving.deserialize_keras_object(config.get(part)) for part in cls.PARTS}})

    def save(self, filepath: PathLike, overwrite: bool = True, **kwargs: Any) -> None:
        """Save to a `.keras` file, as `keras.Model.save` does, but written beside and renamed.

        Raises:
            ValueError: if the name doesn't end in `.keras`.
            FileExistsError: if the file exists and `overwrite` is false.
        """
        path = Path(filepath)
        if path.suffix != ".keras":
            raise ValueError(f"{path}: a model file's name must end in .keras.")
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists; pass overwrite=True or choose another name.")
        with replacing(path) as temporary:
            super().save(temporary, overwrite=True, **kwargs)
            own = foreign_classes(temporary)
        if own:
            remark(f"{path} holds classes of your own; it is loaded by {type(self).__name__}.load({path.name!r}, trusted={own}).")

    @classmethod
    def load(cls, filepath: PathLike, trusted: Sequence[str] = ()) -> Self:
        """Load a `.keras` file that `save` wrote.

        A file from others is safe to load as far as this package and Keras know: only classes that are known to do no harm are
        made, and nothing is read but the file. It can still ask for networks that fill the memory.

        Args:
            filepath: of the file.
            trusted: names of classes of your own that it may hold: "package>Name" as they were registered with Keras, or
                "module.Name", which is then imported. What a file needs is said when it is saved, and when it is refused.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is not a model file, is damaged, holds another kind of model, or what could run code.
        """
        path = Path(filepath)
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such model file.")
        if not path.is_file() or not zipfile.is_zipfile(path):
            raise ValueError(f"{path} is not a .keras model file, such as `anogan train` or `{cls.__name__}.save` writes.")
        try:
            check_archive(path, trusted)
            model = keras.saving.load_model(path, custom_objects=own_classes(trusted))
        except UnsafeFile as error:
            raise ValueError(f"{path} isn't loaded: {error}.") from error
        except Exception as error:  # a damaged archive raises many kinds
            raise ValueError(f"{path} can't be loaded as a model: {error}") from error
        if not isinstance(model, cls):
            raise ValueError(
                f"{path} holds a {type(model).__name__}, not the {cls.__name__} that is wanted here; is it the right file?"
            )
        return model


def unavailable(method, instead):
    """A method that a Keras model inherits and a model of this package can't have: calling it says what to do instead."""

    def refused(self, *arguments, **options):
        raise NotImplementedError(f"{type(self).__name__}.{method}() isn't available: {instead}.")

    refused.__name__, refused.__doc__ = method, f"Not available: {instead}."
    return refused
