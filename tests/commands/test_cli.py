"""The command line: help pages, exit codes, one-line errors."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from scenerl import __version__, cli
from scenerl.commands import TRAINING, examples_of, function_of, most_used_of, options_of
from scenerl.commands.reference import reference
from scenerl.config.options import default_of
from scenerl.errors import UserError
from scenerl.extras import EXTRA_OF_PACKAGE


@pytest.fixture
def replaced(monkeypatch):
    """Let every command run the function given instead of its own module."""

    def replace(function):
        monkeypatch.setattr(cli, "check_of", lambda _: None)
        monkeypatch.setattr(cli, "function_of", lambda _: function)

    return replace


def test_python_m_and_version():
    done = subprocess.run([sys.executable, "-m", "scenerl", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"scenerl {__version__}\n")


def test_help_before_a_command_is_its_page(capsys):
    assert cli.main(["help", "score"]) == 0
    shown = capsys.readouterr().out
    assert cli.main(["score", "--help"]) == 0
    assert shown == capsys.readouterr().out and "Names of rewards" in shown
    assert cli.main(["help", "scroe"]) == 2
    assert "did you mean score?" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_overview_lists_every_command(capsys, words):
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert all(f"  {command} " in shown for command in cli.COMMANDS)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_all_shows_every_option_with_its_example(command):
    shown = cli._help_page(command, ())  # without the fields of TRL, which --help-all adds
    for item in dataclasses.fields(options_of(command)):
        assert (item.name.upper() if item.metadata["positional"] else f"--{item.name}") in shown
    assert f"scenerl {command} " in shown and "examples:" in shown and "--config" in shown
    assert max(len(line) for line in shown.splitlines() if "$" not in line) <= 120


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_can_be_scanned(capsys, command):
    """A dozen options at most, the required ones among them; it says where the others are."""
    assert cli.main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    options, most_used = dataclasses.fields(options_of(command)), most_used_of(command)
    assert len(set(most_used)) == len(most_used) and set(most_used) <= {item.name for item in options}
    shown_options = [
        item for item in options if re.search(rf"^  (--)?{item.name}\b", shown, re.MULTILINE | re.IGNORECASE)
    ]
    assert len(shown_options) <= 12 and len(most_used) in (0, 10)
    assert {item.name for item in options if default_of(item) is dataclasses.MISSING} <= {
        item.name for item in shown_options
    }
    assert bool(most_used) == ("--help-all" in shown)
    if most_used:
        assert f"the other {len(options) - 10} options" in shown


def test_every_command_has_a_function():
    for command in cli.COMMANDS:
        assert callable(function_of(command))


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_examples_parse(command):
    lines = " ".join(examples_of(command)).replace(" \\", "").split("scenerl ")[1:]
    for line in lines:
        name, *words = line.split()
        assert name == command
        if "--config" not in words:  # of a file that is not there
            cli.parse(command, words)


@pytest.mark.parametrize("command", TRAINING)
def test_help_all_lists_the_fields_of_trl(capsys, command):
    pytest.importorskip("trl")
    assert cli.main([command, "--help-all"]) == 0
    shown = capsys.readouterr().out
    assert "--learning_rate X" in shown and "--report_to" in shown and "--rewards NAME" in shown or command == "sft"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["scor"], "unknown command 'scor' (did you mean score?)"),
        (["score"], "score needs rows; see `scenerl score --help`"),
        (["score", "r", "--f_beat", "1"], "did you mean f_beta?"),
        (["demo", "--config", "none.yaml"], "none.yaml: cannot be read"),
    ],
)
def test_user_errors_are_one_line_and_exit_code_2(capsys, words, said):
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("scenerl: error: ") and captured.err.count("\n") == 1
    assert said in captured.err


def test_options_reach_the_command_and_its_exit_code_comes_back(replaced):
    seen = []
    replaced(lambda *provided: seen.append(provided) or 3)
    assert cli.main(["score", "rows.jsonl"]) == 3
    assert cli.main(["grpo", "--model", "m", "--data", "d", "--out", "o", "--max_steps", "5"]) == 3
    (score,), (grpo, extra) = seen
    assert score.rows.name == "rows.jsonl" and grpo.model == "m" and extra == {"max_steps": "5"}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UserError("rows.jsonl, row 3:\n  no box"), "rows.jsonl, row 3: no box"),
        (OSError(28, "No space left on device", "out.jsonl"), "out.jsonl: No space left on device"),
        (ModuleNotFoundError("No module named 'trl'", name="trl"), "pip install 'scenerl[train]'"),
    ],
)
def test_errors_of_commands(capsys, replaced, error, said):
    def fail(_):
        raise error

    replaced(fail)
    assert cli.main(["score", "rows.jsonl"]) == 2
    captured = capsys.readouterr().err
    assert said in captured and captured.count("\n") == 1
    with pytest.raises(type(error)):
        cli.main(["score", "rows.jsonl", "--traceback"])


BUG = """
import sys
import numpy
from scenerl import cli
cli.function_of = lambda _: lambda options: numpy.zeros(2) + numpy.zeros(3)
sys.exit(cli.main(["score", "rows.jsonl"]))
"""


def test_a_value_error_of_a_library_is_a_bug_with_its_traceback():
    """A shape error inside numpy is not the user's mistake: exit code 1, and the traceback says where."""
    done = subprocess.run([sys.executable, "-c", BUG], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "could not be broadcast" in done.stderr


INTERRUPTED_TABLE = """
import sys
from scenerl import cli
from scenerl.progress import track
{imports}

def run(options):
    {body}

cli.function_of = lambda _: run
sys.exit(cli.main(["score", "rows.jsonl"]))
"""
TRAINING_TABLE = """table = ConsoleTable()
    state = TrainerState(max_steps=9, is_world_process_zero=True)
    table.on_train_begin(None, state, None)
    table.on_log(None, state, None, logs={"loss": 1.0})
    raise KeyboardInterrupt"""
BAR = """for _ in track(range(9), "rows", 9):
        raise KeyboardInterrupt"""
IMPORTS = "from scenerl.training.logs import ConsoleTable\nfrom transformers import TrainerState"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a pseudo-terminal")
@pytest.mark.parametrize(("imports", "body"), [(IMPORTS, TRAINING_TABLE), ("", BAR)], ids=["table", "bar"])
def test_an_interrupted_command_leaves_no_live_display(imports, body):
    """The bar is erased and the cursor is back before the last message, which stands on a line of its own."""
    import pty

    if imports:
        pytest.importorskip("transformers")
    master, slave = pty.openpty()
    script = INTERRUPTED_TABLE.format(imports=imports, body=body)
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    child = subprocess.Popen([sys.executable, "-c", script], stdin=slave, stdout=slave, stderr=slave, env=env)
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while chunk := os.read(master, 4096):
            shown += chunk
    os.close(master)
    assert child.wait() == 130
    before, _, after = shown.partition(b"scenerl: interrupted")
    show_cursor, erase_line = b"\x1b[?25h", b"\x1b[2K"
    assert b"\x1b[?25l" in before, "there was a live display"
    assert before.count(show_cursor) == 1 and erase_line in before.rpartition(b"\n")[2]
    assert show_cursor not in after and erase_line not in after


def test_a_module_of_ours_that_is_missing_is_a_bug(replaced):
    def bug(_):
        raise ModuleNotFoundError("No module named 'scenerl.nothing'", name="scenerl.nothing")

    replaced(bug)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["score", "rows.jsonl"])


