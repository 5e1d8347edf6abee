"""Imports go one way, heavy packages stay where they belong, and the command line starts without them."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import scenerl

ROOT = Path(scenerl.__file__).parent

# From the ground up: a room may import rooms on lower floors, and itself. Rooms on one floor do not know each other.
# `config`, `progress` and `files` stand near the ground because they import nothing of ours but errors. So do the
# commands, which name the functions that they start as text.
FLOORS = [
    {"errors"},
    {"types", "config", "extras", "progress", "files", "json_files", "predicate_groups"},
    {"boxes", "commands", "plugins", "runs"},
    {"box_formats", "matching"},
    {"similarity"},
    {"answers"},
    {"metrics"},
    {"data"},
    {"rewards"},
    {"models"},
    {"constrain"},
    {"predictions", "card", "early_checks"},
    {"tiny"},
    {"launch", "score", "evaluate"},
    {"training", "inference", "report", "export"},
    {"demo", "app"},
    {"study"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

ONLY_IN = {
    "trl": {"training"},
    "yaml": {"config"},
    "peft": {"training", "models"},
    "torch": {"models", "tiny", "constrain", "training", "inference", "demo"},
    "transformers": {"models", "tiny", "constrain", "training", "inference", "demo"},
    "jinja2": {"report", "card"},
    "fiftyone": {"data"},
    "gradio": {"app"},
    "networkx": {"data"},
    "openai": {"inference"},
    "pydantic": {"commands", "config", "inference", "json_files", "launch", "metrics", "report"},
    "supervision": {"data"},
    "svglib": {"report"},
    "uvicorn": {"app"},
}

SOURCES = sorted(ROOT.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_names(path: Path) -> list[tuple[str, int, bool]]:
    """(dotted name, line, whether the module loads without it) of every import, those inside functions included."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    typing_only = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [(alias.name, node.lineno, node in typing_only) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names.append((node.module, node.lineno, node in typing_only))
            if node.module == "scenerl":
                names += [(f"scenerl.{alias.name}", node.lineno, node in typing_only) for alias in node.names]
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    room = room_of(path)
    if room == "__init__":
        return
    assert room in FLOOR, f"{room} has no floor: add it to FLOORS"
    for name, line, typing_only in imported_names(path):
        other = name.split(".")[1] if name.startswith("scenerl.") else None
        if other in FLOOR and other != room and not typing_only:
            assert FLOOR[other] < FLOOR[room], f"{path}:{line}: {room} imports {other}, which is not below it"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_packages_stay_in_their_rooms(path):
    for name, line, _ in imported_names(path):
        rooms = ONLY_IN.get(name.split(".")[0])
        assert rooms is None or room_of(path) in rooms, f"{path}:{line}: {name} belongs in {', '.join(sorted(rooms))}"


def test_modules_import_on_windows():
    """What only POSIX systems have is imported where it is used, if at all."""
    posix = {"crypt", "fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        names = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
        assert not names & posix, f"{path}: {names & posix}"
    block = f"import sys; sys.modules.update(dict.fromkeys({sorted(posix - {'posix'})}))\n"
    script = "import scenerl.files, scenerl.inference.predict, scenerl.inference.server\n"
    done = subprocess.run([sys.executable, "-c", block + script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_scoring_and_evaluation_never_need_torch():
    """Rooms below the models import no torch, directly or through what they import."""
    script = (
        "import sys, importlib\n"
        "sys.modules.update(dict.fromkeys(['torch', 'transformers', 'trl', 'datasets', 'tokenizers']))\n"
        "for name in ['answers', 'rewards', 'metrics', 'score', 'evaluate', 'data', 'predictions', 'report', 'runs', "
        "'predictions.merge_file']:\n"
        "    importlib.import_module(f'scenerl.{name}')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


HEAVY = {"torch", "transformers", "trl", "datasets", "scipy", "pandas", "pyarrow", "jinja2", "gradio", "openai"}
ROW = {
    "image_id": "1", "width": 100, "height": 100,
    "objects": [{"id": "dog.1", "bbox": [10, 10, 50, 50]}, {"id": "man.2", "bbox": [40, 10, 90, 70]}],
    "relationships": [{"subject": "man.2", "predicate": "near", "object": "dog.1"}],
}  # fmt: skip
ANSWER = json.dumps({key: ROW[key] for key in ("objects", "relationships")})


@pytest.mark.parametrize(
    "words, heavy",
    [
        (["--help"], HEAVY | {"numpy", "rich"}),
        (["eval", "rows.jsonl", "--data", "rows.jsonl", "--frame", "pixels", "--out", "out.json"], HEAVY),
        (["score", "rows.jsonl", "--frame", "pixels", "--out", "out.json"], HEAVY),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_a_command_loads(words, heavy, tmp_path):
    """SciPy alone takes as long to load as the rest of `eval` of an image."""
    (tmp_path / "rows.jsonl").write_text(json.dumps({**ROW, "answer": ANSWER}))
    script = (
        "import sys, scenerl.cli\n"
        f"assert scenerl.cli.main({words}) == 0\n"
        f"loaded = set({sorted(heavy)}) & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    if "--out" in words:
        written = (tmp_path / "out.json").read_text()
        assert {"eval": '"value": 1.0', "score": '"hard_recall": 1.0'}[words[0]] in written


def test_modules_stay_readable():
    """No module of ours grows beyond what can be read in one go."""
    long = {
        str(path.relative_to(ROOT)): count for path in SOURCES if (count := len(path.read_text().splitlines())) > 400
    }
    assert not long, long
