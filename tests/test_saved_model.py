"""The exported search against the library's own answers, on each path that a SavedModel is run by."""

import concurrent.futures
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from model_server import Served
from tensorflow.core.protobuf import saved_model_pb2

from anogan_tf.data.preprocessing import Preprocessing
from anogan_tf.detection.detector import AnoGAN
from anogan_tf.detection.memory_bank import MemoryBank
from anogan_tf.detection.tiling import Tiling
from anogan_tf.networks.architectures import feature_extractor
from anogan_tf.networks.inference import for_inference
from anogan_tf.search.settings import PAPER
from anogan_tf.serving import description, saved_model, warmup

WITHOUT_THE_PACKAGE = """
import sys
sys.modules["anogan_tf"] = None  # importing it fails
import numpy as np, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
inputs = np.load(sys.argv[2])
for signature in ("serving_default", "localize"):
    out = model.signatures[signature](images=tf.constant(inputs))
    np.savez(f"{sys.argv[3]}/{signature}.npz", **{name: value.numpy() for name, value in out.items()})
"""


@pytest.fixture(scope="module")
def detector(trained_gan, trained_encoder, boots):
    return AnoGAN.from_gan(trained_gan, trained_encoder).calibrate(boots.train[1800:1900])


@pytest.fixture(scope="module")
def images(detector, boots):
    return np.asarray(detector.preprocessing.prepare(boots.test))


@pytest.fixture(scope="module")
def expected(detector, boots):
    return answers(detector, boots.test)


@pytest.fixture(scope="module")
def folder(detector, tmp_path_factory):
    return detector.export(tmp_path_factory.mktemp("serving") / "boots")


@pytest.fixture(scope="module")
def served(folder):
    with Served(folder) as served:
        yield served


@pytest.fixture(scope="module")
def tiny(make_gan, pixels):
    return AnoGAN.from_gan(make_gan(), steps=3).calibrate(pixels[:20], 0.1)


@pytest.fixture(scope="module")
def tiny_folder(tiny, tmp_path_factory):
    return tiny.export(tmp_path_factory.mktemp("tiny"), warm_up=())


@pytest.fixture(scope="module")
def tiny_served(tiny_folder):
    with Served(tiny_folder) as served:
        yield served


def answers(detector, pixels):
    """What the library gives under the names of the signatures' outputs."""
    out = detector.predict(pixels, verbose=0)
    count = len(out["score"])
    known = {"threshold": np.full(count, detector.threshold, np.float32), "valid": np.ones(count, bool)}
    return {**out, **known, "heatmap": detector.heatmap(out["anomaly_map"])}


def assert_same(answer, expected, rows=slice(None)):
    for name, value in answer.items():
        np.testing.assert_array_equal(value, expected[name][rows], err_msg=name)


@pytest.mark.promise("serves")
def test_what_the_signatures_take_and_give(served):
    one_each = {**dict.fromkeys(saved_model.SCORE_OUTPUTS, []), "z": [32], "heatmap": [28, 28], "anomaly_map": [28, 28]}
    one_each |= dict.fromkeys(("residual", "reconstruction"), [28, 28, 1])
    assert served.signatures.keys() == set(saved_model.SIGNATURES)
    for name, signature in served.signatures.items():
        spec, outputs = saved_model.SIGNATURES[name]
        assert signature.method_name == "tensorflow/serving/predict"
        (given,) = signature.inputs.items()
        assert given[0] == spec.name and tf.TensorShape(given[1].tensor_shape).rank == spec.shape.rank
        shapes = {name: tf.TensorShape(info.tensor_shape).as_list() for name, info in signature.outputs.items()}
        assert shapes == {name: [None, *one_each[name]] for name in outputs}


def test_the_session_gives_the_same_bits(served, images, expected):
    for signature in ("serving_default", "localize"):
        answer = served(signature, images=images)
        assert answer.keys() == set(saved_model.SIGNATURES[signature][1])
        assert_same(answer, expected)


@pytest.mark.promise("serves")
def test_a_process_without_the_package_gives_the_same_bits(folder, images, expected, tmp_path, process):
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-c", WITHOUT_THE_PACKAGE, str(folder), str(tmp_path / "images.npy"), str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    for signature in ("serving_default", "localize"):
        with np.load(tmp_path / f"{signature}.npz") as answer:
            assert_same(answer, expected)