def test_interruption_says_that_nothing_is_lost(capsys, replaced):
    def interrupt(_):
        raise KeyboardInterrupt

    replaced(interrupt)
    assert cli.main(["score", "rows.jsonl"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_the_command_reference_is_up_to_date():
    page = Path(__file__).parents[2] / "docs" / "commands.md"
    assert page.read_text(encoding="utf-8") == reference(), "python -m scenerl.commands.reference > docs/commands.md"


def test_every_package_that_is_imported_is_installed_with_scenerl_or_named_with_its_extra():
    """Without an extra a command ends in one line that names it, whichever of its packages is imported first."""
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    base = {re.match(r"[\w-]+", line)[0] for line in project["dependencies"]}
    base |= {"PIL", "yaml", "markupsafe"}  # of pillow, pyyaml and jinja2
    checked_before = {"spacy", "vllm"}  # similarity.py and training/vllm_engine.py say what to install
    imported = set()
    for path in (root / "src" / "scenerl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            imported.update(name.partition(".")[0] for name in names)
    unknown = imported - sys.stdlib_module_names - base - checked_before - {"scenerl"} - set(EXTRA_OF_PACKAGE)
    assert not unknown
    assert set(EXTRA_OF_PACKAGE.values()) <= set(project["optional-dependencies"])
