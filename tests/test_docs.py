"""What README and docs promise: every command, recipe, row and snippet works, and every name exists.

The commands of README.md and docs/guide.md run in their order, in one folder, through :func:`scenerl.cli.main`, with
small numbers in place of theirs. Blocks that follow ``<!-- file: NAME -->`` are the files that commands name. Commands
that follow ``<!-- parsed only -->`` need a checkpoint or data from the hub: only their options are checked.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from PIL import Image

from scenerl import cli
from scenerl.commands import TRAINING, options_of, parse
from scenerl.config import resolve_extra
from scenerl.rewards import REWARDS
from test_layers import FLOORS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")

SMALL: dict[str, dict[str, object]] = {
    "demo": {"smoke": True},
    "study": {"smoke": True, "seeds": 1, "only": "graphs_100"},
    "data": {"num_train": 12, "num_test": 3},
    "sft": {"max_steps": 1, "per_device_train_batch_size": 4, "tiny_warmup_steps": 1},
    "grpo": {
        "max_steps": 1,
        "num_generations": 2,
        "per_device_train_batch_size": 4,
        "max_completion_length": 8,
        "gradient_checkpointing": False,
    },
    "predict": {"max_new_tokens": 8},
    "eval": {"resamples": 10},
    "app": {"port": 0},
}
"""Command to the settings that make it small; they replace those of the page."""


@dataclass(frozen=True)
class Block:
    """A fenced block, its language, and what the comment above it says (``file: NAME``, ``parsed only`` or nothing)."""

    language: str
    text: str
    remark: str

    @property
    def file_name(self) -> str | None:
        return self.remark.removeprefix("file: ") if self.remark.startswith("file: ") else None


BLOCKS = [
    Block(language, text, remark or "")
    for remark, language, text in re.findall(r"(?:<!-- ([^\n]*) -->\n)?```(\w+)\n(.*?)```", README + GUIDE, re.DOTALL)
]


def commands(block: Block) -> list[list[str]]:
    """The words after ``scenerl`` of every command in a block."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("scenerl ")] if block.language == "bash" else []


COMMANDS = [(block, words) for block in BLOCKS for words in commands(block)]


def files() -> dict[str, str]:
    return {block.file_name: block.text for block in BLOCKS if block.file_name}


def write_files(folder: Path) -> None:
    """The files that the pages show, an image for every row that names one, and the recipes."""
    (folder / "recipes").symlink_to(ROOT / "recipes")
    for name, text in files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        for row in map(json.loads, text.splitlines() if path.suffix == ".jsonl" else ()):
            if "file_name" in row:
                (path.parent / "images").mkdir(exist_ok=True)
                size = row["width"], row["height"]
                Image.new("RGB", size, "gray").save(path.parent / "images" / row["file_name"])


def make_small(words: list[str]) -> list[str]:
    """The same command with the settings of :data:`SMALL`, as words."""
    settings = SMALL.get(words[0], {})
    kept, option = [], ""
    for word in words:
        option = word.removeprefix("--") if word.startswith("--") else option
        if option not in settings:
            kept.append(word)
    return kept + [part for key, value in settings.items() for part in (f"--{key}", str(value).lower())]


@pytest.fixture
def small_demo(monkeypatch):
    """``--smoke`` with next to nothing to do: the demo has tests of its own."""
    tasks = pytest.importorskip("scenerl.demo.tasks").TASKS
    few = {
        "num_train": 12,
        "num_test": 3,
        "warmup_steps": 1,
        "sft_steps": 1,
        "grpo_steps": 1,
        "zero_steps": 1,
        "batch_size": 2,
        "rollouts": 8,
    }
    for name, task in tasks.items():
        monkeypatch.setitem(tasks, name, replace(task, smoke=replace(task.smoke, **few)))


@pytest.fixture
def stopped_app(monkeypatch):
    """The page is served until somebody stops it: at once."""
    pytest.importorskip("gradio")
    monkeypatch.setattr("uvicorn.Server.run", lambda server, sockets=None: None)


def test_the_first_screen_holds_both_commands():
    top = "\n".join(README.splitlines()[:24])
    assert "make demo" in top and "make test" in top


def test_make_targets_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README + GUIDE, re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


def test_every_command_of_the_program_has_an_example():
    assert {words[0] for _, words in COMMANDS} == set(cli.COMMANDS)