def test_saved_model_cli_gives_the_same_bits(folder, images, expected, tmp_path, process):
    np.save(tmp_path / "images.npy", images)
    tool = Path(sys.executable).parent / "saved_model_cli"
    command = [tool, "run", "--dir", folder, "--tag_set", "serve", "--signature_def", "localize", "--outdir", tmp_path]
    subprocess.run([*command, "--inputs", f"images={tmp_path / 'images.npy'}"], check=True, capture_output=True)
    assert_same(
        {name: np.load(tmp_path / f"{name}.npy") for name in saved_model.SCORE_OUTPUTS + saved_model.MAP_OUTPUTS}, expected
    )


def test_the_reloaded_detector_gives_the_same_bits(detector, boots, expected, tmp_path):
    detector.save(tmp_path / "detector.keras")
    assert_same(answers(AnoGAN.load(tmp_path / "detector.keras"), boots.test), expected)


@pytest.mark.promise("serves")
def test_pictures_give_the_same_bits_as_their_pixels(served, boots, expected):
    files = [tf.io.encode_png(pixels[..., np.newaxis]).numpy() for pixels in boots.test[:50]]
    for signature in ("score_bytes", "localize_bytes"):
        answer = served(signature, image_bytes=np.array(files, object))
        assert answer.keys() == set(saved_model.SIGNATURES[signature][1])
        assert_same(answer, expected, slice(50))


def test_eight_threads_at_once_see_nothing_of_each_other(served, images):
    """Different images, mixed batch sizes, two signatures, on one session, as in the server."""
    rng = np.random.default_rng(0)
    calls = [
        (rng.choice(len(images), rng.integers(1, 40), replace=False), rng.choice(["localize", "serving_default"]))
        for _ in range(48)
    ]

    def answer(call):
        rows, signature = call
        return served(signature, images=images[rows])

    alone = [answer(call) for call in calls]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for one, together in zip(alone, pool.map(answer, calls)):
            assert_same(together, one)


@pytest.mark.parametrize(
    "settings",
    [{**PAPER, "steps": 100}, {"mode": "encoder"}, {"precision": "bfloat16"}, {"score": "peak"}],
)
def test_other_searches_give_the_same_bits(trained_gan, trained_encoder, boots, settings, tmp_path):
    detector = AnoGAN.from_gan(trained_gan, trained_encoder, **settings).calibrate(boots.train[1800:1820])
    pixels = boots.test[290:306]
    with Served(detector.export(tmp_path, warm_up=())) as served:
        answer = served("localize", images=np.asarray(detector.preprocessing.prepare(pixels)))
        assert_same(answer, answers(detector, pixels))


def test_surprise_is_in_the_graph(make_gan, pixels, tmp_path):
    detector = AnoGAN.from_gan(make_gan(self_supervision=0.5), steps=2, score="complexity").calibrate(pixels[:20])
    with Served(detector.export(tmp_path, warm_up=())) as served:
        answer = served("localize", images=np.asarray(detector.preprocessing.prepare(pixels)))
        assert_same(answer, answers(detector, pixels))


@pytest.mark.promise("serves")
def test_neighbours_and_typicality_are_in_the_graph(tiny_gan, pixels, tmp_path):
    memory = MemoryBank.of(tiny_gan.preprocessing(pixels[:15]))
    detector = AnoGAN.from_gan(tiny_gan, steps=2, score="complexity", complexity_deviation=0.5, memory_bank=memory).calibrate(
        pixels[15:]
    )
    with Served(detector.export(tmp_path, warm_up=())) as served:
        answer = served("localize", images=np.asarray(detector.preprocessing.prepare(pixels)))
        assert_same(answer, answers(detector, pixels))


