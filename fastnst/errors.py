"""The errors fastnst raises on purpose: one clear line each, and the exit code the command line gives them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FastnstError(Exception):
    """Base of every error raised on purpose. ``exit_code`` is what the command line exits with."""

    exit_code = 1


class UsageError(FastnstError, ValueError):
    """A value or name that makes no sense, whatever the files hold (exit code 2)."""

    exit_code = 2


class ImageError(FastnstError):
    """A picture that cannot be read, written or used."""


class WeightsError(FastnstError):
    """A weights file that cannot be found, fetched, verified or read."""


class CheckpointError(FastnstError):
    """A checkpoint that cannot be read or written, that another run uses, or that is of another run."""


class OutOfMemoryError(FastnstError, MemoryError):
    """The device has too little memory for this size; the message says which size would fit. Those that a run raises
    are of ``torch.OutOfMemoryError`` as well."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``", did you mean X?"`` for the known name closest to ``name``, or an empty string."""
    found = difflib.get_close_matches(name[:100].lower(), list(known), n=1, cutoff=0.5)
    return f", did you mean {found[0]}?" if found else ""


def printable(text: str, limit: int | None = 200) -> str:
    r"""Return foreign ``text`` fit for one line of a terminal, at most ``limit`` characters, cut with ``...``.

    Control characters, line breaks, bidirectional overrides and lone surrogates become ``\x1b`` or ``\u202e``.
    """
    shown = "".join(c if c.isprintable() else _escape(ord(c)) for c in text[: None if limit is None else limit + 1])
    return shown if limit is None or len(shown) <= limit else shown[: limit - 3] + "..."


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def shown(value: object, limit: int = 60) -> str:
    """``repr(value)`` for a message: cut, safe for a terminal, and there for every value."""
    try:
        return printable(repr(value), limit)
    except (ValueError, RecursionError):  # of an integer of thousands of digits, of a nest too deep
        return f"a value of type {type(value).__name__} that is too large to show"