@pytest.mark.parametrize("words", [words for _, words in COMMANDS], ids=" ".join)
def test_commands_parse_as_they_stand(words, tmp_path, monkeypatch):
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    _, extra = parse(words[0], words[1:])
    if words[0] in TRAINING:
        trl = pytest.importorskip("trl")
        resolve_extra(getattr(trl, options_of(words[0]).trl_config), extra, own=options_of(words[0]))


def test_only_what_needs_the_hub_or_files_of_others_is_not_run():
    others = r"hub:\w+/\w+|vg150:\w+|--model [\w-]+/\w+|--data instances_val2017\.json"
    for block in BLOCKS:
        if block.remark == "parsed only":
            assert all(re.search(others, " ".join(words)) for words in commands(block))


def test_commands_run(tmp_path, monkeypatch, small_demo, stopped_app, capfd):
    pytest.importorskip("trl")
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    for block, words in COMMANDS:
        if block.remark == "parsed only":
            continue
        words = make_small(words)
        assert cli.main(words) == 0, f"scenerl {' '.join(words)}\n{capfd.readouterr().err[-2000:]}"
        options, _ = parse(words[0], words[1:])
        made = getattr(options, "out", None)
        assert made is None or made.exists(), f"scenerl {' '.join(words)} did not write {made}"
    with open("scores.jsonl", encoding="utf-8") as scores:
        rewards = json.loads(scores.readline())["rewards"]
    assert rewards["hard_recall"] == rewards["triplet_f1"] == rewards["format"] == 1.0


def test_saved_output_formats_are_as_shown(tmp_path):
    """The scenerl.json of the guide is what a checkpoint has."""
    from scenerl.answers.dialogue import read_output_format, save_output_format

    shown = next(block.text for block in BLOCKS if block.remark == "scenerl.json")
    (tmp_path / "shown.json").write_text(shown)
    save_output_format(read_output_format(tmp_path / "shown.json"), tmp_path)
    assert json.loads((tmp_path / "scenerl.json").read_text()) == json.loads(shown)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python"])
def test_python_prints_what_it_says(block, capsys):
    exec(compile(block.text, "docs/guide.md", "exec"), {})
    assert capsys.readouterr().out.split() == re.findall(r"print\(.*\)  # (.+)", block.text)


def table_names(text: str, title: str) -> list[str]:
    """The names in the first column of the tables under a heading."""
    section = text.split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def test_tables_of_rewards_are_complete():
    sources = (ROOT / "docs" / "sources.md").read_text(encoding="utf-8")
    assert sorted(table_names(sources, "Rewards")) == sorted(REWARDS)


def test_tables_of_metrics_are_complete():
    from scenerl.metrics import MetricOptions, evaluate

    metrics = evaluate([], MetricOptions(bootstrap_samples=0), training_triplets=[]).metrics
    known = {re.sub(r"@(20|50|100)$", "@K", name) for name in metrics}
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"`([^`]+)`", page))
    assert known <= explained


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def anchors(page: Path) -> set[str]:
    """What links may name behind a #: headings, in lower case, with hyphens for spaces and without marks."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_links_lead_somewhere():
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            target, _, anchor = link.partition("#")
            if not target.startswith("https://"):
                there = page.parent / target if target else page
                assert there.exists(), f"{page.name}: {link}"
                assert not anchor or anchor in anchors(there), f"{page.name}: {link}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES[1:] if page.stem not in ("commands", "guide")], ids=lambda page: page.stem
)
def test_commands_of_the_docs_parse(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```\w*\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    for line in lines:
        if command := re.match(r"(?:[A-Z_]+=\S+ )*(?:python -m )?scenerl (.*)", line):
            words = shlex.split(command[1], comments=True)
            _, extra = parse(words[0], words[1:])
            if extra:
                trl = pytest.importorskip("trl")
                resolve_extra(getattr(trl, options_of(words[0]).trl_config), extra, own=options_of(words[0]))


def test_names_of_commands_in_the_docs_exist():
    for page in PAGES:
        for name in re.findall(r"`scenerl ([a-z]+)", page.read_text(encoding="utf-8")):
            assert name in cli.COMMANDS, f"{page.name}: scenerl {name}"


def test_architecture_names_every_room():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = page.split("## Rooms")[1].split("## Rules")[0]
    for path in sorted((ROOT / "src" / "scenerl").iterdir()):
        if path.is_dir() and (path / "__init__.py").is_file():
            assert f"{path.name}/" in rooms, path


def test_architecture_lists_the_floors_in_order():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = re.search(r"```floors\n(.*?)```", page, re.DOTALL)[1].splitlines()
    assert [set(line.split("  ")[0].split(", ")) for line in listed] == FLOORS
