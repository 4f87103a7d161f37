"""The client, the load script and the configuration files of `export/`."""

import contextlib
import importlib
import io
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile
from model_server import Served, grpc_door, rest_door
from PIL import Image

from anogan_tf.data.sources import load_images
from anogan_tf.detection.detector import AnoGAN
from anogan_tf.serving import saved_model, warmup

KIT = Path(__file__).parents[1] / "export"


@pytest.fixture(scope="module", autouse=True)
def kit_on_the_path():
    sys.path.insert(0, str(KIT))
    yield
    sys.path.remove(str(KIT))


@pytest.fixture(scope="module")
def client(kit_on_the_path):
    return importlib.import_module("client")


@pytest.fixture(scope="module")
def load(kit_on_the_path):
    return importlib.import_module("load")


@pytest.fixture(scope="module")
def detector(make_gan, boots):
    return AnoGAN.from_gan(make_gan(), steps=3).calibrate(boots.train[:40])


@pytest.fixture(scope="module")
def folder(detector, tmp_path_factory):
    return detector.export(tmp_path_factory.mktemp("serving"), warm_up=())


@pytest.fixture(scope="module")
def served(folder):
    with Served(folder) as served:
        yield served


@pytest.fixture(params=["rest", "grpc"])
def door(request, served):
    """Options that lead the client to the detector by one of its doors."""
    if request.param == "grpc":
        pytest.importorskip("tensorflow_serving", reason="needs tensorflow-serving-api")
    with (rest_door if request.param == "rest" else grpc_door)(served) as address:
        yield [f"--{request.param}", address]


def turned(image):
    """The file of an image that its EXIF says to turn a quarter to the right."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    image.save(stream, "JPEG", exif=exif)
    return stream.getvalue()


@pytest.fixture
def pictures(tmp_path, boots):
    """A folder of what people have: sizes, colours, depths, formats, an EXIF orientation."""
    rng, folder = np.random.default_rng(0), tmp_path / "incoming"
    folder.mkdir()
    colour = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8)).resize((33, 50), Image.Resampling.BICUBIC)
    Image.fromarray(boots.test[0]).save(folder / "grey.png")
    colour.save(folder / "colour.jpg")
    colour.save(folder / "colour.bmp")
    colour.quantize(7).save(folder / "palette.bmp")
    colour.save(folder / "colour.webp", lossless=True)
    Image.fromarray(rng.integers(0, 65536, (20, 30)).astype(np.uint16)).save(folder / "deep.png")
    Image.fromarray(rng.integers(0, 65536, (20, 30)).astype(np.uint16)).save(folder / "deep.tif")
    colour.convert("CMYK").save(folder / "cmyk.tif")
    stream = io.BytesIO()
    colour.convert("CMYK").save(stream, "JPEG")
    adobe = stream.getvalue().index(b"\xff\xee")
    (folder / "cmyk.jpg").write_bytes(stream.getvalue()[:adobe] + stream.getvalue()[adobe + 16 :])  # without Adobe's marker
    (folder / "turned.jpg").write_bytes(turned(colour))
    big_endian = Image.frombytes("I;16B", (30, 20), rng.integers(0, 65536, (20, 30)).astype(">u2").tobytes())
    big_endian.save(folder / "bigendian.tif")
    Image.fromarray(rng.integers(0, 65536, (20, 30)).astype(np.int32)).save(folder / "integers.tif")
    colour.quantize(7).save(folder / "transparent.gif", transparency=2)
    (folder / "folder.png").mkdir()
    return folder


def table(text):
    """The client's lines as `{file name: the rest}`."""
    return {Path(line.split()[0]).name: line.split()[1:] for line in text.splitlines()[1:]}


