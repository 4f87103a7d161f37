import concurrent.futures
import errno
import subprocess
import sys

import keras
import pytest

from anogan_tf.detection.detector import AnoGAN
from anogan_tf.runtime import files
from anogan_tf.runtime.files import locked, replacing, replacing_folder, write_version
from anogan_tf.training.gan import GAN


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_the_old_file_survives_a_failed_save(tiny_gan, tmp_path, monkeypatch, failure):
    path = tmp_path / "gan.keras"
    tiny_gan.save(path)
    before = path.read_bytes()

    def half(model, filepath, **kwargs):
        filepath.write_bytes(b"half a file")
        raise failure

    monkeypatch.setattr(keras.Model, "save", half)
    with pytest.raises(type(failure)):
        tiny_gan.save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_replacing_keeps_the_mode_and_makes_folders(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with replacing(path) as temporary:
        temporary.write_text("one")
    assert path.read_text() == "one" and path.stat().st_mode & 0o444 == 0o444
    path.chmod(0o640)
    with replacing(path) as temporary:
        temporary.write_text("two")
    assert path.read_text() == "two" and path.stat().st_mode & 0o777 == 0o640


def test_a_folder_takes_the_old_ones_place_only_when_it_is_done(tmp_path):
    path = tmp_path / "state"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(KeyboardInterrupt), replacing_folder(path) as partial:
        (partial / "half").touch()
        raise KeyboardInterrupt
    assert [file.name for file in path.iterdir()] == ["old"] and (tmp_path / "state.partial" / "half").exists()
    with replacing_folder(path) as partial:
        (partial / "new").touch()
    assert [file.name for file in path.iterdir()] == ["new"] and not (tmp_path / "state.partial").exists()


def test_one_process_writes_at_a_time(tmp_path):
    path = tmp_path / "new" / "out"
    with locked(path):
        with pytest.raises(ValueError, match="Another process writes to .*out; wait"), locked(path):
            pass
        with locked(tmp_path / "other"):
            pass
    assert not list(path.parent.iterdir())
    with locked(path):
        pass
    with pytest.raises(KeyboardInterrupt), locked(path):
        raise KeyboardInterrupt
    assert not list(path.parent.iterdir())


def test_a_killed_process_holds_no_lock(tmp_path, process):
    code = f"""
import fcntl, sys, time
held = open({str(tmp_path / ".out.lock")!r}, "wb")
fcntl.flock(held, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="Another process"), locked(tmp_path / "out"):
            pass
        process.kill()
        process.wait()
        with locked(tmp_path / "out"):
            assert (tmp_path / ".out.lock").exists()


def test_many_that_wait_write_one_after_another(tmp_path):
    path, count = tmp_path / "sum", 40
    path.write_text("0")

    def add(_):
        with locked(path, wait=True):
            before = int(path.read_text())
            with replacing(path) as temporary:
                temporary.write_text(str(before + 1))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(count)))
    assert path.read_text() == str(count) and [file.name for file in tmp_path.iterdir()] == ["sum"]


def test_overwrite(tiny_gan, tmp_path):
    tiny_gan.save(tmp_path / "gan.keras")
    with pytest.raises(FileExistsError, match="gan.keras exists; pass overwrite=True"):
        tiny_gan.save(tmp_path / "gan.keras", overwrite=False)
    with pytest.raises(ValueError, match="must end in .keras"):
        tiny_gan.save(tmp_path / "gan.h5")


def test_files_that_are_no_model_are_named(tiny_gan, tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.keras: no such model file"):
        AnoGAN.load(tmp_path / "nothing.keras")
    text = tmp_path / "text.keras"
    text.write_text("hello")
    with pytest.raises(ValueError, match="text.keras is not a .keras model file"):
        AnoGAN.load(text)
    with pytest.raises(ValueError, match="is not a .keras model file"):
        AnoGAN.load(tmp_path)
    tiny_gan.save(tmp_path / "gan.keras")
    with pytest.raises(ValueError, match="holds a GAN, not the AnoGAN"):
        AnoGAN.load(tmp_path / "gan.keras")
    whole = (tmp_path / "gan.keras").read_bytes()
    cut = tmp_path / "cut.keras"
    cut.write_bytes(whole[:100] + b"\0" * 400 + whole[500:])
    with pytest.raises(ValueError, match="cut.keras can't be loaded"):
        GAN.load(cut)


def test_keras_loads_it_by_itself(make_gan, tmp_path):
    gan = make_gan()
    gan.save(tmp_path / "gan.keras")
    assert isinstance(keras.saving.load_model(tmp_path / "gan.keras"), GAN)


def fill(folder):
    (folder / "model").write_text("whole")


def test_versions_count_on_from_the_last(tmp_path):
    base = tmp_path / "new" / "base"
    assert write_version(base, fill) == base / "1"
    (base / "0007").mkdir()
    (base / "notes").mkdir()
    (base / "12.partial").mkdir()
    assert write_version(base, fill) == base / "8"
    assert (base / "8" / "model").read_text() == "whole"
    assert (base / "8").stat().st_mode & 0o555 == 0o555, "a server that runs as somebody else must read it"


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_half_a_version_is_never_seen_and_doesnt_stay(tmp_path, failure):
    write_version(tmp_path, fill)

    def half(folder):
        fill(folder)
        assert not any(path.name.isdecimal() for path in tmp_path.iterdir() if path.name != "1")
        raise failure

    with pytest.raises(type(failure)):
        write_version(tmp_path, half)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_a_version_that_another_process_took_is_left_alone(tmp_path, monkeypatch):
    rename = files._rename_new

    def too_late(source, target):
        if not target.exists():
            target.mkdir()
            (target / "model").write_text("theirs")
            monkeypatch.setattr(files, "_rename_new", rename)
        return rename(source, target)

    monkeypatch.setattr(files, "_rename_new", too_late)
    assert write_version(tmp_path, fill).name == "2"
    assert (tmp_path / "1" / "model").read_text() == "theirs"
