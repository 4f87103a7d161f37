"""A model file from others: what could run code, read other files or fill the disk is refused before Keras sees it."""

import io
import json
import warnings
import zipfile

import h5py
import keras
import numpy as np
import pytest

from anogan_tf.detection.detector import AnoGAN
from anogan_tf.runtime.archives import UnsafeFile, _allowed, check_archive
from anogan_tf.runtime.remarks import Remark
from anogan_tf.training.gan import GAN

pytestmark = pytest.mark.versions


@pytest.fixture(scope="module")
def saved(make_gan, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "gan.keras"
    make_gan().save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def with_layer(saved, layer):
    """The members of a GAN's file, with a configuration in place of that of the discriminator's last layer but one."""
    config = json.loads(saved["config.json"])
    layers = config["config"]["discriminator"]["config"]["layers"]
    layers[-2] = {**layers[-2], **layer}
    return {**saved, "config.json": json.dumps(config)}


@pytest.mark.promise("file")
def test_what_is_saved_is_loaded(saved, tmp_path):
    path = write(tmp_path / "gan.keras", saved)
    check_archive(path)
    assert GAN.load(path).image_shape == (16, 16, 1)


FETCH = {"fname": "x", "origin": "file:///etc/hostname"}
PAYLOADS = {
    "a lambda": {"module": "keras.layers", "class_name": "Lambda", "config": {"function": {"class_name": "__lambda__"}}},
    "a lambda as a value": {"class_name": "__lambda__", "config": {"value": ["4wEAAAA="]}},
    "a lambda as Keras 2 wrote it": {"class_name": "Lambda", "module": None, "config": {"function": ["4wEAAAA="]}},
    "a SavedModel": {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "/tmp/evil"}},
    "a file fetch": {"module": "keras.utils", "class_name": "get_file", "config": FETCH},
    "a file fetch as a function": {"module": "builtins", "class_name": "function", "config": "get_file"},
    "a loader": {"module": "keras.models", "class_name": "load_model", "config": {"filepath": "x", "safe_mode": False}},
    "a switch": {"module": "keras.config", "class_name": "enable_unsafe_deserialization", "config": {}},
    "another package": {"module": "subprocess", "class_name": "Popen", "config": {"args": ["true"]}},
    "a registered name": {"module": "keras.layers", "class_name": "Dense", "registered_name": "evil>Dense"},
    "a module of Keras's own": {"module": "keras.src.layers.core.lambda_layer", "class_name": "Lambda", "config": {}},
    "a type": {"class_name": "__typespec__", "module": "subprocess", "config": []},
    "a value with a module": {"class_name": "__numpy__", "module": "subprocess", "config": {}},
}  # fmt: skip


@pytest.mark.parametrize("name", PAYLOADS)
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.promise("strangers")
def test_what_could_run_code_is_refused(saved, tmp_path, name, nested):
    payload = {"registered_name": None, **PAYLOADS[name]}
    layer = {"config": {"kernel_initializer": [payload]}} if nested else payload
    path = write(tmp_path / "evil.keras", with_layer(saved, layer))
    with pytest.raises(ValueError, match="evil.keras isn't loaded: it holds .*, which could run code"):
        GAN.load(path)


def test_a_class_of_ones_own_is_named(saved, tmp_path):
    own = {"module": "mine", "class_name": "Block", "registered_name": "mine>Block"}
    path = write(tmp_path / "own.keras", with_layer(saved, own))
    with pytest.raises(
        UnsafeFile, match="'mine>Block', which could run code; classes of your own are named in trusted=.'mine>Block'."
    ):
        check_archive(path)
    with pytest.raises(ValueError, match="(?s)can't be loaded as a model.*Block"):
        GAN.load(path, trusted=["mine>Block"])  # Keras doesn't know it


def test_what_is_allowed_are_classes():
    for name in _allowed():
        if name.startswith("keras.") and not name.startswith("keras.src"):
            found = keras
            for part in name.split(".")[1:]:
                found = getattr(found, part, None)
            assert found is None or isinstance(found, type), name
    assert "keras.layers.Lambda" not in _allowed() and "keras.layers.TFSMLayer" not in _allowed()