def test_any_size_grey_or_colour(tiny, tiny_served):
    rng = np.random.default_rng(0)
    for shape in ((16, 16, 1), (16, 16, 3), (30, 21, 1), (9, 50, 3)):
        pixels = rng.uniform(size=(3, *shape)).astype(np.float32)
        assert_same(tiny_served("localize", images=pixels), answers(tiny, pixels))
    assert tiny_served("localize", images=np.zeros((0, 16, 16, 1), np.float32))["residual"].shape == (0, 16, 16, 1)
    assert tiny_served("score_bytes", image_bytes=np.zeros(0, object))["score"].shape == (0,)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[2\] \[channels; expected 1 \(grey\) or 3"):
        tiny_served("serving_default", images=np.zeros((2, 16, 16, 2), np.float32))
    with pytest.raises(tf.errors.InvalidArgumentError, match="each side needs at least 4"):
        tiny_served("serving_default", images=np.zeros((2, 16, 2, 1), np.float32))


def test_images_without_a_channel_axis_are_grey(tiny_served, pixels):
    floats = np.asarray(pixels[:3]).astype(np.float32) / np.float32(255)
    assert_same(tiny_served("localize", images=floats[..., 0]), tiny_served("localize", images=floats))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"images with\] \[2\] \[axes; expected \[N, height"):
        tiny_served("serving_default", images=floats[0, ..., 0])


def test_what_a_client_divides_itself_is_the_same_picture(tiny_served, pixels):
    """As bytes, as x / 255, and as the decimals that JSON carries."""
    encoded = tiny_served("localize_bytes", image_bytes=np.array([tf.io.encode_png(one).numpy() for one in pixels[:6]], object))
    decimals = np.array(json.loads(json.dumps((pixels[:6] / 255.0).tolist())), np.float32)
    for divided in (pixels[:6].astype(np.float32) / np.float32(255), decimals):
        assert_same(tiny_served("localize", images=divided), encoded)
    colour = np.repeat(decimals, 3, axis=-1)
    assert_same(tiny_served("localize", images=colour), encoded)


def test_a_bound_on_the_pixels_of_a_request_and_words_about_it(tiny, pixels, tmp_path):
    folder = tiny.export(tmp_path, warm_up=(), max_pixels=3 * 256)
    files = np.array([tf.io.encode_png(one).numpy() for one in pixels[:5]], object)
    files[1] = tf.io.encode_jpeg(pixels[1]).numpy()
    with Served(folder) as served:
        answer = served("score_bytes", image_bytes=files)
        assert answer["valid"].tolist() == [True, True, True, False, False]
        assert_same(served("score_bytes", image_bytes=files[:3]), {name: value[:3] for name, value in answer.items()})
    said = json.loads((folder / description.FILE).read_text())
    assert said["max_pixels"] == 768 and said["signatures"].keys() == set(saved_model.SIGNATURES)
    loaded = tf.saved_model.load(folder).signatures
    for name, words in said["signatures"].items():
        assert words["outputs"].keys() == loaded[name].structured_outputs.keys()
    assert "k / 255" in said["signatures"]["localize"]["input"]["images"]


def bad_rows(pixels):
    floats = pixels.astype(np.float32) / 255.0
    floats[1, 3, 3], floats[2, 0, 0], floats[4, 5, 5], floats[5] = np.nan, 1.01, -0.1, np.inf
    return floats, [1, 2, 4, 5]


@pytest.mark.parametrize("signature", ["localize", "localize_bytes"])
@pytest.mark.promise("serves")
def test_bad_rows_are_marked_and_the_others_are_not_touched(tiny_served, pixels, signature):
    images, bad = bad_rows(pixels[:20])
    good = np.delete(np.arange(20), bad)
    if signature == "localize":
        given, without = {"images": images}, {"images": images[good]}
    else:
        files = np.array([tf.io.encode_png(image).numpy() for image in pixels[:20]], object)
        files[bad] = [b"", b"hello", b"\xff\xd8\xff"[:2], b"GIF"]
        given, without = {"image_bytes": files}, {"image_bytes": files[good]}
    answer, alone = tiny_served(signature, **given), tiny_served(signature, **without)
    assert all(np.isfinite(value).all() for value in answer.values())
    assert_same({name: value[good] for name, value in answer.items()}, alone)
    marked = {name: value[bad] for name, value in answer.items()}
    assert not marked["valid"].any() and marked["is_anomaly"].all() and alone["valid"].all()
    for name in ("score", "residual_score", "discrimination_score"):
        assert (marked[name] == np.float32(saved_model.INVALID_SCORE)).all()
    np.testing.assert_allclose(marked["p_value"], 1 / 21, rtol=1e-6)
    assert not any(marked[name].any() for name in ("steps", *saved_model.MAP_OUTPUTS))


