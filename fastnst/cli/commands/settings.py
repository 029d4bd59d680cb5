"""``fastnst settings``: print the settings in a picture or a file."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass

from fastnst.cli.output import say, say_json
from fastnst.config.toml import read_stored, to_toml
from fastnst.errors import printable


@dataclass(frozen=True)
class SettingsRequest:
    """The options of ``fastnst settings``."""

    file: str
    json: bool


def main(options: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    return show(SettingsRequest(options.file, options.json))


def show(request: SettingsRequest) -> int:
    """Print settings as TOML, preceded by the files that a picture was made from as comments."""
    stored = read_stored(request.file)
    if request.json:
        say_json({"settings": stored.settings.to_dict(), "files": stored.files})
        return 0
    text = to_toml(stored.settings).rstrip()
    for part, file in stored.files.items():
        name = json.dumps(file["name"], ensure_ascii=False)
        say(f"# {part}: {printable(name, None)}, sha256 {file['sha256']}")
    say(text)
    return 0
