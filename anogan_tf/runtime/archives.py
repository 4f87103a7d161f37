"""What a `.keras` file may hold, checked before Keras sees it: a model file can name any class, and classes can run code.

Keras refuses some of that itself (its safe mode), and had holes. So here is what may be there, not what may not.
"""

import concurrent.futures
import copy
import functools
import importlib
import json
import math
import zipfile

import h5py

from anogan_tf.runtime.backend import keras

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
MEMBERS = {"metadata.json", CONFIG, WEIGHTS}
MAX_CONFIG = 64 * 2**20  # bytes of the configuration; a detector's has some ten thousand
MAX_GROWTH = 20  # times as large as the file may what is unpacked of it be
OWN_MODELS, OWN_LAYERS = ("AnoGAN", "GAN", "EncoderTrainer", "ComparatorTrainer"), ("Preprocessing", "MemoryBank", "PatchMemory")
NEW_NETWORKS = ("image_shape", "latent_dim", "preset", "base_filters")  # what a model makes networks by; a file holds its own
# Layers that calculate numbers from numbers. Not here are those that run code (Lambda), read files (lookups, TFSMLayer) or
# are other libraries' models.
LAYERS = (
    "Activation", "ActivityRegularization", "AdaptiveAveragePooling2D", "AdaptiveMaxPooling2D", "Add", "AdditiveAttention",
    "AlphaDropout", "Attention", "AutoContrast", "Average", "AveragePooling1D", "AveragePooling2D", "BatchNormalization",
    "CenterCrop", "Concatenate", "Conv1D", "Conv1DTranspose", "Conv2D", "Conv2DTranspose", "Conv3D", "Conv3DTranspose",
    "Cropping1D", "Cropping2D", "Dense", "DepthwiseConv1D", "DepthwiseConv2D", "Dot", "Dropout", "ELU", "EinsumDense",
    "Embedding",
    "Equalization", "Flatten", "GaussianDropout", "GaussianNoise", "GlobalAveragePooling1D", "GlobalAveragePooling2D",
    "GlobalMaxPooling1D", "GlobalMaxPooling2D", "GroupNormalization", "GroupQueryAttention", "Identity", "InputLayer",
    "LayerNormalization", "LeakyReLU", "Masking", "MaxPooling1D", "MaxPooling2D", "Maximum", "Minimum", "MultiHeadAttention",
    "Multiply", "Normalization", "PReLU", "Permute", "RMSNormalization", "RandomBrightness", "RandomContrast", "RandomCrop",
    "RandomErasing", "RandomFlip", "RandomGaussianBlur", "RandomGrayscale", "RandomInvert", "RandomPerspective", "RandomRotation",
    "RandomSharpness", "RandomShear", "RandomTranslation", "RandomZoom", "ReLU", "RepeatVector", "Rescaling", "Reshape",
    "Resizing",
    "SeparableConv1D", "SeparableConv2D", "Softmax", "Solarization", "SpatialDropout1D", "SpatialDropout2D",
    "SpectralNormalization",
    "Subtract", "TimeDistributed", "UnitNormalization", "UpSampling1D", "UpSampling2D", "ZeroPadding1D", "ZeroPadding2D",
)  # fmt: skip
# Modules of `keras.ops` whose operations do so too; arithmetic of Keras tensors is theirs. Not `core`: it calls functions.
OPERATIONS = ("image", "linalg", "math", "nn", "numpy")
# Of these every class is harmless: they calculate numbers from numbers.
WHOLE_MODULES = ("initializers", "regularizers", "constraints", "optimizers", "optimizers.schedules")
# As versions of Keras have called them.
MODELS = ("keras.Functional", "keras.Sequential", "keras.models.Functional", "keras.models.Sequential") + (
    "keras.src.models.functional.Functional",
    "keras.src.models.sequential.Sequential",
)
PLAIN = ("__keras_tensor__", "__numpy__", "__tensor__", "__ellipsis__", "__slice__")  # values


class UnsafeFile(ValueError):
    """A model file holds what no model file of this package needs."""


