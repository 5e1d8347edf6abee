"""The command line: help pages, exit codes, one-line errors."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from types import SimpleNamespace

import pytest

from scenerl import __version__, cli
from scenerl.config import OPTIONS, TRL_CONFIGS
from scenerl.errors import UserError


@pytest.fixture
def replaced(monkeypatch):
    """Let every command run the function given instead of its own module."""

    def replace(function):
        names = {target.rpartition(":")[2] for target in cli.COMMANDS.values()}
        monkeypatch.setattr(cli, "import_module", lambda _: SimpleNamespace(**dict.fromkeys(names, function)))

    return replace


def test_commands_options_and_examples_belong_together():
    assert set(cli.COMMANDS) == set(OPTIONS) == set(cli.EXAMPLES)


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
def test_help_shows_every_option_with_its_example(capsys, command):
    assert cli.main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    for item in dataclasses.fields(OPTIONS[command]):
        assert (item.name.upper() if item.metadata["positional"] else f"--{item.name}") in shown
    assert f"scenerl {command} " in shown and "examples:" in shown and "--config" in shown
    assert (command in TRL_CONFIGS) == ("--help-all" in shown)
    assert max(len(line) for line in shown.splitlines() if "$" not in line) <= 120


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_examples_parse(command):
    lines = " ".join(cli.EXAMPLES[command]).replace(" \\", "").split("scenerl ")[1:]
    for line in lines:
        name, *words = line.split()
        assert name == command
        if "--config" not in words:
            cli.parse(command, words)


@pytest.mark.parametrize("command", TRL_CONFIGS)
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


def test_our_own_bugs_keep_their_traceback(replaced):
    def bug(_):
        raise KeyError("bug")

    replaced(bug)
    with pytest.raises(KeyError):
        cli.main(["score", "rows.jsonl"])


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
