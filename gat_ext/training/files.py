"""Files that are written whole or not at all, and folders that one process writes to at a time."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

LOCK = ".lock"
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}  # of file systems without them


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Collects the content of a file in memory; the complete file then replaces ``path``.

    The old file stays until then.

    Args:
        path: the final place; its folder is created.

    Raises:
        OSError: the folder cannot be written to, or is full; the error names ``path``.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.txt"
        >>> with replacing(path) as file:
        ...     _ = file.write(b"whole")
        >>> path.read_text()
        'whole'
    """
    content = io.BytesIO()
    yield content
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())  # the name must not reach the disk before the content
        os.replace(part, path)
    except OSError as error:
        raise OSError(
            f"cannot write {path}: {error.strerror}; what was there before is unchanged"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def remove_parts(folder: Path, names: tuple[str, ...]) -> None:
    """Removes partial files ``names`` of killed processes. Call it while the folder is claimed."""
    for name in names:
        for part in folder.glob(f"{name}.*.part"):
            part.unlink(missing_ok=True)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Locks a folder, created where it is missing, for this process.

    The lock ends with the process, however that ends. Folders that were created and are empty at
    the end are removed. File systems without locks are used without one.

    Args:
        folder: to write to.

    Raises:
        ValueError: another process has it.
        OSError: it cannot be created or written to.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "new"
        >>> with claimed(folder):
        ...     folder.is_dir()
        True
        >>> folder.exists()
        False
    """
    created = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _locked(folder / LOCK)
    except OSError as error:
        _remove_empty(created)
        raise OSError(
            f"cannot write results to {folder}: {error.strerror}; choose another folder with --out"
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / LOCK).unlink(missing_ok=True)  # before it is unlocked; see _locked
        os.close(lock)
        _remove_empty(created)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:  # the deepest first
        with suppress(OSError):
            folder.rmdir()


def _locked(path: Path) -> int:
    """Descriptor of a lock file that this process holds."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                owner = os.read(lock, 200).decode(errors="replace").strip() or "another process"
                raise ValueError(
                    f"{path.parent} is in use by {owner}; wait until it ends, or choose another "
                    "folder with --out"
                ) from error
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
            with suppress(FileNotFoundError):
                # Another process may have removed the file between opening and locking it.
                if os.path.samestat(os.fstat(lock), os.stat(path)):
                    os.ftruncate(lock, 0)
                    os.write(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
                    return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)
