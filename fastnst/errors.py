"""The errors of fastnst. Messages are one line; ``exit_code`` is that of the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FastnstError(Exception):
    """Base class of the errors of fastnst.

    Example:
        >>> import fastnst
        >>> try:
        ...     fastnst.Settings.from_preset("gatis")
        ... except fastnst.FastnstError as error:  # doctest: +ELLIPSIS
        ...     print(error)
        unknown preset 'gatis', did you mean gatys? (known: default, gatys, ...)
    """

    exit_code = 1


class UsageError(FastnstError, ValueError):
    """An argument or setting that is not valid (exit code 2). Also a ValueError."""

    exit_code = 2


class ImageError(FastnstError):
    """A picture that cannot be read, written or used."""


class WeightsError(FastnstError):
    """Weights that cannot be found, downloaded, verified or read."""


class CheckpointError(FastnstError):
    """A checkpoint that cannot be read or written, is in use, or belongs to another run."""


class OutOfMemoryError(FastnstError, MemoryError):
    """Too little memory for a size; the message names one that fits. Also a MemoryError and, when raised by a run, a
    ``torch.OutOfMemoryError``."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``", did you mean X?"`` for the known name closest to ``name``, or an empty string."""
    found = difflib.get_close_matches(name[:100].lower(), list(known), n=1, cutoff=0.5)
    return f", did you mean {found[0]}?" if found else ""


def printable(text: str, limit: int | None = 200) -> str:
    r"""Return untrusted ``text`` made safe for one line of a terminal, truncated to ``limit`` characters with ``...``.

    Control characters, line breaks, bidirectional overrides and lone surrogates become ``\x1b`` or ``\u202e``.
    """
    shown = "".join(c if c.isprintable() else _escape(ord(c)) for c in text[: None if limit is None else limit + 1])
    return shown if limit is None or len(shown) <= limit else shown[: limit - 3] + "..."


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def shown(value: object, limit: int = 60) -> str:
    """``repr(value)`` for a message: truncated, safe for a terminal, and defined for every value."""
    try:
        return printable(repr(value), limit)
    except (ValueError, RecursionError):  # thousands of digits, or nested too deep
        return f"a value of type {type(value).__name__} that is too large to show"
