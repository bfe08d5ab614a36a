"""What a user's file says, whatever its name and date: a digest of its content."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

__all__ = ["content_of"]


def content_of(path: str | Path) -> str:
    """Digest of the content of a file, or of all files below a folder and their names there.

    Raises
    ------
    ValueError
        If there is neither.
    """
    path = Path(path)
    try:
        if path.is_file():
            return _digest(path)
        if not path.is_dir():  # reading a device or a pipe might never end
            raise ValueError(f"path = {str(path)!r}: must be a file or a folder")
        files = sorted(file for file in path.rglob("*") if file.is_file())
        lines = [f"{_digest(file)} {file.relative_to(path).as_posix()}\n" for file in files]
    except OSError as error:
        raise ValueError(f"path = {str(path)!r}: must be readable: {error}") from error
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:32]


def _digest(path: Path) -> str:
    status = path.stat()
    stamp = status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return _read(path.absolute(), stamp)


@cache
def _read(path: Path, stamp: tuple[int, ...]) -> str:
    """Read once a process; no tool sets the time of a file's last change of status."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]
