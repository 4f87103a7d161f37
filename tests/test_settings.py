import dataclasses

import numpy as np
import pytest

from anogan_tf.detection.terms import ScoreSettings
from anogan_tf.search.settings import BY_MODE, MODES, PAPER, ExecutionSettings, SearchSettings


@pytest.mark.parametrize("mode", MODES)
def test_what_is_not_given_follows_from_the_mode(mode):
    settings = SearchSettings(mode=mode)
    assert {name: getattr(settings, name) for name in BY_MODE[mode]} == BY_MODE[mode]
    given = SearchSettings(mode="refine", steps=7, optimizer="adam", candidates=3)
    assert (given.steps, given.optimizer, given.candidates) == (7, "adam", 3)


def test_with_the_mode_changes_what_depends_on_it():
    settings = SearchSettings(mode="search", weight=0.3)
    refine = settings.replace(mode="refine")
    assert refine == SearchSettings(mode="refine", weight=0.3)
    assert settings.replace(mode="refine", steps=3).steps == 3
    assert settings.replace(weight=0.2) == SearchSettings(mode="search", weight=0.2)
    assert refine.replace(steps=4).replace(mode="refine").steps == 4


def test_the_papers_search():
    settings = SearchSettings(**PAPER)
    assert (settings.weight, settings.steps, settings.keep, settings.num_sampled_starts, settings.tolerance) == (
        0.1,
        500,
        "last",
        1,
        0.0,
    )
    assert settings.mode == "search" and not settings.whiten


def test_how_many_starts_are_drawn():
    assert SearchSettings(candidates=5).num_sampled_starts == 5
    assert SearchSettings(candidates=5, restarts=9).num_sampled_starts == 9
    assert SearchSettings(mode="refine").num_sampled_starts == 0
    assert SearchSettings(mode="refine", restarts=3).num_sampled_starts == 2  # and the encoder's
    assert SearchSettings(mode="encoder").num_sampled_starts == 0


def test_numpy_numbers_become_pythons():
    settings = SearchSettings(steps=np.int64(3), weight=np.float32(0.25))
    assert type(settings.steps) is int and type(settings.weight) is float and settings.weight == 0.25


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"weight": 1.5}, "weight=1.5 must lie in"),
        ({"seed": -1}, "seed=-1"),
        ({"steps": True}, "steps=True"),
        ({"steps": -1}, "steps=-1 must be a whole number from 0"),
        ({"steps": 1.5}, "steps=1.5"),
        ({"restarts": 0}, "restarts=0"),
        ({"candidates": 0}, "candidates=0"),
        ({"candidates": 10**9}, "can't have 1000000000 starts"),
        ({"kappa": -1.0}, "kappa=-1.0"),
        ({"mode": "fast"}, "mode='fast' is not one of"),
        ({"optimizer": "sgd"}, "optimizer='sgd' is not one of"),
        ({"loss": "hinge"}, "loss='hinge' is not one of"),
        ({"keep": "first"}, "keep='first'"),
        ({"prior": "cauchy"}, "prior='cauchy'"),
        ({"constraint": "box"}, "constraint='box'"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"mode": "encoder", "steps": 5}, "mode='encoder'.*steps=5.*need mode='refine'"),
        ({"mode": "encoder", "restarts": 2}, "mode='encoder'.*restarts=2"),
    ],
)
def test_bad_settings_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        SearchSettings(**bad)


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"block": 0}, "block=0"),
        ({"precision": "float16"}, "precision='float16' is not one of"),
        ({"jit_compile": True, "block": None}, "jit_compile=True needs blocks of a fixed size"),
    ],
)
def test_bad_ways_to_execute_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        ExecutionSettings(**bad)


@pytest.mark.parametrize("bad, message", [({"score": "rank"}, "score='rank' is not one of"), ({"pretext": -1.0}, "pretext=-1.0")])
def test_bad_scores_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        ScoreSettings(**bad)


def test_no_setting_has_the_name_of_another():
    """They are given as flat keywords."""
    fields = [field.name for kind in (SearchSettings, ScoreSettings, ExecutionSettings) for field in dataclasses.fields(kind)]
    assert len(fields) == len(set(fields))