@pytest.mark.promise("serves")
def test_the_client_gives_the_librarys_scores(client, door, detector, pictures, capsys):
    assert client.main([*door, "--batch", "4", str(pictures)]) == 0
    rows = table(capsys.readouterr().out)
    images = load_images(pictures)
    expected = detector.predict(images.pixels)
    assert rows.keys() == {Path(name).name for name in images.names}
    for row, name in enumerate(images.names):
        label = "anomaly" if expected["is_anomaly"][row] else "normal"
        numbers = f"{expected['score'][row]:.4g}", f"{expected['p_value'][row]:.4f}", f"{detector.threshold:.4g}"
        assert rows[Path(name).name] == [*numbers, label], name


def test_overlays_are_written(client, door, pictures, tmp_path):
    assert client.main([*door, "--overlays", str(tmp_path / "out"), str(pictures)]) == 0
    sizes = {path.stem[7:]: Image.open(path).size for path in (tmp_path / "out").iterdir()}
    assert len(list((tmp_path / "out").iterdir())) == sum(path.is_file() for path in pictures.iterdir())
    assert sizes["turned"] == (50, 33) and sizes["grey"] == (28, 28)


def test_an_overlay_colours_where_it_is_hot_and_nowhere_else(client):
    stream = io.BytesIO()
    Image.fromarray(np.full((40, 60), 90, np.uint8)).save(stream, "PNG")
    heat = np.zeros((8, 12), np.float32)
    heat[:, 8:] = 1.0
    shown = np.asarray(client.overlay(stream.getvalue(), heat))
    assert shown.shape == (40, 60, 3) and (shown[:, :35] == 90).all()
    np.testing.assert_allclose(shown[:, 50:].mean((0, 1)), 0.3 * 90 + 0.7 * np.array(client.HEAT[-1]), atol=1)


@pytest.mark.parametrize(
    "window, hot",
    [((0, 0, 1, 1), (20, 40, 30, 60)), ((-0.5, 0, 1.5, 1), (20, 40, 30, 60)), ((0, 0.5, 1, 1), (20, 40, 45, 60))],
    ids=["whole", "padded", "cropped"],
)
def test_an_overlay_lies_where_the_window_says(client, tmp_path, window, hot):
    """The lower right quarter of the map is hot, on a picture of 40 x 60."""
    stream = io.BytesIO()
    Image.new("L", (60, 40)).save(stream, "PNG")
    heat = np.zeros((8, 12), np.float32)
    heat[4:, 6:] = 1.0
    filled = np.pad(heat, ((0, 5), (0, 3)), constant_values=1.0)  # as the maps of a larger picture in the same request are
    client.write_overlay(tmp_path, "a", stream.getvalue(), {"heatmap": filled, "size": np.array([8, 12]), "window": window})
    shown = np.asarray(Image.open(tmp_path / "a.png")).max(axis=-1)
    top, bottom, left, right = hot
    assert (shown[top + 5 : bottom, left + 5 : right] > 80).all()
    assert not shown[: top - 5].any() and not shown[:, : left - 5].any()


def test_bad_files_fail_alone(client, door, pictures, capsys):
    for name in ("deep.png", "colour.jpg"):
        (pictures / f"cut-{name}").write_bytes((pictures / name).read_bytes()[:-150])
    (pictures / "text.png").write_text("hello")
    assert client.main([*door, str(pictures)]) == 1
    rows = table(capsys.readouterr().out)
    assert rows["text.png"] == ["not", "an", "image", "that", "the", "server", "reads"]
    assert "can't be read: image file is truncated" in " ".join(rows["cut-deep.png"]), "found here"
    assert "answers" in " ".join(rows["cut-colour.jpg"]) and "JPEG" in " ".join(rows["cut-colour.jpg"]), "found by the server"
    assert sum(row[-1] in ("anomaly", "normal") for row in rows.values()) == 13