def check_archive(path, trusted=()):
    """Raise `UnsafeFile`, naming what, unless a `.keras` file holds only classes that are known to do no harm.

    Args:
        path: of a zip file.
        trusted: names of other classes that it may hold: "package>Name" as it was registered, or "module.Name".
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.filename not in MEMBERS:
                raise UnsafeFile(f"it holds {member.filename!r}, which no model file needs")
        if sum(member.file_size for member in archive.infolist()) > MAX_GROWTH * path.stat().st_size + 2**20:
            raise UnsafeFile("it would unpack to many times its size")
        if archive.getinfo(CONFIG).file_size > MAX_CONFIG:
            raise UnsafeFile(f"its configuration is larger than {MAX_CONFIG // 2**20} MiB")
        config = json.loads(archive.read(CONFIG))
        _check_config(config, {*_allowed(), *trusted})
        with archive.open(WEIGHTS) as file:
            stored = _check_weights(file, path.stat().st_size)
        if trusted:  # classes that may be known here only, and do what they want
            return
        # In a thread of its own: what Keras notes down of variables without values, to make them later, ends with it.
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            wanted = thread.submit(_count_weights, config).result()
        if wanted > stored:
            raise UnsafeFile(f"its networks have {wanted} weights, and it holds {stored}")


def _allowed():
    """Names of classes, `module.Name` or as they are registered."""
    names = {f"keras.layers.{name}" for name in LAYERS} | {f"anogan_tf>{name}" for name in OWN_MODELS + OWN_LAYERS}
    for module in WHOLE_MODULES:
        members = vars(_submodule(module)).items()
        names |= {f"keras.{module}.{name}" for name, member in members if isinstance(member, type)}
    return {*names, *MODELS, *_operations(), "keras.DTypePolicy"}


@functools.cache
def _operations():
    """Names of the classes of `OPERATIONS`, as files call them."""
    names = set()
    for module in OPERATIONS:
        name = f"keras.src.ops.{module}"
        members = vars(importlib.import_module(name)).items()
        names |= {f"{name}.{own}" for own, member in members if isinstance(member, type) and issubclass(member, keras.Operation)}
    return names


def _submodule(name):
    module = keras
    for part in name.split("."):
        module = getattr(module, part)
    return module


def foreign_classes(path):
    """Names of the classes in a `.keras` file that it is loaded with in `trusted=` alone, as it takes them."""
    with zipfile.ZipFile(path) as archive:
        return list(dict.fromkeys(_foreign(json.loads(archive.read(CONFIG)), _allowed())))


def _check_config(config, allowed):
    if names := list(dict.fromkeys(_foreign(config, allowed))):
        raise UnsafeFile(
            f"it holds {', '.join(map(repr, names))}, which could run code; classes of your own are named in trusted={names}"
        )


def _foreign(value, allowed):
    """Yield the names of classes that are not allowed in a configuration."""
    if isinstance(value, dict) and "class_name" in value and not _is_allowed(value, allowed):
        yield _name_of(value)
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for inner in inside:
        yield from _foreign(inner, allowed)


def _is_allowed(value, allowed):
    name, registered = value["class_name"], value.get("registered_name")
    if name in PLAIN:
        return value.get("module") is None
    if name == "function":  # an activation, by its name
        return isinstance(value.get("config"), str) and callable(getattr(keras.activations, value["config"], None))
    if registered not in (None, name):  # what Keras looks for first
        return registered in allowed
    return f"{value.get('module')}.{name}" in allowed


def _name_of(value):
    name, registered = value["class_name"], value.get("registered_name")
    return registered if registered not in (None, name) else f"{value.get('module')}.{name}"


def own_classes(trusted):
    """`{name: class}` of the classes that are trusted by "module.Name", for Keras, which finds only registered ones itself.

    Raises:
        UnsafeFile: for one that isn't there.
    """
    found = {}
    for name in trusted:
        module, _, own = name.rpartition(".")
        if ">" in name or not module:
            continue
        try:
            found[own] = getattr(importlib.import_module(module), own)
        except (ImportError, AttributeError):
            raise UnsafeFile(f"{name}, which is trusted, can't be imported") from None
    return found


def _count_weights(config):
    """How many weights the networks and layers of a model have, or of a network that is none of this package's models."""
    parts = [config]
    if config.get("registered_name") in {f"anogan_tf>{name}" for name in OWN_MODELS}:
        given = config["config"]
        if asked := [name for name in NEW_NETWORKS if name in given]:
            raise UnsafeFile(f"it asks for new networks ({', '.join(asked)})")
        parts = [part for part in given.values() if isinstance(part, dict) and "class_name" in part]
    with keras.StatelessScope(initialize_variables=False):  # which makes variables without their values
        parts = [keras.saving.deserialize_keras_object(copy.deepcopy(part)) for part in parts]
    return sum(math.prod(weights.shape) for part in parts for weights in getattr(part, "weights", ()))


def _check_weights(file, size):
    """How many numbers there are; only in datasets that are in the file itself: HDF5 can point to other files, and unpack to far
    more than there is."""
    with h5py.File(file, "r") as weights:
        seen, groups, unpacked, count = set(), [weights], 0, 0
        while groups:
            group = groups.pop()
            for name in group:
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise UnsafeFile(f"its weights {group.name}/{name} lie elsewhere")
                member = group[name]
                address = h5py.h5o.get_info(member.id).addr
                if address in seen:
                    continue
                seen.add(address)
                if isinstance(member, h5py.Group):
                    groups.append(member)
                    continue
                if member.external or member.is_virtual:
                    raise UnsafeFile(f"its weights {member.name} lie elsewhere")
                unpacked += member.nbytes
                count += member.size
    if unpacked > MAX_GROWTH * size + 2**20:
        raise UnsafeFile("its weights would unpack to many times its size")
    return count