def test_a_detector_without_a_threshold_needs_one(tiny_detector, pixels, tmp_path):
    with pytest.raises(ValueError, match="no threshold: call calibrate"):
        tiny_detector.export(tmp_path)
    with pytest.raises(ValueError, match="must be a finite number"):
        tiny_detector.export(tmp_path, threshold=float("nan"))
    scores = tiny_detector.predict(pixels, verbose=0)["score"]
    threshold = float(np.median(scores))
    with Served(tiny_detector.export(tmp_path, threshold=threshold, warm_up=())) as served:
        answer = served("localize", images=np.asarray(tiny_detector.preprocessing.prepare(pixels)))
    np.testing.assert_array_equal(answer["is_anomaly"], scores > np.float32(threshold))
    assert "p_value" not in answer and "heatmap" not in answer
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_a_threshold_of_ones_own_goes_before_the_calibrated_one_but_a_bad_row_is_anomalous_whatever_it_is(tiny, pixels, tmp_path):
    with pytest.raises(ValueError, match="finite number, of float32"):
        tiny.export(tmp_path, threshold=1e39)
    expected = answers(tiny, pixels)
    with Served(tiny.export(tmp_path, threshold=1e35, warm_up=())) as served:
        answer = served("serving_default", images=np.asarray(tiny.preprocessing.prepare(pixels)))
        bad = served("serving_default", images=np.full((2, 16, 16, 1), [[[[np.nan]]], [[[0.5]]]], np.float32))
    assert not answer["is_anomaly"].any() and (answer["threshold"] == np.float32(1e35)).all()
    np.testing.assert_array_equal(answer["p_value"], expected["p_value"])
    assert bad["is_anomaly"].tolist() == [True, False] and bad["valid"].tolist() == [False, True]


