"""Results are written beside their place and renamed, so that a path holds a whole file or the old one."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def destination(path: Path) -> Path:
    """The file that ``path`` stands for: symbolic links are followed, also one to a file that is yet to be made."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def obstacle(path: Path, *, parents: bool | None = None) -> str | None:
    """Why :func:`replacing` could not write ``path``, as the end of a sentence; None where it could.

    With ``parents`` a folder that is missing is none, since it can be made; False offers that where there is one.
    """
    try:
        target = destination(path)
        folder = target.parent
        if target.is_symlink():
            return "is a symbolic link that leads nowhere; expected the name of a file"
        if target.is_dir():
            return "is a folder; expected the name of a file"
        if target.exists() and not target.is_file():
            return "is a pipe or a device; expected the name of a file"
        if parents:
            folder = next(above for above in (folder, *folder.parents) if above.exists())
        if not folder.is_dir():
            offer = ", or pass parents=True (--parents)" if parents is False else ""
            return f"there is no folder {folder}; " + ("it is a file" if folder.exists() else f"make it first{offer}")
    except (OSError, ValueError) as error:
        return f"cannot be written ({getattr(error, 'strerror', None) or error})"
    if not (_is_open(folder) or (target.exists() and os.access(target, os.W_OK))):
        return f"no permission to write in {folder}"
    return None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a fresh temporary path; put the file made there in the place of ``path`` if the block ends well.

    The temporary path is in the folder of ``path`` and keeps its suffix, since image writers choose the format by it.
    See :func:`put` for what becomes of it; whatever else happens, it is removed. The new file gets the permissions that
    a plain ``open(path, "w")`` would give it.
    """
    target = destination(path)
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    name = f".{target.stem[:80]}.{secrets.token_hex(4)}.part{path.suffix}"
    # A folder may be closed whose file is open: the new one is then made elsewhere and copied.
    closed = target.is_file() and not _is_open(target.parent)
    folder = Path(tempfile.mkdtemp()) if closed else target.parent
    temporary, left = folder / name, False
    try:
        yield temporary
        put(temporary, target)
    except WrittenElsewhere:
        left = True
        raise
    finally:
        if not left:
            temporary.unlink(missing_ok=True)
            if closed:
                folder.rmdir()


class WrittenElsewhere(OSError):
    """A file that could not be put in its place: its last place is all that is left of it."""


def put(made: Path, target: Path) -> None:
    """Move the file ``made`` to ``target``, at one stroke.

    A file that cannot be replaced, such as one that is mounted or in a folder that is closed, is written over instead.
    Raises OSError; WrittenElsewhere if that failed half-way, and ``made`` is then left.
    """
    try:
        made.replace(target)
        return
    except OSError:
        if not (target.is_file() and os.access(target, os.W_OK)):
            raise
    try:
        shutil.copyfile(made, target)
    except OSError as error:
        reason = f"{error.strerror or error}; the whole file is {made}"
        raise WrittenElsewhere(error.errno or errno.EIO, reason, str(target)) from error
    made.unlink()


def _is_open(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)
