"""The folders of finished pairs: find them, compare them with the wanted settings, write them atomically."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastnst.config.settings import Settings, picture_settings
from fastnst.digests import sha256
from fastnst.errors import ImageError, UsageError, printable
from fastnst.gallery.pairs import Pair, natural
from fastnst.process import signals_held


@dataclass(frozen=True)
class PairResult:
    """A finished pair.

    Attributes:
        pair: the pair.
        picture: the file of the result.
        record: the contents of ``pair.json``.
        kept: whether the pair was finished before this run.

    Example:
        >>> pair = Pair(Path("content_1.jpg"), Path("style_1.jpg"), Path("styled/gen_0"))
        >>> result = PairResult(pair, pair.folder / "gen_100.jpg", record={}, kept=False)
        >>> result.picture.name
        'gen_100.jpg'
    """

    pair: Pair
    picture: Path
    record: Mapping[str, Any]
    kept: bool

    def for_pair(self, pair: Pair) -> PairResult:
        """This result for ``pair``, whose paths are known; the record has only the names of the files."""
        return PairResult(pair, self.picture, self.record, self.kept)


class WriteError(ImageError):
    """A result cannot be written, which ends the run: other pairs would fail too."""


def check_output(output: Path) -> None:
    """Raise ImageError if ``output`` cannot be created or written to."""
    try:
        existing = next((folder for folder in (output, *output.parents) if folder.exists()), output)
    except OSError as error:
        raise ImageError(f"{output}: cannot be a folder ({error.strerror})") from error
    if not existing.is_dir():
        raise ImageError(f"{output}: {existing} is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ImageError(f"{output}: no permission to write in {existing}")


def finished(output: Path) -> dict[tuple[str, str], PairResult]:
    """The finished pairs in ``output``, by the names of content and style."""
    found: dict[tuple[str, str], PairResult] = {}
    for folder in sorted(output.glob("gen_*"), key=natural):
        made = _read(folder)
        if made is not None:
            found.setdefault(made.pair.key, made)
    return found


def _read(folder: Path) -> PairResult | None:
    try:
        record = json.loads((folder / "pair.json").read_text(encoding="utf-8"))
        content, style = (Path(record[part]["name"]) for part in ("content", "style"))
        picture = folder / Path(record["result"]).name
        complete = isinstance(record["settings"], dict) and picture.is_file()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return PairResult(Pair(content, style, folder), picture, record, kept=True) if complete else None


def numbered(
    pairs: Sequence[tuple[Path, Path]], output: Path, existing: Mapping[tuple[str, str], PairResult]
) -> list[Pair]:
    """Give each pair its folder: the one of the finished pair, or the one with the lowest unused number."""
    taken = {path.name for path in output.glob("gen_*")}
    free = (name for name in map("gen_{}".format, range(len(pairs) + len(taken))) if name not in taken)
    result = []
    for content, style in pairs:
        made = existing.get((content.name, style.name))
        result.append(Pair(content, style, made.pair.folder if made is not None else output / next(free)))
    return result


def refuse_changed(pairs: Sequence[Pair], existing: Mapping[tuple[str, str], PairResult], settings: Settings) -> None:
    """Raise UsageError if finished pairs were made from other files or with other settings."""
    wanted, digests = _compared(settings.to_dict()), Digests()
    changed = []
    for pair in pairs:
        made = existing.get(pair.key)
        reason = None if made is None else _difference(pair, made.record, wanted, digests)
        if reason is not None:
            changed.append((pair.folder, reason))
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise UsageError(
            f"{changed[0][0]}{more}: made before with other files or settings ({changed[0][1]}); "
            "replace them with --force, or name another output folder"
        )


def _difference(
    pair: Pair, record: Mapping[str, Any], wanted: Mapping[str, Any], digests: Mapping[Path, str | None]
) -> str | None:
    found = _compared({**Settings().to_dict(), **record["settings"]})  # an older record lacks new settings
    reasons = [
        f"{name} was {printable(str(found.get(name)))}, is {printable(str(wanted.get(name)))}"
        for name in sorted({*wanted, *found})
        if wanted.get(name) != found.get(name)
    ]
    for part, path in (("content", pair.content), ("style", pair.style)):
        if record[part].get("sha256") != digests[path]:
            reasons.append(f"{path.name} has changed")
    return "; ".join(reasons) or None


def _compared(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a folder depends on, as JSON stores them: those that change the picture or the snapshots."""
    values: dict[str, Any] = json.loads(json.dumps(settings))
    return {**picture_settings(values), "snapshot_every": values.get("snapshot_every")}


class Digests(dict[Path, "str | None"]):
    """The SHA-256 of files, each computed once; None for a file that cannot be read, which is reported on its use."""

    def __missing__(self, path: Path) -> str | None:
        try:
            self[path] = sha256(path)
        except OSError:
            self[path] = None
        return self[path]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise a WriteError if writing ``path`` fails."""
    try:
        yield
    except ImageError as error:
        raise WriteError(str(error)) from error
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror})") from error


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes ``path`` at the end of the block, or is removed after an error."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    new = not path.parent.exists()
    with writing(path):
        temporary.mkdir(parents=True)
    try:
        yield temporary
        with writing(path), signals_held():
            _replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if new and not any(path.parent.iterdir()):  # created for this pair alone
            path.parent.rmdir()


def _replace(temporary: Path, path: Path) -> None:
    if not path.exists():
        temporary.rename(path)
        return
    old = temporary.with_suffix(".old")
    path.rename(old)
    temporary.rename(path)
    shutil.rmtree(old, ignore_errors=True)
