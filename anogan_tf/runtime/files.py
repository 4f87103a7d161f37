"""Files and folders written beside and renamed; locks; folders of versions."""

import contextlib
import errno
import os
import shutil
import tempfile
from pathlib import Path


@contextlib.contextmanager
def replacing(path):
    """Give a temporary path beside `path`; rename it to `path` on success, delete it on failure.

    Whatever stood at `path` survives a full disk, an exception or an interrupt, and a reader never sees half a file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays at the end: Keras, NumPy and Pillow tell the format by it.
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(_mode_for(path))
        _sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path, wait=False):
    """Be the only process that writes to `path`, a file or folder: a lock lies beside it as long as that lasts.

    It goes with the process, however that ends.

    Args:
        path: what is written to.
        wait: whether to wait for another process; else that is an error.

    Raises:
        ValueError: if another process writes to it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    while True:
        with open(lock, "wb") as held:
            if not _lock(held, wait):
                raise ValueError(f"Another process writes to {path}; wait until it has ended, or choose another name.")
            if not _is_at(held, lock):
                continue  # whoever held it has removed it: another may have a new one
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def _lock(file, wait):
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _is_at(file, path):
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    return False


@contextlib.contextmanager
def replacing_folder(path, keep=False):
    """Give an empty folder `path.partial`; on success it takes the place of `path`, on failure it stays beside it.

    With `keep` what an earlier failure left in it is still there.
    """
    path, partial = Path(path), partial_folder(path)
    if not keep:
        shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, exist_ok=True)
    yield partial
    if path.exists():
        shutil.rmtree(path)
    os.replace(partial, path)


def partial_folder(path):
    """Where `replacing_folder` keeps what is unfinished."""
    return Path(path).with_name(f"{Path(path).name}.partial")


def write_version(base, write):
    """Add the next version to a folder of versions, `base/1`, `base/2`, ...: a server that watches it never sees half a one.

    Args:
        base: the folder; made where there is none.
        write: called with an empty folder to fill. It is renamed on success and deleted on failure.

    Returns:
        The version's folder.
    """
    base = Path(base)
    base.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".", suffix=".partial", dir=base))  # no number, so no version
    try:
        write(partial)
        partial.chmod(_default_mode(0o777))  # mkdtemp's folders can be read by their owner alone
        for path in partial.rglob("*"):
            if path.is_file():
                _sync(path)
        while True:
            version = 1 + max((int(path.name) for path in base.iterdir() if path.name.isdecimal()), default=0)
            with contextlib.suppress(FileExistsError):  # another process was faster
                return _rename_new(partial, base / str(version))
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _rename_new(source, target):
    """Rename a folder to a name that isn't taken; a FileExistsError if it is."""
    try:
        return source.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise FileExistsError(target) from error
        raise


def _sync(path):
    """So that a file's name doesn't reach the disk before its content."""
    with open(path, "rb+") as written:
        os.fsync(written.fileno())


def _mode_for(path):
    """The mode `open` would give: mkstemp's files can be read by their owner alone."""
    return path.stat().st_mode & 0o777 if path.exists() else _default_mode(0o666)


def _default_mode(most):
    mask = os.umask(0)
    os.umask(mask)
    return most & ~mask