def test_changed_settings_are_not_exported(tiny, tmp_path):
    changed = tiny.with_settings(steps=4)
    changed.calibration = tiny.calibration
    with pytest.raises(ValueError, match=r"The calibration was made with steps=3 \(now 4\)"):
        changed.export(tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_compiled_by_xla_inside(tiny_gan, pixels, tmp_path):
    """A server has no XLA, whatever the detector is compiled by here."""
    detector = AnoGAN.from_gan(tiny_gan, steps=3, jit_compile=True).calibrate(pixels[:20], 0.1)
    detector.export(tmp_path, warm_up=())
    saved = saved_model_pb2.SavedModel.FromString((tmp_path / "1" / "saved_model.pb").read_bytes())
    functions = saved.meta_graphs[0].graph_def.library.function
    assert functions and not any(function.attr["_XlaMustCompile"].b for function in functions)


def test_the_search_owns_no_variable_but_the_networks(tiny, tiny_folder):
    """What requests would share. Its state travels through the loop instead."""
    kept = tf.train.list_variables(str(tiny_folder / "variables" / "variables"))
    networks = [for_inference(network) for network in (tiny.generator, feature_extractor(tiny.discriminator))]
    weights = [list(weight.shape) for network in networks for weight in network.get_weights()]
    assert sorted(shape for name, shape in kept if "VARIABLE_VALUE" in name) == sorted(weights)


def test_every_warm_up_request_is_answered(folder, served):
    """Read back as the server reads it, and run."""
    prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    asked = []
    for record in tf.data.TFRecordDataset(str(folder / warmup.FILE)):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        answer = served(request.model_spec.signature_name, **inputs)
        (count,) = {len(value) for value in (*inputs.values(), *answer.values())}
        asked.append((request.model_spec.signature_name, count))
        assert request.model_spec.name == "boots" and answer["valid"].all()
    assert sorted(asked) == sorted((name, count) for name in saved_model.SIGNATURES for count in warmup.BATCH_SIZES)


def test_exported_versions_count_up(tiny, tiny_folder):
    assert (tiny_folder.name, tiny.export(tiny_folder.parent, warm_up=()).name) == ("1", "2")
    assert not (tiny_folder / warmup.FILE).exists()


def test_a_full_disk_leaves_nothing(tiny, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(warmup, "write_requests", full)
    with pytest.raises(OSError, match="No space"):
        tiny.export(tmp_path)
    assert not list(tmp_path.iterdir())


def photographs(count, seed=0, channels=3):
    draw = np.random.default_rng(seed)
    return [draw.integers(0, 256, (*draw.integers(20, 80, 2), channels), np.uint8) for _ in range(count)]


def encoded(pictures):
    return np.array([tf.io.encode_png(picture).numpy() for picture in pictures], object)


@pytest.fixture(scope="module")
def tiled(trained_gan):
    preprocessing = Preprocessing((None, None, 1), scale=0.7, normalize=True)
    detector = AnoGAN.from_gan(trained_gan, steps=5, score="complexity", preprocessing=preprocessing, tiling=Tiling(14, 2))
    return detector.calibrate(photographs(20, seed=9))


@pytest.mark.promise("tiles")
def test_whole_images_of_any_size_are_cut_searched_and_stitched_inside(tiled, tmp_path):
    pictures = photographs(6)
    out = tiled.predict(pictures)
    expected = {**out, "heatmap": tiled.heatmap(out["anomaly_map"])}
    with Served(tiled.export(tmp_path, warm_up=(1,))) as served:
        answer = served("localize_bytes", image_bytes=encoded([*pictures, np.zeros((30, 30, 1), np.uint8)]))
        scores = served("score_bytes", image_bytes=encoded(pictures))
        marked = served("localize_bytes", image_bytes=np.array([b"hello", *encoded(pictures[:1])], object))
        none = served("localize_bytes", image_bytes=np.zeros(0, object))
    assert (
        answer.keys() == {*saved_model.SCORE_OUTPUTS, "residual", "anomaly_map", "heatmap", "reconstruction", "size"}
        and "size" not in scores
    )
    for row in range(6):
        height, width = answer["size"][row]
        assert out["residual"][row].shape == (height, width, 1)
        for name in ("residual", "reconstruction", "anomaly_map", "heatmap"):
            np.testing.assert_array_equal(answer[name][row, :height, :width], expected[name][row], err_msg=name)
            assert not answer[name][row, height:].any() and not answer[name][row, :, width:].any()
        for name in ("score", "residual_score", "discrimination_score", "p_value", "is_anomaly", "steps"):
            assert answer[name][row] == scores[name][row] == out[name][row], name
    assert marked["valid"].tolist() == [False, True] and marked["size"][0].tolist() == [0, 0] and not marked["heatmap"][0].any()
    assert marked["score"].tolist() == [np.float32(saved_model.INVALID_SCORE), out["score"][0]]
    assert none["residual"].shape[0] == 0


def test_images_of_one_size_are_tiled_too(tiled, tmp_path):
    pixels = np.stack(photographs(1) * 3)
    pixels = np.concatenate([pixels, 255 - pixels])
    expected = tiled.predict(pixels)
    with Served(tiled.export(tmp_path, warm_up=())) as served:
        answer = served("localize", images=pixels.astype(np.float32) / np.float32(255))
    assert_same({name: answer[name] for name in ("score", "residual", "reconstruction", "p_value", "steps")}, expected)
    assert (answer["size"] == expected["residual"].shape[1:3]).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"fit": "crop", "normalize": True},
        {"value_range": (100.0, 3000.0), "normalize": True, "fit": "pad"},
    ],
    ids=str,
)
def test_the_preparation_travels(tiny_gan, settings, tmp_path):
    pictures = photographs(4)
    if "value_range" in settings:
        pictures = [picture[..., :1].astype(np.uint16) * 16 for picture in pictures] + pictures[:1]
    detector = AnoGAN.from_gan(tiny_gan, steps=3, preprocessing=Preprocessing((16, 16, 1), **settings)).calibrate(photographs(20))
    expected = answers(detector, pictures)
    if settings.get("fit", "stretch") != "stretch":
        sizes = np.array([picture.shape[:2] for picture in pictures], np.int32)
        expected["window"] = detector.preprocessing.window(sizes).numpy()
    with Served(detector.export(tmp_path, warm_up=())) as served:
        answer = served("localize_bytes", image_bytes=encoded(pictures))
        assert ("window" in answer) == ("window" in expected)
        assert_same(answer, expected)
        one = pictures[0].astype(np.float32)[np.newaxis]
        if "value_range" not in settings:
            one /= np.float32(255)
        assert_same(served("localize", images=one), expected, slice(0, 1))