@pytest.mark.parametrize("name", ["../evil", "assets/vocabulary.txt", "/etc/passwd", "config.json.bak"])
def test_other_members_are_refused(saved, tmp_path, name):
    with pytest.raises(UnsafeFile, match="which no model file needs"):
        check_archive(write(tmp_path / "evil.keras", {**saved, name: b"x"}))
    assert not (tmp_path.parent / "evil").exists()


def test_what_unpacks_to_many_times_its_size_is_refused(saved, tmp_path):
    bomb = {**saved, "config.json": b" " * 2**24 + saved["config.json"]}
    with pytest.raises(UnsafeFile, match="many times its size"):
        check_archive(write(tmp_path / "bomb.keras", bomb, zipfile.ZIP_DEFLATED))


def weights(write_to):
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        write_to(file)
    return content.getvalue()


@pytest.mark.promise("strangers")
def test_weights_from_elsewhere_are_refused(saved, tmp_path):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["a"] = np.zeros(4)
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(str(secret), "a", (4,))
    for elsewhere in (
        lambda file: file.__setitem__("a/b", h5py.ExternalLink(str(secret), "a")),
        lambda file: file.__setitem__("b", h5py.SoftLink("/a")),
        lambda file: file.create_dataset("a/c", (4,), "f4", external=[(str(secret), 0, 16)]),
        lambda file: file.create_virtual_dataset("v", layout),
    ):
        path = write(tmp_path / "evil.keras", {**saved, "model.weights.h5": weights(elsewhere)})
        with pytest.raises(UnsafeFile, match="lie elsewhere"):
            check_archive(path)


def test_weights_that_unpack_to_many_times_their_size_are_refused(saved, tmp_path):
    packed = weights(lambda file: file.create_dataset("w", (2**28,), "f4", chunks=(2**20,), compression="gzip"))
    with pytest.raises(UnsafeFile, match="weights would unpack"):
        check_archive(write(tmp_path / "bomb.keras", {**saved, "model.weights.h5": packed}))


@pytest.mark.promise("strangers")
def test_networks_that_would_fill_the_memory_are_refused(saved, tmp_path):
    config = json.loads(saved["config.json"])
    for layer in config["config"]["generator"]["config"]["layers"]:
        layer.pop("build_config", None)
        layer["config"].update({"filters": 400_000} if "filters" in layer["config"] else {})
    path = write(tmp_path / "large.keras", {**saved, "config.json": json.dumps(config)})
    with pytest.raises(UnsafeFile, match=r"its networks have \d{12,} weights, and it holds \d{4}$"):
        check_archive(path)
    with keras.StatelessScope():  # at whose end Keras gives values to all variables that have none yet
        pass


def test_new_networks_and_layers_that_would_fill_the_memory_are_refused(saved, tmp_path):
    config = json.loads(saved["config.json"])
    config["config"] |= {"generator": None, "latent_dim": 10**9, "base_filters": 10**6}
    with pytest.raises(UnsafeFile, match=r"it asks for new networks \(latent_dim, base_filters\)"):
        check_archive(write(tmp_path / "new.keras", {**saved, "config.json": json.dumps(config)}))
    memory = {"module": "anogan_tf.detection.memory_bank", "class_name": "MemoryBank", "registered_name": "anogan_tf>MemoryBank"}
    memory |= {"config": {"count": 10**9, "image_shape": [1024, 1024, 1], "other": config["config"]["discriminator"]}}
    with pytest.raises((UnsafeFile, TypeError), match="weights, and it holds|Memory"):
        check_archive(write(tmp_path / "memory.keras", {**saved, "config.json": json.dumps(memory)}))
    del memory["config"]["other"]
    with pytest.raises(UnsafeFile, match=r"its networks have \d{9,} weights"):
        check_archive(write(tmp_path / "memory.keras", {**saved, "config.json": json.dumps(memory)}))


