"""The folders of finished pairs: found again, compared with what is wanted, written whole."""

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

from fastnst.errors import ImageError, UsageError, printable
from fastnst.gallery.pairs import Pair, natural
from fastnst.interrupts import uninterrupted
from fastnst.settings import Settings, recipe


@dataclass(frozen=True)
class Made:
    """A finished pair: its result, what ``pair.json`` holds, and whether it was there before."""

    pair: Pair
    picture: Path
    record: Mapping[str, Any]
    kept: bool

    def of(self, pair: Pair) -> Made:
        """The same for a pair whose files are known: the record knows only their names."""
        return Made(pair, self.picture, self.record, self.kept)


class WriteError(ImageError):
    """A result cannot be written: the pairs that follow would fare no better."""


def check_output(output: Path) -> None:
    """Raise ImageError where nothing could be written, before there is something to write."""
    try:
        existing = next((folder for folder in (output, *output.parents) if folder.exists()), output)
    except OSError as error:
        raise ImageError(f"{output}: cannot be a folder ({error.strerror})") from error
    if not existing.is_dir():
        raise ImageError(f"{output}: {existing} is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ImageError(f"{output}: no permission to write in {existing}")


def finished(output: Path) -> dict[tuple[str, str], Made]:
    """The complete pairs in ``output``, by the names of content and style."""
    found: dict[tuple[str, str], Made] = {}
    for folder in sorted(output.glob("gen_*"), key=natural):
        made = _read(folder)
        if made is not None:
            found.setdefault(made.pair.key, made)
    return found


def _read(folder: Path) -> Made | None:
    try:
        record = json.loads((folder / "pair.json").read_text(encoding="utf-8"))
        content, style = (Path(record[part]["name"]) for part in ("content", "style"))
        picture = folder / Path(record["result"]).name
        complete = isinstance(record["settings"], dict) and picture.is_file()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return Made(Pair(content, style, folder), picture, record, kept=True) if complete else None


def numbered(pairs: Sequence[tuple[Path, Path]], output: Path, there: Mapping[tuple[str, str], Made]) -> list[Pair]:
    """Folders for the pairs: the one a pair has, else the lowest number that no folder has."""
    taken = {path.name for path in output.glob("gen_*")}
    free = (name for name in map("gen_{}".format, range(len(pairs) + len(taken))) if name not in taken)
    result = []
    for content, style in pairs:
        made = there.get((content.name, style.name))
        result.append(Pair(content, style, made.pair.folder if made is not None else output / next(free)))
    return result


def refuse_changed(pairs: Sequence[Pair], there: Mapping[tuple[str, str], Made], settings: Settings) -> None:
    """Raise UsageError where finished pairs were made from other files or with other settings."""
    wanted, digests = _recipe(settings.to_dict()), Digests()
    changed = []
    for pair in pairs:
        made = there.get(pair.key)
        reason = None if made is None else _difference(pair, made.record, wanted, digests)
        if reason is not None:
            changed.append((pair.folder, reason))
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise UsageError(
            f"{changed[0][0]}{more}: finished before, but made otherwise ({changed[0][1]}); "
            "--force makes them again, another output folder keeps both"
        )


def _difference(
    pair: Pair, record: Mapping[str, Any], wanted: Mapping[str, Any], digests: Mapping[Path, str | None]
) -> str | None:
    found = _recipe({**Settings().to_dict(), **record["settings"]})  # which may be older than some of the settings
    reasons = [
        f"{name} was {printable(str(found.get(name)))}, is {printable(str(wanted.get(name)))}"
        for name in sorted({*wanted, *found})
        if wanted.get(name) != found.get(name)
    ]
    for part, path in (("content", pair.content), ("style", pair.style)):
        if record[part].get("sha256") != digests[path]:
            reasons.append(f"{path.name} has changed")
    return "; ".join(reasons) or None


def _recipe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a folder depends on, as JSON gives it back: what changes the picture, and which snapshots there are."""
    values: dict[str, Any] = json.loads(json.dumps(settings))
    return {**recipe(values), "snapshot_every": values.get("snapshot_every")}


class Digests(dict[Path, "str | None"]):
    """The SHA-256 of files, each read once; None for one that cannot be read, which is reported when it is used."""

    def __missing__(self, path: Path) -> str | None:
        from fastnst.weights.download import sha256

        try:
            self[path] = sha256(path)
        except OSError:
            self[path] = None
        return self[path]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write ``path`` into a WriteError."""
    try:
        yield
    except ImageError as error:
        raise WriteError(str(error)) from error
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror})") from error


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path``; move it to ``path`` if the block ends well, else remove it."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    new = not path.parent.exists()
    with writing(path):
        temporary.mkdir(parents=True)
    try:
        yield temporary
        with writing(path), uninterrupted():
            _replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if new and not any(path.parent.iterdir()):  # made for this pair, of which nothing came
            path.parent.rmdir()


def _replace(temporary: Path, path: Path) -> None:
    if not path.exists():
        temporary.rename(path)
        return
    old = temporary.with_suffix(".old")
    path.rename(old)
    temporary.rename(path)
    shutil.rmtree(old, ignore_errors=True)
