"""The page: inputs on the left, one or two panels of results beside them."""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path

import gradio as gr

from scenerl.app.answer import OWN, TASKS, TRAINED, VOCABULARIES, Request, answer, read_image, read_labels
from scenerl.app.checkpoints import Checkpoints
from scenerl.commands.app import AppOptions
from scenerl.data.inspect.draw import file_stem
from scenerl.data.synthetic import scene
from scenerl.errors import UserError, counted
from scenerl.predictions.notes import Notes
from scenerl.predictions.row import decode_parsed
from scenerl.report.card import encode_image
from scenerl.report.drawing import drawn_objects, palette, rounded
from scenerl.types import Relation, SceneGraph

_log = logging.getLogger(__name__)

NOTHING = "(none)"
SHOWN_SIZES = ((1200, 85),)
"""Longest side in pixels and WebP quality of the copy of the image that a result is drawn over."""
WAITING = 7
"""Requests that may wait; whoever comes then is told to come again."""
KEPT_SECONDS = 3600
"""How long uploads and results of a page that is still open are kept."""
QUICK = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""Settings of events that wait for nothing."""
OURS = "This is an error of SceneRL, not yours. The server's log says what happened."

_SHOW_RESULT = """() => {
    const panel = document.getElementById("panel-0");
    if (panel.getBoundingClientRect().top > innerHeight / 3) panel.scrollIntoView();
}"""  # on a phone the panel is below the inputs


class Cancelled(Exception):
    """The person does not want the answer any more."""


@dataclass(frozen=True, eq=False)
class Result:
    """What a panel shows. ``picture`` is a data URL of a copy of the image; boxes are in pixels of ``image_wh``."""

    name: str
    value: Mapping
    picture: str
    image_wh: tuple[int, int]
    seconds: float


class Page:
    """Answers requests of the page, one at a time.

    Attributes:
        folder: where results for download and the example images are.
        closing: set when the server stops; ends the answer that is being made.
    """

    def __init__(self, checkpoints: Checkpoints, options: AppOptions, folder: Path):
        self.checkpoints, self.options, self.folder = checkpoints, options, folder
        self.closing = threading.Event()

    def respond(
        self, path, model, other, task, labels, vocabulary, predicates, constrain, samples, temperature, tokens, seed
    ) -> Iterator[tuple]:
        """Values of the page's outputs while one or two checkpoints answer; closing the generator cancels that."""
        models = [model] if other in (NOTHING, model) else [model, other]
        shown = [None, None]
        cancel = threading.Event()

        def update(status: str) -> tuple:
            panels = [gr.update(visible=place < len(models)) for place in range(2)]
            return status, *panels, *shown

        def work(name: str) -> Result:
            if path is None:
                raise UserError("Choose an image first.")
            request = Request(
                task,
                read_labels(labels),
                vocabulary,
                read_labels(predicates),
                constrain,
                min(int(samples), self.options.max_samples),
                float(temperature),
                min(int(tokens), self.options.max_new_tokens),
                int(seed),
            )
            image = read_image(Path(path).read_bytes(), self.options.max_megapixels * 1_000_000)
            engine = self.checkpoints.engine(name)
            started = time.monotonic()
            with _stopped_by(engine.checkpoint.model, cancel, self.closing):
                value = answer(request, image, Path(path).name, engine, self.checkpoints.output_formats[name])
            picture = f"data:image/webp;base64,{encode_image(image, sizes=SHOWN_SIZES)}"
            return Result(name, value, picture, image.size, time.monotonic() - started)

        with ThreadPoolExecutor(1) as pool:
            try:
                for place, name in enumerate(models):
                    started, future = time.monotonic(), pool.submit(work, name)
                    while not future.done():
                        yield update(f"{name}: {time.monotonic() - started:.0f} s")
                        wait([future], timeout=0.5)
                    shown[place] = _result(name, future)
                    yield update("")
            finally:
                cancel.set()

    def show(self, result: Result | str | None, least: float) -> tuple:
        """Values of a panel's components.

        Args:
            result: a string is what went wrong.
            least: the lowest score that is shown.
        """
        if not isinstance(result, Result):
            heading = f'<p class="scenerl-error" role="alert">{escape(result)}</p>' if result else ""
            return heading, "", None, None, "", "", gr.update(visible=False)
        row, answers = result.value["result"], result.value["answers"]
        graph = _at_least(decode_parsed(row, "the result", Notes("the result")).graph or SceneGraph(), least)
        names = [f"{item.label} {n}" for n, item in enumerate(graph.objects, start=1)]
        objects = [
            [name, _two_digits(item.score), ", ".join(f"{value:.0f}" for value in item.box)]
            for name, item in _by_score(zip(names, graph.objects, strict=True))
        ]
        relations = [
            [names[item.subject], item.predicate, names[item.object], _two_digits(item.score)]
            for _, item in _by_score(enumerate(graph.relations))
        ]
        path = self.folder / f"{file_stem(row['image_id'])}.{file_stem(result.name)}.json"
        path.write_text(json.dumps(result.value, indent=1), encoding="utf-8")
        return (
            _heading(result, len(objects), len(relations)),
            _drawing(result, graph),
            objects,
            relations,
            "\n\n".join(_raw(item) for item in answers),
            result.value["prompt"],
            gr.update(visible=True, value=str(path)),
        )

    def build(self) -> gr.Blocks:
        """The page's components and what happens when they are used."""
        names, options = list(self.checkpoints.output_formats), self.options
        with gr.Blocks(title="SceneRL", analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as blocks:
            gr.Markdown("# SceneRL\nUpload an image and see what a checkpoint finds in it.")
            with gr.Row():
                with gr.Column(scale=1, min_width=300):
                    image = gr.Image(
                        type="filepath", image_mode=None, sources=["upload", "clipboard"], label="Image", height=260
                    )
                    gr.Examples(self._examples(), image, label="Examples", cache_examples=False)
                    model = gr.Dropdown(names, value=names[0], label="Checkpoint")
                    other = gr.Dropdown([NOTHING, *names], value=NOTHING, label="Compare with", visible=len(names) > 1)
                    task = gr.Radio(_choices(TASKS), value=self.checkpoints.task_of(names[0]), label="Task")
                    vocabulary = gr.Dropdown(_choices(VOCABULARIES), value=TRAINED, label="Vocabulary")
                    labels = gr.Textbox(label="Labels", placeholder="person, dog, red ball", lines=2)
                    predicates = gr.Textbox(label="Predicates", placeholder="empty: any predicate", lines=2)
                    constrain = gr.Checkbox(label="Constrained decoding", info="Every answer parses.")
                    with gr.Accordion("Sampling", open=False):
                        samples = gr.Slider(1, options.max_samples, 1, step=1, label="Answers, merged by vote")
                        temperature = gr.Slider(0.1, 2, 1, step=0.1, label="Temperature of several answers")
                        limit = options.max_new_tokens
                        tokens = gr.Slider(1, limit, min(512, limit), step=1, label="Token limit of an answer")
                        seed = gr.Number(0, precision=0, minimum=0, maximum=2**31 - 1, label="Seed")
                    with gr.Column(elem_id="actions"):
                        with gr.Row():
                            run = gr.Button("Run", variant="primary", min_width=100)
                            cancel = gr.Button("Cancel", min_width=100)
                        status = gr.Textbox(
                            label="Status",
                            placeholder="Ready",
                            show_label=False,
                            container=False,
                            interactive=False,
                            elem_id="status",
                        )
                panels = [self._panel(place) for place in range(2)]
            inputs = [image, model, other, task, labels, vocabulary, predicates]
            inputs += [constrain, samples, temperature, tokens, seed]
            columns, results = zip(*panels, strict=True)
            event = run.click(
                self.respond, inputs, [status, *columns, *results],
                concurrency_limit=1, show_progress="minimal", api_visibility="private",
            )  # fmt: skip
            event.then(None, js=_SHOW_RESULT)
            cancel.click(lambda: "Cancelled", None, status, cancels=[event], **QUICK)
            model.change(self.checkpoints.task_of, model, task, **QUICK)
            fields = [vocabulary, labels, predicates]
            for changed in (task, vocabulary):
                changed.change(_visible_fields, [task, vocabulary], fields, **QUICK)
            blocks.load(_visible_fields, [task, vocabulary], fields, **QUICK)
        return blocks.queue(max_size=WAITING)

    def _panel(self, place: int) -> tuple[gr.Column, gr.State]:
        """A column of results; it is drawn anew when its state changes."""
        with gr.Column(scale=2, min_width=320, visible=place == 0, elem_id=f"panel-{place}") as column:
            result = gr.State(time_to_live=KEPT_SECONDS)
            heading, drawing = gr.HTML(), gr.HTML()
            least = gr.Slider(0, 1, 0, step=0.01, label="Minimum score")
            relations = gr.Dataframe(
                headers=["Subject", "Predicate", "Object", "Score"],
                datatype="str",
                label="Relations",
                interactive=False,
            )
            objects = gr.Dataframe(
                headers=["Object", "Score", "Box"], datatype="str", label="Objects", interactive=False
            )
            with gr.Accordion("Raw answer and prompt", open=False):
                raw = gr.Textbox(label="Raw answer", lines=3, max_lines=20, buttons=["copy"])
                prompt = gr.Textbox(label="Prompt", lines=3, max_lines=20, buttons=["copy"])
            download = gr.DownloadButton("Download as JSON", visible=False)
        outputs = [heading, drawing, objects, relations, raw, prompt, download]
        for event in (result.change, least.change):
            event(self.show, [result, least], outputs, trigger_mode="always_last", **QUICK)
        return column, result

    def _examples(self) -> list[str]:
        """Paths of a few synthetic scenes."""
        paths = []
        for name in "abc":
            path = self.folder / f"scene-{name}.png"
            scene(name, 336)[0].save(path)
            paths.append(str(path))
        return paths


@contextmanager
def _stopped_by(model, *events: threading.Event) -> Iterator[None]:
    """End a generation before its next step once one of the events is set."""

    def check(*_) -> None:
        if any(event.is_set() for event in events):
            raise Cancelled

    handle = model.register_forward_pre_hook(check)
    try:
        yield
    finally:
        handle.remove()


def _result(name: str, future) -> Result | str:
    """The result, or what to say instead."""
    try:
        return future.result()
    except (UserError, OSError) as error:
        return f"{name}: {error}"
    except Cancelled:
        return f"{name}: cancelled"
    except Exception:
        _log.exception("%s: no answer", name)
        return f"{name}: {OURS}"


def _visible_fields(task: str, vocabulary: str) -> tuple:
    """Updates of vocabulary, labels and predicates: only those that the task uses are visible."""
    graph = task == "sgdet"
    own = graph and vocabulary == OWN
    label = "Object labels (empty: any)" if graph else "Labels to look for"
    return gr.update(visible=graph), gr.update(visible=own or not graph, label=label), gr.update(visible=own)


def _heading(result: Result, num_objects: int, num_relations: int) -> str:
    answers = result.value["answers"]
    failed = [item["status"] for item in answers if item["status"] != "ok"]
    issues = sum(len(item["issues"]) for item in answers)
    one = f"failed: {failed[0]}" if failed else ""
    facts = [
        f"{counted(len(answers), 'answer')}, {len(failed)} failed" if len(answers) > 1 else one,
        counted(num_objects, "object"),
        counted(num_relations, "relation"),
        f"{counted(issues, 'element')} dropped" if issues else "",
        counted(sum(item["num_tokens"] for item in answers), "token"),
        f"{result.seconds:.1f} s",
    ]
    text = " · ".join(filter(None, facts))
    return f'<p class="scenerl-heading">{escape(result.name)}</p><p class="scenerl-facts">{escape(text)}</p>'


def _drawing(result: Result, graph: SceneGraph) -> str:
    """An element that ``draw.js`` fills. Its values are in base64: no text of a model comes near the page's markup."""
    values = {
        "wh": result.image_wh,
        "picture": result.picture,
        "name": result.name,
        "objects": drawn_objects(graph, result.image_wh, palette(item.label for item in graph.objects)),
        "relations": [
            [item.subject, item.predicate, item.object, "target", rounded(item.score)] for item in graph.relations
        ],
    }
    encoded = base64.b64encode(json.dumps(values).encode()).decode("ascii")
    return f'<div class="scenerl-result" data-result="{encoded}"></div>'


def _raw(row: Mapping) -> str:
    """One answer under a line that says how it ended."""
    facts = [row["status"], counted(row["num_tokens"], "token")]
    facts += ["cut off at the token limit"] if row["finish_reason"] == "length" else []
    facts += [f"{issue['kind']} at {issue['where']}" for issue in row["issues"]]
    return f"[{', '.join(facts)}]\n{row['answer']}"


def _at_least(graph: SceneGraph, least: float) -> SceneGraph:
    """The objects with a score of at least ``least`` and the relations between them; what has no score stays."""
    kept = [n for n, item in enumerate(graph.objects) if item.score is None or item.score >= least]
    places = {n: place for place, n in enumerate(kept)}
    relations = tuple(
        Relation(places[item.subject], item.predicate, places[item.object], item.score)
        for item in graph.relations
        if (item.score is None or item.score >= least) and {item.subject, item.object} <= places.keys()
    )
    return SceneGraph(tuple(graph.objects[n] for n in kept), relations)


def _by_score(numbered: Iterable[tuple]) -> list[tuple]:
    """(name, element) by falling score; what has none comes first."""
    return sorted(numbered, key=lambda pair: -1 if pair[1].score is None else -pair[1].score)


def _two_digits(score: float | None) -> str:
    return "" if score is None else f"{score:.2f}"


def _choices(names: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(title, key) for key, title in names.items()]
