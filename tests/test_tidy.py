"""Tests that read the repository: sizes, names, generated pages, light imports."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas import errors
from tests import generate_docs

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("meleewm", "schemas", "ingest", "store", "service", "training")
CODE = sorted(p for name in PACKAGES for p in (ROOT / name).glob("**/*.py"))
ALL = sorted([*CODE, *(ROOT / "tests").glob("**/*.py"), *(ROOT / "benchmarks").glob("**/*.py")])

MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
MODULES_MAX = {"training": 16, "service": 16}
"""Of a package, where it is not 12."""
EXCEPTIONS: dict[str, str] = {}
"""Places that may be longer, with the reason; never more than five."""

BANNED = {
    "data": "say which data (frames, rows, games)", "info": "say what is known",
    "utils": "put it where its callers are", "helpers": "put it where its callers are",
    "manager": "say what it does", "base": "say what it is",
}  # fmt: skip
BANNED_FILES = {word: why for word, why in BANNED.items() if word != "data"}
BANNED_NAMES = {word: why for word, why in BANNED_FILES.items() if word != "base"}


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", ALL, ids=lambda p: str(p.relative_to(ROOT)))
def test_module_is_small_and_says_what_it_is(path: Path) -> None:
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    assert text.count("\n") <= MODULE_LINES_MAX
    if path.name != "__init__.py":
        assert ast.get_docstring(tree), "a module starts with what it holds"
    for function in functions(tree):
        length = (function.end_lineno or 0) - function.lineno + 1
        name = f"{path.relative_to(ROOT)}:{function.name}"
        assert length <= FUNCTION_LINES_MAX or name in EXCEPTIONS, f"{name} has {length} lines"


def test_exceptions_are_few() -> None:
    assert len(EXCEPTIONS) <= 5


@pytest.mark.parametrize("path", CODE, ids=lambda p: str(p.relative_to(ROOT)))
def test_public_functions_have_docstrings(path: Path) -> None:
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.name}:{node.name} has no docstring"


@pytest.mark.parametrize("path", CODE, ids=lambda p: str(p.relative_to(ROOT)))
def test_names_say_something(path: Path) -> None:
    if path.stem in BANNED_FILES:
        pytest.fail(f"{path.name}: {BANNED_FILES[path.stem]}")
    for function in functions(ast.parse(path.read_text("utf-8"))):
        for argument in function.args.args:
            assert argument.arg not in BANNED_NAMES, BANNED_NAMES[argument.arg]


def test_packages_stay_small() -> None:
    for name in PACKAGES:
        modules = [p for p in (ROOT / name).glob("*.py") if p.name != "__init__.py"]
        assert len(modules) <= MODULES_MAX.get(name, 12), f"{name} has {len(modules)} modules"


def test_nothing_unfinished_and_no_machine_paths() -> None:
    unfinished = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX"]) + r")\b")
    machine = re.compile(r"(^|[\s\"'(=])/(work|farm|root|home/\w+)/")
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in files.stdout.split():
        path = ROOT / name
        if path.suffix not in {".py", ".md", ".toml", ".yml", ".txt", ""} or not path.is_file():
            continue
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            assert not unfinished.search(line), f"{name}:{number} is unfinished"
            assert not machine.search(line), f"{name}:{number} names a path of a machine"


def test_every_test_folder_is_a_package() -> None:
    for folder in [ROOT / "tests", *(p for p in (ROOT / "tests").rglob("*") if p.is_dir())]:
        if folder.name not in {"__pycache__", "golden"}:
            assert (folder / "__init__.py").exists(), folder


@pytest.mark.parametrize("page", generate_docs.PAGES)
def test_generated_pages_are_current(page: str) -> None:
    stored = (ROOT / "docs" / page).read_text("utf-8")
    assert stored == generate_docs.PAGES[page](), f"docs/{page} is old: run `make docs`"


def test_every_verb_has_help_and_an_example() -> None:
    from meleewm.cli import build

    for name, verb in generate_docs.verbs(build()).items():
        assert verb.description, name
        assert verb.epilog, name
        last = verb.format_help().rstrip().splitlines()[-1]
        assert last.startswith("example: meleewm"), f"the help of {name} must end with an example"


def test_architecture_names_every_module() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    for name in PACKAGES:
        for path in (ROOT / name).iterdir():
            if path.suffix not in {".py", ""} or path.name.startswith("__"):
                continue
            found = re.search(rf"\b{path.stem}\b", page)
            assert found, f"ARCHITECTURE.md does not name {path.relative_to(ROOT)}"


def test_error_tree_is_drawn() -> None:
    drawn = set(re.findall(r"\b(\w+Error)\b", errors.__doc__ or ""))
    classes = {n for n, c in vars(errors).items() if isinstance(c, type) and n.endswith("Error")}
    assert drawn == classes


def test_markdown_pages_have_one_title() -> None:
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        lines = path.read_text("utf-8").splitlines()
        assert lines, path
        assert lines[0].startswith("# "), path


def test_readme_commands_exist() -> None:
    from meleewm.cli import build

    page = (ROOT / "README.md").read_text("utf-8")
    assert len(page.splitlines()) <= 150
    verbs = generate_docs.verbs(build())
    for verb in re.findall(r"^\s*\$? ?meleewm (\w+)", page, re.MULTILINE):
        assert verb in verbs
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for target in re.findall(r"`?make (\w+)", page):
        assert target in targets


LIGHT = {
    "import service.app": ("torch", "webdataset"),
    "import training.stream": ("torch", "duckdb"),
    "import schemas.features": ("torch", "duckdb"),
    "from meleewm.cli import build; build().format_help()": ("pyarrow", "duckdb", "torch", "rich"),
}


@pytest.mark.parametrize("code", LIGHT)
def test_imports_stay_light(code: str) -> None:
    check = f"{code}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for heavy in LIGHT[code]:
        assert heavy not in done.stdout.split(), f"{code} imports {heavy}"
