"""The study: every experiment with every seed, in as many processes as there are cores, then the page."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from scenerl.commands.study import StudyOptions
from scenerl.demo.processes import num_cores, side_by_side
from scenerl.demo.stages import Stages
from scenerl.errors import UserError, counted
from scenerl.files import check_out
from scenerl.models.folders import BASE
from scenerl.progress import in_words
from scenerl.runs import claim_folder
from scenerl.study.experiments import Experiment, experiments
from scenerl.study.page import write_page

OUTPUT = "output.log"
"""What the commands of an experiment print, in its folder."""


def run(options: StudyOptions) -> None:
    """The command.

    Raises:
        UserError: an unknown experiment, a folder of another study, or experiments that failed; the others are kept.
    """
    page = options.page or options.out / "claims.md"
    check_out(page, name="page")
    found = experiments(options.smoke)
    if unknown := [name for name in options.only if name not in found]:
        raise UserError(f"only: {unknown[0]!r} is no experiment; allowed: {', '.join(found)}")
    # Further seeds and experiments may join a study, but not other settings.
    settings = {name: _settings(experiment, options.smoke) for name, experiment in found.items()}
    claim_folder(options.out, {"experiments": settings}, fresh=options.fresh)
    console = Console()
    seeds = range(options.seeds)
    # every experiment with one seed before the next seed, so that a study cut short has the whole of it
    jobs = [(name, seed) for seed in seeds for name in options.only or found]
    failed = _run_all(options, [job for job in jobs if not _is_whole(_stages(options, found, *job), found[job[0]])])
    write_page(options.out, seeds, page)
    console.print(f"{page}: the claims", highlight=False, markup=False)
    if failed:
        raise UserError(f"failed: {', '.join(failed)}; {OUTPUT} there says why. The same command tries them again")


def _run_all(options: StudyOptions, jobs: Sequence[tuple[str, int]]) -> list[str]:
    """Run the jobs; the folders of those that failed."""
    if not jobs:
        return []
    workers = min(options.workers or num_cores(), len(jobs))
    console, started, failed = Console(), time.monotonic(), []
    console.print(f"{counted(len(jobs), 'experiment')}, {workers} at a time", highlight=False)
    with contextlib.closing(side_by_side(_run_one, [(options, *job) for job in jobs], workers)) as ended:
        for number, (job, error) in enumerate(ended, start=1):
            folder = _folder(*job)
            if error:
                failed.append(str(folder))
            left = (time.monotonic() - started) / number * (len(jobs) - number)
            console.print(
                f"{number} of {len(jobs)}, {in_words(left)} left: {folder}{f' failed: {error}' if error else ''}",
                highlight=False,
                markup=False,
            )
    return failed


def _run_one(options: StudyOptions, name: str, seed: int) -> None:
    """Train and evaluate the models of an experiment, in a process of its own."""
    found = experiments(options.smoke)
    folder = _folder(options, name, seed)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        (folder / OUTPUT).open("a", encoding="utf-8") as output,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
    ):
        try:
            stages = _stages(options, found, name, seed, Console(file=output))
            stages.make_data()
            stages.make_base()
            stages.evaluate(BASE)
            for model in found[name].models:
                stages.train(model)
                stages.evaluate(model.folder)
        except BaseException:
            traceback.print_exc()
            raise


def _is_whole(stages: Stages, experiment: Experiment) -> bool:
    models = (BASE, *(model.folder for model in experiment.models))
    return all(stages.metrics_path(model, target).is_file() for model in models for target in experiment.task.targets)


def _stages(
    options: StudyOptions, found: dict[str, Experiment], name: str, seed: int, console: Console | None = None
) -> Stages:
    experiment = found[name]
    scale = experiment.task.smoke if options.smoke else experiment.task.real
    return Stages(_folder(options, name, seed), experiment.task, scale, seed, experiment.template, console or Console())


def _folder(options: StudyOptions, name: str, seed: int) -> Path:
    return options.out / name / str(seed)


def _settings(experiment: Experiment, smoke: bool) -> dict:
    """What decides the numbers of an experiment, as plain values."""
    task = experiment.task
    return {
        "template": experiment.template,
        "scale": asdict(task.smoke if smoke else task.real),
        "tests": {test: dict(targets) for test, targets in task.tests.items()},
        "sft": {"muon_learning_rate": task.muon_learning_rate, **task.sft},
        "grpo": {**task.reward_options, **task.grpo},
        "models": {
            model.folder: {
                "start": model.start,
                "data": model.data,
                "weights": model.weights and dict(model.weights),
                "steps": model.steps,
                **model.settings,
            }
            for model in experiment.models
        },
    }
