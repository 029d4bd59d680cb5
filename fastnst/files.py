"""Results are written beside their place and renamed, so that a path holds a whole file or the old one."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a fresh temporary path beside ``path``; move it over ``path`` if the block ends well, else remove it.

    The temporary name keeps the suffix of ``path``, since image writers choose the format by it. The new file gets the
    permissions that a plain ``open(path, "w")`` would give it.
    """
    temporary = path.with_name(f".{path.stem[:80]}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
