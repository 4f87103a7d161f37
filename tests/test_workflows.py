from typing import get_args, get_type_hints

import numpy as np
import pytest
from PIL import Image

from anogan_tf.data.preprocessing import FITS
from anogan_tf.data.sources import FileSource, for_display
from anogan_tf.detection.calibration import FALSE_POSITIVE_RATE
from anogan_tf.detection.detector import AnoGAN
from anogan_tf.detection.terms import SCORES
from anogan_tf.networks.architectures import PRESETS
from anogan_tf.networks.latent import PRIORS
from anogan_tf.search.settings import MODES
from anogan_tf.training.objectives import OBJECTIVES
from anogan_tf.workflows import parts, train
from anogan_tf.workflows.options import TrainingOptions
from anogan_tf.workflows.splits import split_normals

SMALL = {"size": (16, 16), "base_filters": 4, "latent_dim": 4, "epochs": 1, "encoder": False, "steps": 2}


@pytest.mark.parametrize("count, held_out", [(100, 50), (400, 50), (1000, 100), (2000, 200)])
def test_a_tenth_at_least_fifty_is_held_out_and_not_trained_on(count, held_out):
    split = split_normals(count)
    assert len(split.held_out) == held_out
    assert sorted([*split.trained, *split.held_out]) == list(range(count))


@pytest.mark.parametrize(
    "count, batch_size, epochs", [(100, 16, 500), (5, 16, 3000), (960, 16, 50), (10_000, 16, 50), (64, 32, 1500)]
)
def test_few_images_are_passed_over_more_often(count, batch_size, epochs):
    assert parts.choose_epochs(count, batch_size) == epochs


@pytest.mark.usefixtures("networks")
def test_epochs_are_chosen_by_how_many_are_trained_on(pixels, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "MIN_STEPS", 3)
    monkeypatch.setattr(parts, "EPOCHS", 1)
    gan, trained = parts.train_networks(pixels[:32], tmp_path, (16, 16, 1), encoder=False, base_filters=4, latent_dim=4)
    assert trained is None and int(gan.batches_seen.numpy()) == 4  # twice two


def test_the_split_depends_on_the_seed_alone():
    assert np.array_equal(split_normals(200, 1).held_out, split_normals(200, 1).held_out)
    assert not np.array_equal(split_normals(200, 1).held_out, split_normals(200, 2).held_out)


def test_too_few_to_split():
    with pytest.raises(ValueError, match="19 normal images are too few, at least 20 are needed: with fewer no threshold"):
        split_normals(19)


