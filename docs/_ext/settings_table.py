"""The directives ``settings-table`` and ``preset-table``, read from ``fastnst.config`` at build time."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from cli_reference import escaped
from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

GROUPS = {
    "Presets and images": (
        "preset size crop steps scales scale_factor min_scale min_shorter_side init noise seed keep_color match_color "
        "photoreal snapshot_every max_pixels"
    ),
    "The loss": (
        "content_weight style_weight tv_weight content_layers style_layers content_loss content_form style_form "
        "style_loss style_weights normalize_gradients tv_kind style_fit style_scale style_size"
    ),
    "The network": "arch weights pooling padding tileable edges",
    "The optimizer": "optimizer learning_rate betas epsilon clamp history first_change history_dtype carry average",
    "The machine": "device precision convolution tiles memory graph",
}


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"``{value:g}``"
    if isinstance(value, tuple):
        if value and isinstance(value[0], tuple):
            return ", ".join(f"``{name}:{weight:.4g}``" for name, weight in value)
        return f"``{','.join(f'{one:g}' for one in value)}``" if value else "none"
    return f"``{value}``" if value != "" else "none"


def _values(name: str) -> str:
    """The range of a number, or the names that a setting can have."""
    from fastnst.config.ranges import CHOICES, RANGES
    from fastnst.losses import CONTENT_FORMS, STYLE_FORMS

    if name in RANGES:
        return re.sub(r"\d{5,}", lambda found: f"{int(found[0]):,}".replace(",", " "), RANGES[name].short())
    names = {**CHOICES, "content_form": CONTENT_FORMS, "style_form": STYLE_FORMS}.get(name, ())
    return ", ".join(f"``{one}``" for one in names)


class SettingsTable(Directive):
    """``.. settings-table::``, inside ``eval-rst``: every setting with its meaning, default and range."""

    def run(self) -> list[nodes.Node]:
        from fastnst import Settings

        fields = {field.name: field for field in dataclasses.fields(Settings)}
        grouped = [name for names in GROUPS.values() for name in names.split()]
        lines: list[str] = []
        for title, names in GROUPS.items():
            lines += [f".. rubric:: {title}", "", *_head(("Setting", "Meaning", "Default", "Values"), "21 40 19 20")]
            for name in names.split():
                if name not in fields:
                    raise ExtensionError(f"settings-table: there is no setting {name}")
                field = fields[name]
                meaning = escaped(field.metadata["help"])
                same = "" if field.metadata.get("changes_picture", True) else " †"
                lines += _row((f"``{name}``{same}", meaning, _shown(field.default), _values(name)))
        if left := set(fields) - set(grouped):
            raise ExtensionError(f"settings-table: no group has {', '.join(sorted(left))}")
        return _parsed(self, lines)


class PresetTable(Directive):
    """``.. preset-table::``, inside ``eval-rst``: what each preset changes."""

    def run(self) -> list[nodes.Node]:
        from fastnst.config import PRESETS

        lines = _head(("Preset", "Changes against the default"), "16 84")
        for name, changes in PRESETS.items():
            facts = [f"``{key}`` {_shown(value)}" for key, value in changes.items()]
            lines += _row((f"``{name}``", "; ".join(facts) or "nothing: these are the defaults"))
        return _parsed(self, lines)


def _head(titles: Sequence[str], widths: str) -> list[str]:
    return [".. list-table::", "   :header-rows: 1", f"   :widths: {widths}", "", *_row(titles)]


def _row(cells: Sequence[str]) -> list[str]:
    return [f"   {'* ' if i == 0 else '  '}- {cell}" for i, cell in enumerate(cells)]


def _parsed(directive: Directive, lines: list[str]) -> list[nodes.Node]:
    spaced: list[str] = []
    for line in lines:
        if line.startswith(".. rubric") and spaced:
            spaced.append("")
        spaced.append(line)
    parent = nodes.Element()
    source = StringList(spaced, source=f"<{directive.name}>")
    directive.state.nested_parse(source, directive.content_offset, parent)
    return parent.children


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("settings-table", SettingsTable)
    app.add_directive("preset-table", PresetTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
