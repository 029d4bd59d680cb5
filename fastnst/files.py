"""Writing files atomically: a path holds the old file or the complete new one."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ASSETS = Path(__file__).with_name("assets")
"""The folder of the files that come with the package, other than weights."""


def destination(path: Path) -> Path:
    """The file that ``path`` refers to: symbolic links are followed, even to a file that does not exist yet."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def obstacle(path: Path, *, parents: bool | None = None) -> str | None:
    """Why :func:`replacing` could not write ``path``, as the end of a sentence; None if it could.

    With ``parents=True`` a missing folder is no obstacle; with ``parents=False`` the message suggests it.
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
    """Yield a temporary path, and replace ``path`` by the file written there if the block succeeds.

    The temporary path is in the folder of ``path`` and has its suffix, because image writers choose the format by it.
    It is removed whatever happens, unless :func:`put` fails half-way. The new file gets the permissions of a plain
    ``open(path, "w")``.
    """
    target = destination(path)
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    name = f".{target.stem[:80]}.{secrets.token_hex(4)}.part{path.suffix}"
    # If the file is writable but its folder is not, the new file is written elsewhere and copied.
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
    """A file that could not be moved into place; the message names the temporary file that holds it."""


def put(made: Path, target: Path) -> None:
    """Move the file ``made`` to ``target`` atomically.

    A file that cannot be replaced, such as a mounted one or one in a read-only folder, is overwritten instead. Raises
    OSError; WrittenElsewhere if overwriting failed half-way, in which case ``made`` is kept.
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