@pytest.mark.parametrize("groups", [None, np.arange(99) // 5])
def test_few_are_all_trained_on_and_judged_by_what_was_trained_without_them(groups):
    split = split_normals(99, groups=groups)
    for rows in (split.trained, split.held_out, np.sort(np.concatenate(split.folds))):
        np.testing.assert_array_equal(rows, range(99))
    assert len(split.folds) == 4 and max(map(len, split.folds)) - min(map(len, split.folds)) <= (1 if groups is None else 5)
    if groups is not None:
        assert sum(len(set(groups[fold])) for fold in split.folds) == 20  # each group in one of them


@pytest.mark.parametrize("channels", [1, 3])
def test_display_is_uint8_and_no_larger_than_asked_for(channels):
    display = for_display(np.full((80, 60, channels), 0.5, np.float32), 40)
    assert display.shape == (40, 30, channels) and display.dtype == np.uint8 and (display == 128).all()
    assert for_display(np.full((8, 6, channels), 1.0, np.float32), 40).tolist() == np.full((8, 6, channels), 255).tolist()
    assert not for_display(np.full((8, 6, channels), 1.0, np.float32), 0).size


@pytest.mark.usefixtures("networks")
def test_a_memory_is_of_what_was_trained_on(pixels, tmp_path):
    pixels = np.concatenate([pixels, pixels[::-1], pixels[:, ::-1]])
    np.save(tmp_path / "set.npy", pixels[..., 0])
    source = FileSource.of(tmp_path / "set.npy")
    detector, _ = train.train(source, tmp_path / "m.keras", TrainingOptions(**SMALL, memory_bank=30))
    preprocessing = detector.preprocessing
    trained = (tmp_path / "m.train" / "trained.txt").read_text().splitlines()
    rows = [int(name.split("[")[1][:-1]) for name in trained]
    known = np.asarray(detector.memory_bank.small(preprocessing(preprocessing.check(pixels[rows]))))
    assert detector.memory_bank.count == 30
    kept = detector.memory_bank.kept.numpy()[:, np.newaxis] / 32767
    nearest = np.abs(known[np.newaxis] - kept).max(axis=2).min(axis=1)
    assert nearest.max() < 1e-3


@pytest.mark.usefixtures("networks")
def test_normals_for_validation_set_the_threshold_and_are_read_before_training(pixels, tmp_path):
    parts = {part: np.concatenate([pixels] * times) for part, times in (("train", 2), ("val", 1), ("test", 1))}
    arrays = {f"{part}_images": images[..., 0] for part, images in parts.items()}
    labels = {f"{part}_labels": np.arange(len(images)) % 2 for part, images in parts.items()}
    np.savez(tmp_path / "set.npz", **arrays, **labels)
    source = FileSource.of(tmp_path / "set.npz")
    detector, _ = train.train(source, tmp_path / "m.keras", TrainingOptions(**SMALL, score="loss"))
    assert len(detector.calibration.scores) == 20
    names = (tmp_path / "m.train" / "held_out.txt").read_text().splitlines()
    assert names == [f"{tmp_path / 'set.npz'}:val_images[{row}]" for row in range(0, 40, 2)]
    assert detector.memory_bank is None
    # Of values that no file has, few are left: known before anything is trained.
    source.entries = [entry._replace(refused="lost") if entry.split == "val" and entry.row else entry for entry in source.entries]
    with pytest.raises(ValueError, match="1 normal images are too few"):
        train.train(source, tmp_path / "n.keras", TrainingOptions(**SMALL))
    assert not (tmp_path / "n.train.partial").exists()


@pytest.fixture
def surfaces(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "SCENES", 1)  # as few as there are images
    monkeypatch.setattr(train, "JOINT_EPOCHS", 1)
    draw = np.random.default_rng(0)
    for row in range(101):
        Image.fromarray(draw.integers(0, 256, (40, draw.integers(40, 60)), np.uint8)).save(tmp_path / f"{row:03d}.png")
    return FileSource.of(tmp_path)


@pytest.mark.usefixtures("networks")
def test_patches_have_a_comparator_unless_they_are_scored_without(surfaces, tmp_path):
    options = {**SMALL, "size": None, "patch": 16, "patches": 100, "encoder": True, "comparator_steps": 2}
    first, _ = train.train(surfaces, tmp_path / "m.keras", TrainingOptions(**options))
    files = {path.name for path in (tmp_path / "m.train").glob("*.keras")}
    assert files == {"gan.keras", "encoder.keras", "joint.keras", "comparator.keras"}
    assert first.score_settings.score == "complexity" and first.calibration.complexity.map_alone
    assert "linear_path" in [layer.name for layer in first.generator.layers]
    assert first.comparator.input_shape[-1] == 2 and first.patch_memory.count > 1000
    plain = TrainingOptions(**{**options, "comparator_steps": None}, comparator=False)
    second, _ = train.train(surfaces, tmp_path / "n.keras", plain)
    assert second.comparator is None and second.score_settings.score == "complexity"
    for one in (first, second):
        assert all(len(one.predict([np.zeros((30, 50), np.uint8)])[name]) == 1 for name in ("score", "anomaly_map"))


@pytest.mark.promise("resumes")
@pytest.mark.usefixtures("networks")
@pytest.mark.parametrize("patch", [16, None])
def test_a_comparator_is_gone_on_with(surfaces, tmp_path, monkeypatch, patch):
    options = {**SMALL, "size": None if patch else (16, 16), "patch": patch, "comparator": True, "comparator_steps": 2}
    options = TrainingOptions(**options, **({"patches": 100} if patch else {}))
    train.train(surfaces, tmp_path / "whole.keras", options)
    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr(train, "remember_patches", lambda *arguments: 1 / 0)
        train.train(surfaces, tmp_path / "other.keras", options)
    made = (tmp_path / "other.train.partial" / "comparator.keras").stat().st_mtime_ns
    other, _ = train.train(surfaces, tmp_path / "other.keras", options, resume=True)
    assert (tmp_path / "other.train" / "comparator.keras").stat().st_mtime_ns == made
    whole = AnoGAN.load(tmp_path / "whole.keras")
    for part in ("comparator", "patch_memory", "generator"):
        for one, same in zip(getattr(whole, part).get_weights(), getattr(other, part).get_weights(), strict=True):
            np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(whole.calibration.scores, other.calibration.scores)


def test_whole_groups_are_held_out():
    groups = np.repeat(np.arange(40), 6)
    split = split_normals(240, seed=3, groups=groups)
    assert len(split.held_out) == 54 and not set(groups[split.held_out]) & set(groups[split.trained])
    assert np.array_equal(split.held_out, split_normals(240, seed=3, groups=groups).held_out)
    with pytest.raises(ValueError, match="240 normal images come in 1 groups; at least 4 are needed"):
        split_normals(240, groups=np.zeros(240))


@pytest.mark.parametrize(
    "options, pretext, remembered, deviation",
    [
        ({"size": (16, 16)}, 0.5, 5000, 0.0),
        ({"size": (16, 16), "normalize": True}, 0.5, 5000, 0.5),
        ({"patch": 16, "normalize": True}, 0, 0, 0),
        ({"size": (16, 16), "normalize": True, "score": "loss"}, 0, 0, 0),
        ({"size": (16, 16), "self_supervision": 0.0, "memory_bank": 7, "complexity_deviation": 0.2}, 0.0, 7, 0.2),
    ],
)
def test_the_terms_that_help_are_on_by_default(options, pretext, remembered, deviation):
    options = TrainingOptions(**options)
    assert options.networks["self_supervision"] == pretext and options.remembered == remembered
    assert options.searching["complexity_deviation"] == deviation


def test_options_choose_among_what_the_library_has():
    """Their types can't import the library: that would take seconds."""
    hints = get_type_hints(TrainingOptions)
    known = {"fit": FITS, "preset": PRESETS, "prior": PRIORS, "objective": OBJECTIVES, "mode": MODES, "score": SCORES}
    for name, allowed in known.items():
        choices = {choice for kind in (get_args(hints[name]) or ()) for choice in (get_args(kind) or (kind,))} - {type(None)}
        assert choices == set(allowed), name
    assert TrainingOptions().false_positive_rate == FALSE_POSITIVE_RATE
