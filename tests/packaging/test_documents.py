"""The documents: their examples run, what they name exists, and what is committed stays small.

Examples run with pictures of 64 pixels and two steps in place of what they say. `make docs-check` builds the site,
which checks directives, roles and links.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import pytest
from document_blocks import DOCS, PAGES, ROOT, Block, blocks, inline

if not DOCS.exists():
    pytest.skip("needs a checkout", allow_module_level=True)

HERE = Path(__file__).parent
HEADING = "examples of the documents"
SHELL = "bash"
SMALL_SIDES = ("photo.jpg", "painting.jpg", "drawing.jpg", "other.jpg", "cat.jpg")
FILMS = ("clip.mp4", "left.mp4", "right.mp4")
MASKS = ("sky.png", "land.png", "only_the_water.png", "face.png", "hole.png")
Note = Callable[[str, str], None]

pages = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pictures that examples name."""
    import torch

    from fastnst import images
    from fastnst.film import FilmInfo, FilmWriter

    folder = tmp_path_factory.mktemp("inputs")
    for asset, names in (("demo_photo", SMALL_SIDES), ("demo_painting", ("painting.jpg",))):
        small = images.load(ROOT / "fastnst" / "assets" / f"{asset}.jpg", crop=(48, 64)).pixels
        for name in names:
            images.save(folder / name, small)
        for name in ("content_1.jpg", "style_1.jpg"):
            (folder / "pictures").mkdir(exist_ok=True)
            images.save(folder / "pictures" / name, small)
    for number, name in enumerate(MASKS):
        images.save(folder / name, (torch.arange(64) % 2 == number % 2).float().expand(1, 3, 48, 64))
    for name in FILMS:
        with FilmWriter(folder / name, FilmInfo(64, 48, Fraction(12))) as writer:
            for number in range(2):
                writer.add(small.roll(number, 3), time=Fraction(number, 12))
    (folder / "shots.toml").write_text("[[shot]]\nfirst = 0\n")
    return folder


