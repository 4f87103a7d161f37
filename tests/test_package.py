"""What holds for the package as a whole: lazy imports, the backend, public names."""

import os
import subprocess
import sys

import pytest

import anogan_tf


def python(code, **environment):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment})


def test_every_public_name_is_there_and_documented():
    for name in anogan_tf.__all__:
        assert getattr(anogan_tf, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        anogan_tf.nothing


@pytest.mark.parametrize("module", ["anogan_tf", "anogan_tf.cli"])
def test_importing_costs_nothing(module):
    heavy = "('tensorflow', 'keras', 'numpy', 'sklearn', 'matplotlib', 'PIL')"
    result = python(f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])")
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.parametrize("use", ["import anogan_tf; anogan_tf.GAN", "from anogan_tf.preparation import Preparation"])
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_says_what_to_set(backend, use):
    result = python(use, KERAS_BACKEND=backend)
    assert f"Keras is set to '{backend}'" in result.stderr and "KERAS_BACKEND=tensorflow" in result.stderr


def test_keras_json_counts_too(tmp_path):
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    code = "import os; os.environ.pop('KERAS_BACKEND', 0); import anogan_tf; anogan_tf.AnoGAN"
    result = python(code, **{**environment, "KERAS_HOME": str(tmp_path)})
    assert "Keras is set to 'jax'" in result.stderr