@pytest.mark.parametrize("options", [{"objective": "hinge"}, {"self_supervision": 0.5}, {"preset": "paper"}])
def test_every_network_of_ours_can_be_counted(make_gan, tmp_path, options):
    make_gan(**options).save(tmp_path / "gan.keras")
    check_archive(tmp_path / "gan.keras")


def test_a_loop_in_the_weights_ends(saved, tmp_path):
    def loop(file):
        file.create_group("a")["b"] = file["/"]

    with pytest.raises(UnsafeFile, match="and it holds 0$"):
        check_archive(write(tmp_path / "loop.keras", {**saved, "model.weights.h5": weights(loop)}))


@pytest.mark.parametrize("config", [b"", b"[" * 100_000, b"{", b"null", b"\xff\xfe"])
def test_a_configuration_that_is_none_is_an_error(saved, tmp_path, config):
    path = write(tmp_path / "damaged.keras", {**saved, "config.json": config})
    with pytest.raises(ValueError, match="damaged.keras can't be loaded as a model"):
        GAN.load(path)


@pytest.mark.usefixtures("networks")
def test_layers_and_operations_of_keras_that_calculate_need_no_trust(tmp_path):
    image = keras.Input((16, 16, 1))
    x = keras.layers.RandomFlip()(keras.layers.Resizing(8, 8)(keras.ops.abs(image) * 2.0 - 1.0))
    x = keras.layers.Reshape((64, 1), name="rows")(keras.ops.where(x > 0.5, x, keras.ops.flip(x, axis=1)))
    x = keras.layers.MultiHeadAttention(1, 2)(x, x) + keras.layers.Attention()([x, x])
    features = keras.layers.Dense(4, name="features")(keras.ops.reshape(x, (-1, 64))[:, :32])
    discriminator = keras.Model(image, keras.layers.Dense(1)(features))
    z = keras.Input((4,))
    generator = keras.Model(z, keras.layers.Reshape((16, 16, 1))(keras.layers.Dense(256, activation="tanh")(z)))
    with warnings.catch_warnings():
        warnings.simplefilter("error", Remark)
        AnoGAN(generator, discriminator).save(tmp_path / "own.keras")
    pixels = np.zeros((2, 16, 16, 1), np.float32)
    loaded = AnoGAN.load(tmp_path / "own.keras").discriminator
    np.testing.assert_allclose(loaded(pixels), discriminator(pixels), atol=1e-6)


class Doubled(keras.layers.Layer):
    """Unregistered."""

    def call(self, x):
        return 2.0 * x


@pytest.mark.usefixtures("networks")
def test_what_a_file_needs_is_said_when_it_is_saved_and_taken_as_it_is_said(make_gan, tmp_path):
    gan = make_gan()
    inside = gan.discriminator.get_layer("features")
    outputs = keras.layers.Dense(1)(Doubled()(keras.layers.Flatten()(inside.output)))
    detector = AnoGAN(gan.ema_generator, keras.Model(gan.discriminator.input, outputs))
    name = f"{__name__}.Doubled"
    with pytest.warns(Remark, match=f"classes of your own; it is loaded by AnoGAN.load.'own.keras', trusted=.'{name}'"):
        detector.save(tmp_path / "own.keras")
    with pytest.raises(ValueError, match=f"'{name}', which could run code; .*trusted=.'{name}'."):
        AnoGAN.load(tmp_path / "own.keras")
    assert any(type(layer) is Doubled for layer in AnoGAN.load(tmp_path / "own.keras", trusted=[name]).discriminator.layers)
    with pytest.raises(ValueError, match="nowhere.Doubled, which is trusted, can't be imported"):
        AnoGAN.load(tmp_path / "own.keras", trusted=[name, "nowhere.Doubled"])


@pytest.mark.parametrize("name", ["Map", "Scan", "Cond", "WhileLoop", "CustomGradient"])
def test_operations_that_call_functions_are_refused(name):
    assert not any(allowed.endswith(f".{name}") for allowed in _allowed())