@pytest.fixture
def folder(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the pictures that examples name."""
    here = tmp_path / "here"
    shutil.copytree(inputs, here)
    monkeypatch.chdir(here)
    monkeypatch.setenv("FASTNST_CACHE", str(tmp_path / "cache"))
    return here


@pytest.fixture(scope="module")
def python() -> Iterator[subprocess.Popen[str]]:
    """A process that runs the Python blocks of one page after another: torch is imported once."""
    with subprocess.Popen(
        [sys.executable, HERE / "document_python.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pages
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            there = [page.parent / target, page.parent / f"{target}.md"]
            assert any(path.exists() for path in there), target


@pages
def test_every_block_is_of_a_kind_that_is_tried(page: Path) -> None:
    for block in blocks(page):
        assert block.directive or block.kind in (SHELL, "python", "toml", "text"), f"{page.name}:{block.line}"
    assert page.read_text().count("```") == 2 * len(blocks(page)), "a block that is not closed, or not found"


@pages
def test_every_page_is_in_the_contents(page: Path) -> None:
    """Each page of the site is listed by a toctree."""
    if DOCS not in page.parents or page == DOCS / "index.md":
        return
    listed = set()
    for other in DOCS.rglob("*.md"):
        for block in blocks(other):
            if block.kind == "{toctree}":
                listed |= {
                    (other.parent / line).resolve() for line in block.text.splitlines() if line[:1] not in ("", ":")
                }
    assert page.with_suffix("").resolve() in listed


def of_kind(page: Path, note: Note, kind: str) -> list[Block]:
    """The blocks of a kind that run; what does not is noted with its reason. Skips a page that has none."""
    found = [block for block in blocks(page) if block.kind == kind]
    name = page.relative_to(ROOT)
    for block in found:
        if block.reason is not None:
            note(HEADING, f"NOT RUN {name}:{block.line}: {block.reason}")
    runs = [block for block in found if block.reason is None]
    if runs:
        note(HEADING, f"{name}: {len(runs)} {kind} blocks")
    return runs


@pages
def test_toml_blocks_are_settings(page: Path, tmp_path: Path, note: Note) -> None:
    import fastnst

    for block in of_kind(page, note, "toml"):
        file = tmp_path / "block.toml"
        file.write_text(block.text)
        fastnst.load_settings(file)


@pages
def test_blocks_run(
    page: Path, folder: Path, python: subprocess.Popen[str], note: Note, capfd: pytest.CaptureFixture[str]
) -> None:
    """Commands in their order, then the Python blocks, which may read what the commands have written."""
    for block in of_kind(page, note, SHELL):
        for command in block.commands():
            checked = run_line(command, capfd)
            if checked:
                note(HEADING, f"NOT RUN {page.relative_to(ROOT)}: {command}: {checked}")
    run_python(page, folder, python, note)


def run_python(page: Path, folder: Path, python: subprocess.Popen[str], note: Note) -> None:
    """Run the Python blocks one after the other in one namespace; a text block is what the one before it prints."""
    found = of_kind(page, note, "python")
    if not found:
        return
    assert python.stdin is not None
    assert python.stdout is not None
    request = {"name": page.name, "folder": str(folder), "blocks": [(block.line, block.text) for block in found]}
    python.stdin.write(json.dumps(request) + "\n")
    python.stdin.flush()
    answer = json.loads(python.stdout.readline() or '{"error": "the process has ended"}')
    assert "error" not in answer, answer["error"]
    printed = dict(zip([block.line for block in found], answer["printed"], strict=True))
    for shown in of_kind(page, note, "text"):
        before = max(line for line in printed if line < shown.line)
        assert printed[before] == shown.text, f"{page.name}:{shown.line}"


def run_line(command: str, capfd: pytest.CaptureFixture[str]) -> str | None:
    """Run a line, or check what it names; returns what was checked instead of running it."""
    from fastnst.cli import main

    words = shlex.split(command)
    target = None
    if ">" in words:
        words, target = words[: words.index(">")], words[-1]
    if words[0] != "fastnst":
        return check_line(words)
    capfd.readouterr()
    code = main(smaller(words[1:]))
    printed = capfd.readouterr()
    assert code == 0, f"{command}: {printed.err}"
    if target:
        Path(target).write_text(printed.out)
    return None


def smaller(arguments: list[str]) -> list[str]:
    """The arguments with a size of 64 and two steps at each scale in place of theirs."""
    given = list(arguments)
    for option, value in (("--size", "64"), ("--min-scale", "64")):
        if option in given:
            given[given.index(option) + 1] = value
    for option in ("--steps", "--scales"):
        if option in given:
            numbers = given[given.index(option) + 1].split(",")
            if option == "--steps":
                given[given.index(option) + 1] = ",".join("2" for _ in numbers)
            elif len(numbers) > 1:
                sides = [64 - 8 * finer for finer in range(len(numbers))]
                given[given.index(option) + 1] = ",".join(map(str, sides[::-1]))
    if given[0] == "video":
        given += ["--size", "64", "--steps", "2", "--next-steps", "1"]
    if given[0] == "texture" and "--steps" not in given:
        given += ["--steps", "2"]
    if given[0] in ("stylize", "gallery", "demo") and "--like" not in given:
        given += [] if "--size" in given else ["--size", "64"]
        given += [] if "--steps" in given else ["--steps", "2"]
    return given


def check_line(words: list[str]) -> str:
    """Check what a line names that is not run here: targets, extras, options, scripts."""
    while "=" in words[0]:
        words = words[1:]  # an environment variable
    if words[0] == "make":
        assert set(words[1:2]) <= make_targets(), words
        return "the target exists"
    if words[:2] == ["pip", "install"]:
        extras = {extra for word in words for extra in re.findall(r"\[([\w,]+)\]", word)}
        known = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
        assert {name for extra in extras for name in extra.split(",")} <= set(known), words
        text = subprocess.run([sys.executable, "-m", "pip", "install", "--help"], capture_output=True, text=True).stdout
        assert not text or options(words) <= options(text.replace(",", " ").split()), words
        return "its options exist"
    if words[0] == "torchrun":
        from torch.distributed.run import get_args_parser

        options_given = get_args_parser().parse_args(words[1:])
        script = options_given.training_script
        assert script == "fastnst" if options_given.module else (ROOT / script).exists()
        if script == "fastnst" and "..." not in words:
            parse(options_given.training_script_args)
        return "it parses; tests/strips/test_ranks.py runs ranks"
    if words[:2] == ["python", "-m"]:
        assert module_file(words[2]).exists(), words
        return "the module exists"
    raise AssertionError(f"{' '.join(words)}: nothing is known of it; mark the block <!-- not run: REASON -->")


def parse(words: list[str]) -> None:
    """Read the arguments of the command line without running it; raises UsageError."""
    from fastnst.cli.arguments import parse_arguments

    parse_arguments(words)


def options(words: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in words if word.startswith("-") and word != "--"}


def make_targets() -> set[str]:
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pages
def test_inline_commands_name_what_exists(page: Path) -> None:
    for text in inline(page):
        words = shlex.split(text) if text.startswith(("make ", "pip install ", "fastnst ", "torchrun ")) else []
        if not words or "..." in text:
            continue
        if words[0] == "fastnst":
            with pytest.raises(SystemExit) if "--help" in words else contextlib.nullcontext():
                parse(words[1:])
        else:
            check_line(words)


def module_file(module: str) -> Path:
    """Of a module, or of a package that runs as one."""
    path = ROOT.joinpath(*module.split("."))
    return path / "__main__.py" if path.is_dir() else path.with_suffix(".py")


def scripts() -> dict[str, set[str]]:
    """The modules of bench/ and tools/ that documents run, with their options."""
    named: dict[str, set[str]] = {}
    for page in PAGES:
        lines = [*inline(page), *(line for block in blocks(page) if block.kind == SHELL for line in block.commands())]
        for line in lines:
            found = re.search(r"python -m ((?:bench|tools)\.[\w.]+)(.*)", line)
            if found:
                named.setdefault(found[1], set()).update(options(found[2].split()))
    return named


def test_scripts_take_the_options_that_documents_name(note: Note) -> None:
    named = scripts()
    asked = [script for script, given in named.items() if given]
    done = subprocess.run(
        [sys.executable, HERE / "document_scripts.py", *asked],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    texts = json.loads(done.stdout.splitlines()[-1])
    for script, given in named.items():
        assert module_file(script).exists(), script
        assert given <= set(re.findall(r"-[\w-]+", texts.get(script, ""))), script
    note(
        HEADING,
        f"NOT RUN {len(named)} modules of bench/ and tools/: they take long; they exist, with the options named",
    )


PATH = re.compile(r"(?:\.?\w[\w-]*/)+(?:[\w-]+\.\w+)?|\w+\.(?:py|cpp|h|cu|cuh|toml|md)")
# Made by what the documents describe, or of the op that CONTRIBUTING.md takes as an example.
MADE = re.compile(
    r"(?:build|demo|pictures|photos|styled|\.\.|\.venv|bench/gpu/results)/.*|.*variance.*|run\.toml|smaller\.toml"
)


@pages
def test_paths_in_backquotes_exist(page: Path) -> None:
    import torch

    bases = (ROOT, ROOT / "fastnst", page.parent, DOCS, Path(torch.__file__).parent / "include")
    folders = [ROOT / name for name in ("fastnst", "csrc", "tests", "bench", "tools", "examples")]
    everywhere = {path.name for folder in folders for path in folder.rglob("*")}
    for text in inline(page):
        if PATH.fullmatch(text) and not MADE.fullmatch(text):
            assert text in everywhere or any((base / text).exists() for base in bases), text


@pages
def test_python_names_in_backquotes_exist(page: Path) -> None:
    for text in inline(page):
        if re.fullmatch(r"fastnst(\.\w+)+", text):
            module, _, name = text.rpartition(".")
            assert hasattr(importlib.import_module(module), name), text


def test_design_names_every_room_and_no_other() -> None:
    """The table of floors has each package and each module beside them once."""
    rows = re.findall(r"^\| \d+ \| ([^|]*) \|", (DOCS / "explanation" / "design.md").read_text(), re.MULTILINE)
    named = [name.removeprefix("fastnst/") for row in rows for name in re.findall(r"`([^`]+)`", row)]
    here = {path.name for path in (ROOT / "fastnst").glob("*.py") if not path.name.startswith("__")}
    here |= {f"{path.parent.name}/" for path in (ROOT / "fastnst").glob("*/__init__.py")}
    assert sorted(named) == sorted(here)


def test_every_public_module_has_a_page() -> None:
    """What a page lists is read from ``__all__`` when the site is built, so every public name is described."""
    import fastnst

    modules = [name for name in fastnst.__all__ if isinstance(getattr(fastnst, name), ModuleType)]
    public = {"fastnst", *(f"fastnst.{name}" for name in modules)}
    pages = {
        found
        for path in (DOCS / "reference").glob("*.md")
        for found in re.findall(r"^\.\. public-api:: (\S+)$", path.read_text(), re.MULTILINE)
    }
    assert pages == public | {
        "fastnst.losses.joint",
        "fastnst.losses.style",
        "fastnst.network",
        "fastnst.objective",
    }


def test_every_command_has_a_section() -> None:
    from fastnst.cli.parser import build_parser

    text = (DOCS / "reference" / "cli.md").read_text()
    assert re.findall(r"^## fastnst (\w+)$", text, re.MULTILINE) == list(build_parser()[1])


def test_no_committed_file_is_large() -> None:
    """Nothing above 1 MB but the bundled weights."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("needs a git checkout")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.exists() and path.name != "vgg19.safetensors":
            assert path.stat().st_size < 1_000_000, name
