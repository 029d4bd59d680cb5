"""The structure of the package: which room may import which, and how long files, functions and signatures may be."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "fastnst"
# From top to bottom; a module imports from its own floor or from a lower one. See docs/explanation/design.md.
FLOORS = (
    {"cli", "__main__"},
    {"studio"},
    {"gallery", "film", "notebook"},
    {"run"},
    {"optim"},
    {"strips"},
    {"objective"},
    {"losses"},
    {"network"},
    {"weights"},
    {"config"},
    {"images"},
    {"ops"},
    {"distributed", "devices", "digests", "files", "limits", "process", "spill"},
    {"errors"},
)
FLOOR = {room: floor for floor, rooms in enumerate(reversed(FLOORS)) for room in rooms}
MOST_LINES, MOST_FUNCTION_LINES, MOST_PARAMETERS = 300, 50, 7
# The parameters of these are those of an op's schema, in its order: torch calls them by position.
OF_A_SCHEMA = {
    "fastnst/ops/layer_backward.py:_fake",
    "fastnst/ops/pool.py:_fake_backward",
    "fastnst/ops/reference/adam.py:adam_step_",
    "fastnst/ops/reference/convolution.py:conv3x3_backward_out",
    "fastnst/ops/reference/feature_losses.py:layer_backward_",
    "fastnst/ops/reference/pooling.py:pool_backward",
}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def room_of(module: str) -> str:
    """The room of ``fastnst.room.module``; the package itself has none."""
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and module of each import from the package, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            whole = node.module == "fastnst"
            yield from ((node.lineno, f"fastnst.{alias.name}" if whole else node.module) for alias in node.names)


def climbs(path: Path) -> list[str]:
    """The imports of a file that point up."""
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    found = []
    for line, module in imports(path):
        room = room_of(module) if module.startswith("fastnst.") else ""
        if room in FLOOR and FLOOR[room] > FLOOR[own]:
            found.append(f"{path.relative_to(ROOT)}:{line}: {own} imports {module}, which is above it")
    return found


def test_no_import_points_up() -> None:
    paths = [path for path in sources("fastnst") if path.parent != PACKAGE or path.stem in FLOOR]
    assert len(paths) > 90
    assert [climb for path in paths for climb in climbs(path)] == []


def test_an_import_that_points_up_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "fastnst" / "ops" / "gram.py"
    module.parent.mkdir(parents=True)
    module.write_text("from fastnst.errors import UsageError\ndef f():\n    from fastnst import losses\n")
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path / "fastnst")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert climbs(module) == ["fastnst/ops/gram.py:3: ops imports fastnst.losses, which is above it"]


def test_every_room_has_a_floor() -> None:
    rooms = {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in sources("fastnst")}
    assert rooms - {"__init__"} == set(FLOOR)


def test_no_two_modules_import_each_other() -> None:
    def name(path: Path) -> str:
        parts = path.relative_to(ROOT).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    graph: dict[str, set[str]] = {}
    for path in sources("fastnst"):
        # Imports inside functions, and those for types alone, count as well.
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        found = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
        graph[name(path)] = {f"{node.module}.{alias.name}" for node in found for alias in node.names} | {
            str(node.module) for node in found
        }
    packages = {module for module in graph if (ROOT / module.replace(".", "/")).is_dir()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module in done:
            return
        for other in graph[module] & graph.keys() - packages:
            visit(other, (*path, module))
        done.add(module)

    for module in graph.keys() - packages:
        visit(module, ())


def test_modules_are_short() -> None:
    lengths = {
        path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources("fastnst", "bench", "tools")
    }
    long = {str(path.relative_to(ROOT)): count for path, count in lengths.items() if count > MOST_LINES}
    assert long == {}


def functions() -> Iterator[tuple[Path, ast.FunctionDef]]:
    for path in sources("fastnst", "bench", "tools"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                yield path, node


def body_lines(node: ast.FunctionDef) -> int:
    """The lines of a function from ``def`` to its end, without the docstring."""
    count = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        count -= (first.end_lineno or first.lineno) - first.lineno + 1
    return count


def test_functions_are_short() -> None:
    long = {
        f"{path.relative_to(ROOT)}:{node.name}": count
        for path, node in functions()
        if (count := body_lines(node)) > MOST_FUNCTION_LINES
    }
    assert long == {}


def test_signatures_are_short() -> None:
    long = set()
    for path, node in functions():
        names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
        if len([name for name in names if name not in ("self", "cls", "ctx")]) > MOST_PARAMETERS:
            long.add(f"{path.relative_to(ROOT)}:{node.name}")
    assert long == OF_A_SCHEMA


def test_benches_and_tools_are_packages() -> None:
    edits = [str(path) for path in sources("bench", "tools") if "sys.path" in path.read_text(encoding="utf-8")]
    assert edits == []


def test_a_picture_passes_through_ten_modules() -> None:
    command = [sys.executable, "-m", "tools.trace_picture"]
    child = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=True)
    *way, _, count = child.stdout.splitlines()
    assert int(count.split()[0]) <= 10, child.stdout
    stops = [line.split()[0] for line in way]
    assert stops[0] == "run.stylizer"
    assert stops[-1] == "images.saving"
    assert child.stdout.strip() in (ROOT / "docs" / "explanation" / "design.md").read_text(encoding="utf-8")
    # In once and out once: the result alone is entered twice, when it is made and when it is saved.
    assert sorted(stops) == sorted([*set(stops), "run.result"])


# Names of the private language that the package once had, and the words that stand for them now.
REPLACED = {
    r"Settings\.of\b": "Settings.from_preset",
    r"\.but\(": ".replace(",
    r"\bTap\b": "LayerTerms",
    r"\b(Pull|Slope)\b": "FeatureGradient, ScaledFeatureGradient",
    r"\b(lay_on|look_at_\w+)\b": "add_gradient_, style_value_and_gradient, content_value",
    r"\b(Walk|turn_back)\b": "Stepper, backtrack",
    r"\b(Shelf|Cuts|Edge)\b": "SpillBuffer, StripLayout, Halo",
    r"\b(Keeper|Capturer)\b": "CheckpointWriter, StepCapture",
    r"\btapped\b": "layer_backward_, layer terms",
    r"\blet go\b": "released",
    r"\b(the|its|a) way (up|down)\b": "forward pass, backward pass",
    r"\blooked at\b": "observed, evaluated",
    r"(?<!-)\b[Cc]olour": "color",
    r"\b(normalis|optimis|minimis|initialis|recognis)(e|ed|es|ing|ation)\b": "American spelling, as in PyTorch",
}


@pytest.mark.parametrize("pattern", REPLACED)
def test_replaced_words_do_not_come_back(pattern: str) -> None:
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=False).stdout.split()
    if not listed:
        pytest.skip("needs the git checkout")
    kinds = (".py", ".md", ".cpp", ".h", ".cu", ".cuh", ".toml")
    paths = [ROOT / name for name in listed if name.endswith(kinds) and Path(name) != Path(__file__).relative_to(ROOT)]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]} (say: {REPLACED[pattern]})"
        for path in paths
        if path.exists()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert found == []