def test_the_client_comes_back_to_a_busy_server(client, served, pictures, capsys, monkeypatch):
    pauses = []
    monkeypatch.setattr(client.time, "sleep", pauses.append)
    with rest_door(served, refusals=[503, 429]) as url:
        assert client.main(["--rest", url, str(pictures / "grey.png")]) == 0
    assert len(pauses) == 2 and 0.125 <= pauses[0] <= 0.375 and 0.25 <= pauses[1] <= 0.75
    with rest_door(served, refusals=[503] * 20) as url:
        assert client.main(["--rest", url, str(pictures / "grey.png")]) == 1
    assert "answers 503: busy" in capsys.readouterr().err


def test_grpc_comes_back_when_the_pool_is_exhausted(client, served, pictures, monkeypatch):
    pytest.importorskip("tensorflow_serving", reason="needs tensorflow-serving-api")
    monkeypatch.setattr(client.time, "sleep", lambda seconds: None)
    with grpc_door(served, refusals=2) as address:
        assert client.main(["--grpc", address, str(pictures / "grey.png")]) == 0


def test_errors_are_one_line_that_says_what_to_do(client, door, pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(client.time, "sleep", lambda seconds: None)
    for arguments, said in (
        ([*door, "--model", "nothing", str(pictures)], "Servable not found"),
        ([*door, str(tmp_path / "nowhere")], "nowhere: no such file or folder"),
        (["--rest", "127.0.0.1:9", str(pictures)], "http://127.0.0.1:9/v1/models/parts:predict can't be reached"),
        ([*door, "--overlays", str(pictures / "grey.png"), str(pictures)], "grey.png"),
    ):
        assert client.main(arguments) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and said in error


def test_a_slow_server_is_told_from_a_dead_one(client, pictures, capsys):
    answered = threading.Event()
    with rest_door(lambda signature, **inputs: answered.wait(10.0) and {}) as url:
        assert client.main(["--rest", url, "--timeout", "0.2", str(pictures / "grey.png")]) == 1
        answered.set()
    assert "no answer in 0.2 s: try a larger --timeout" in capsys.readouterr().err


@pytest.mark.parametrize("answer", [b"\0\0\x18\x04 no HTTP\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n<html>...", b""])
def test_another_servers_port_is_told(client, pictures, capsys, monkeypatch, answer):
    monkeypatch.setattr(client.time, "sleep", lambda seconds: None)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def reply():
            while True:
                with contextlib.suppress(OSError), listener.accept()[0] as connection:
                    connection.recv(1 << 20)
                    connection.sendall(answer)

        threading.Thread(target=reply, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert client.main(["--rest", url, str(pictures / "grey.png")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and url in error


def test_a_bomb_and_floats_fail_alone(client, served, pictures, capsys, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.fromarray(np.zeros((5, 5), np.float32)).save(pictures / "floats.tif")
    with rest_door(served) as url:
        assert client.main(["--rest", url, *(str(pictures / name) for name in ("colour.webp", "floats.tif", "grey.png"))]) == 1
    rows = table(capsys.readouterr().out)
    assert "decompression bomb" in " ".join(rows["colour.webp"]) and "floating point" in " ".join(rows["floats.tif"])
    assert rows["grey.png"][-1] in ("anomaly", "normal")


def test_pages_and_signs_are_not_dropped_in_silence(client, tmp_path, capsys):
    pages = np.arange(2 * 20 * 24, dtype=np.uint8).reshape(2, 20, 24)
    tifffile.imwrite(tmp_path / "stack.tif", pages, photometric="minisblack")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(client.read_picture(tmp_path / "stack.tif")))), pages[0])
    assert "stack.tif: the first of 2 pages is sent" in capsys.readouterr().err
    for kind, reason in (
        (np.int8, "its 8 bits have a sign"),
        (np.int16, "its pixels span -100 to 155, which 16 bits can't hold"),
    ):
        tifffile.imwrite(tmp_path / "signed.tif", (pages[0].astype(np.int16) - 100).astype(kind))
        with pytest.raises(client.ServingError, match=f"signed.tif can't be read: {reason}"):
            client.read_picture(tmp_path / "signed.tif")


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_orientation_is_found_without_pillow(client, orientation, kind):
    exif, stream = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.new("L", (20, 10)).save(stream, kind, exif=exif)
    content = stream.getvalue()
    assert client._orientation(content) == (orientation if 1 <= orientation <= 8 else 1)
    if kind == "JPEG":
        filled = content.replace(b"\xff\xe1", b"\xff\xff\xff\xe1", 1)
        assert client._orientation(filled) == client._orientation(content)
    assert client._orientation(content[:30]) == 1


def test_without_pillow_plain_files_still_go_and_others_say_what_is_missing(client, served, pictures, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setattr(client.importlib.util, "find_spec", lambda name: None)
    with rest_door(served) as url:
        assert client.main(["--rest", url, *(str(pictures / name) for name in ("grey.png", "colour.bmp"))]) == 0
        assert client.main(["--rest", url, *(str(pictures / name) for name in ("turned.jpg", "grey.png", "deep.tif"))]) == 1
    rows = table(capsys.readouterr().out.split("\n", 3)[3])
    assert "has to be turned upright, which needs Pillow" in " ".join(rows["turned.jpg"])
    assert "format that the server doesn't read; converting it needs Pillow" in " ".join(rows["deep.tif"])
    assert rows["grey.png"][-1] in ("anomaly", "normal")


def test_the_client_never_imports_the_package(process):
    code = "import sys; sys.modules['anogan_tf'] = None; import client, load; print('tensorflow' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=KIT)
    assert result.stdout.strip() == "False", result.stderr


def test_whoever_reads_the_lines_may_stop(door, pictures, process):
    """As head does: no traceback."""
    code = f"import sys, client; sys.exit(client.main([{','.join(map(repr, door))}, {str(pictures)!r}]))"
    running = subprocess.Popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=KIT)
    running.stdout.close()
    assert running.stderr.read() == b"" and running.wait() in (0, 1)


def test_the_load_script_measures(load, door, folder, capsys):
    small = ["--size", "16x16x1", "--rows", "1", "3", "--clients", "1", "2", "--seconds", "0.1"]
    for where in (door, ["--folder", str(folder)]):
        assert load.main([*where, *small]) == 0
        out = capsys.readouterr().out
        lines = [line.strip("| ").split(" | ") for line in out[out.index("|") :].splitlines()[2:]]
        assert [line[:2] for line in lines] == [["1", "1"], ["1", "2"], ["3", "1"], ["3", "2"]]
        for _, clients, requests, failed, speed, p50, p95, p99 in lines:
            assert int(requests) >= int(clients) and failed == "0" and float(speed) > 0
            assert float(p50) <= float(p95) <= float(p99)


def test_the_batching_file_and_the_warm_up_go_together():
    text = (KIT / "batching_parameters.txt").read_text()
    assert "pad_variable_length_inputs: false" in text
    allowed = [int(size) for size in re.findall(r"^allowed_batch_sizes: (\d+)", text, re.M)]
    (largest,) = re.findall(r"max_batch_size \{ value: (\d+)", text)
    assert allowed == sorted(allowed) and allowed[-1] == int(largest)
    assert (1, *allowed) == warmup.BATCH_SIZES


def test_the_model_configuration_is_what_the_server_parses():
    pytest.importorskip("tensorflow_serving", reason="needs tensorflow-serving-api")
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    parsed = text_format.Parse((KIT / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    (model,) = parsed.model_config_list.config
    assert (model.name, model.base_path, model.model_version_policy.latest.num_versions) == ("parts", "/models/parts", 2)


def test_the_readme_names_every_signature_and_output():
    text = (KIT / "README.md").read_text()
    for name in (*saved_model.SIGNATURES, *saved_model.SCORE_OUTPUTS, *saved_model.MAP_OUTPUTS):
        assert f"`{name}`" in text, name
