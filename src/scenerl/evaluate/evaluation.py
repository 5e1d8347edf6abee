"""One ground truth and the files of predictions that are read against it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from scenerl.answers.dialogue import Conversation
from scenerl.answers.formats import FORMATS
from scenerl.answers.recognise import closest
from scenerl.commands.eval import EvalOptions
from scenerl.data.ground_truth import Names, load_ground_truth
from scenerl.data.triplets import read_training
from scenerl.data.vocabulary import Vocabulary
from scenerl.evaluate.categories import named, read_category_names
from scenerl.evaluate.conventions import label_mapper, metric_options
from scenerl.evaluate.models import Model
from scenerl.evaluate.own import check_own, measured, own_metrics
from scenerl.metrics import Mapped, Pair, map_pairs, misspelled
from scenerl.predictions import DETECTION_LISTS, Predictions, RawPrediction, read_predictions, sniff
from scenerl.predictions.arrays import to_original_pixels
from scenerl.predictions.checks import check_box_format, check_format, is_unread, why_unread
from scenerl.predictions.notes import shown
from scenerl.predictions.pairing import MISSING, NOTHING, match_file_names, pair_up
from scenerl.predictions.reading import is_raw, reading_of
from scenerl.types import Example, ParseResult

LOOKED_AT = 50
"""Answers of a model that could not be read whose look is described."""
UNREAD = 0.95
"""Share of a model's answers that cannot be read from which the command fails."""


class Evaluation:
    """One ground truth and the conventions; reads files of predictions against them.

    Attributes:
        truth: the ground truth.
        conventions: of the metrics.
        mapper: maps labels that are no target's; None where none are mapped.
        training: triplet types and predicate counts of the training data, None where there are none.
        warnings: about the files read so far.
        recognised: what was found out about how they are to be read, by name of the model.
        closest: what a sample of the answers that could not be read look like, with counts, by name of the model.
        unread: a sentence for each of which nearly no raw answer could be read.
    """

    def __init__(self, options: EvalOptions) -> None:
        self.options = options
        self.vocabulary = None if options.vocabulary is None else Vocabulary.read(options.vocabulary)
        self.truth = load_ground_truth(options.data, options.split)
        self.names = self.truth.names
        if not self.names.predicates and self.vocabulary is not None:
            self.names = Names(self.names.objects, self.vocabulary.predicates)
        self.conventions = metric_options(options, self.names)
        self.mapper = label_mapper(options)
        # Labels outside the vocabulary have to be kept where they are to be mapped.
        self.closed = None if self.mapper else self.vocabulary
        self.own = own_metrics(options.metrics)
        check_own(options.metrics, self.truth.examples[0], options.iou_threshold)
        self.training = (None, None) if options.train is None else read_training(options.train, options.train_split)
        self.warnings: list[str] = []
        self.recognised: dict[str, list[str]] = {}
        self.closest: dict[str, dict[str, int]] = {}
        self.unread: list[str] = []

    @cached_property
    def target_vocabulary(self) -> tuple[list[str], list[str]]:
        """Labels and predicates of the vocabulary, or else those of the ground truth."""
        if self.vocabulary is not None:
            return list(self.vocabulary.objects), list(self.vocabulary.predicates)
        graphs = [example.graph for example in self.truth.examples]
        labels = [item.label for graph in graphs for item in graph.objects]
        predicates = [item.predicate for graph in graphs for item in graph.relations]
        return (
            list(dict.fromkeys([*self.names.objects.values(), *labels])),
            list(dict.fromkeys([*self.names.predicates, *predicates])),
        )

    def pairs(self, model: Model, answers: dict[str, str | None] | None = None) -> tuple[list[Pair], dict[str, int]]:
        """The predictions in a file with their ground truth, and the counts of what was odd.

        Args:
            answers: takes the texts of raw answers by image id, where they are wanted.
        """
        path, options, truth = model.path, model.options, self.truth
        kind = sniff(path) if options.input == "auto" else options.input
        predictions, said = self._predictions(model, kind)
        found = [predictions.entries.get(example.image_id) for example in truth.examples]
        answered = [(entry, example) for entry, example in zip(found, truth.examples, strict=True) if entry is not None]
        rows = ((example.image_id, entry.row) for entry, example in answered if entry.row is not None)
        texts = {image_id: row.get("answer") for image_id, row in rows} if self.own or answers is not None else {}
        if answers is not None:
            answers.update(texts)
        conversation, recognised = reading_of(options, self.closed, answered)
        if said + recognised:
            self.recognised[model.name] = said + recognised
        missing = NOTHING if kind in DETECTION_LISTS else MISSING
        pairs, counts, odd = pair_up(predictions, truth, conversation, missing, self.mapper is not None)
        self.warnings += odd
        rows = [entry.row for entry in predictions.entries.values() if entry.row is not None]
        own = FORMATS[conversation.output_format.format].box_format or conversation.output_format.box_format
        box_formats = {str(row.get("frame", own)) for row in rows}
        box_format = box_formats.pop() if len(box_formats) == 1 else "pixels"
        suspicious = check_box_format(truth.examples, [pair.result for pair in pairs], box_format)
        suspicious += predictions.other_tasks(self.conventions.task)
        if all(pair.result.graph is None for pair in pairs):
            suspicious += check_format(predictions.answers(), conversation.output_format)
        self.warnings += [f"{path}: {sentence}" for sentence in suspicious]
        if self.conventions.task != "det" and _lack_relations([pair.result for pair in pairs], truth.examples):
            self.warnings.append(f"{path}: no answer has a relation; --task det evaluates objects alone")
        self._note_unread(model, [pair.result for pair in pairs], found, conversation)
        near = misspelled(pairs, *self.target_vocabulary)
        counts["misspelled_labels"] = sum(entry.count for entry in near)
        if near and self.mapper is None:
            listed = shown([f"{entry.label!r} ({entry.count} times) for {entry.to!r}" for entry in near])
            number = counts["misspelled_labels"]
            self.warnings.append(f"{path}: {number} labels differ from a target's by case or spelling alone: {listed}")
        if self.own:
            pairs = [replace(pair, text=texts.get(pair.image_id)) for pair in pairs]
            pairs = measured(pairs, self.own, options.iou_threshold)
        return pairs, counts

    def _predictions(self, model: Model, kind: str) -> tuple[Predictions, list[str]]:
        """What a file holds, and sentences that say how it was read: whence categories that are numbers get their
        names, and what boxes are in where the file does not say."""
        matched: list[str] = []

        def read(names: Names) -> Predictions:
            predictions = read_predictions(model.path, kind, names)
            matched[:] = match_file_names(predictions, self.truth.examples)
            return predictions

        if kind not in DETECTION_LISTS:
            predictions, said = read(self.names), []
            if kind == "arrays":
                said = to_original_pixels(predictions, self.truth.examples, model.options.frame)
            return predictions, matched + said
        candidates = {}
        if model.names is not None:
            candidates = read_category_names(model.names)
        elif self.options.vocabulary is not None and not self.names.objects:
            candidates = read_category_names(self.options.vocabulary)
        predictions, said = named(read, self.truth.examples, self.names, candidates, model.path)
        return predictions, matched + said

    def _note_unread(
        self,
        model: Model,
        results: Sequence[ParseResult],
        found: Sequence[RawPrediction | None],
        conversation: Conversation,
    ) -> None:
        """Note what the answers that could not be read look like, and where nearly all are such, with the likeliest
        reason."""
        answered = [
            (entry.row, example.query, result)
            for entry, example, result in zip(found, self.truth.examples, results, strict=True)
            if entry is not None and entry.row is not None
        ]
        unread = [(row, query, result) for row, query, result in answered if is_unread(result)]
        if not unread:
            return
        format_name = conversation.output_format.format
        looks = Counter(closest(row.get("answer"), query, format_name) for row, query, _ in unread[:LOOKED_AT])
        self.closest[model.name] = dict(looks.most_common())
        if len(unread) < UNREAD * len(answered):
            return
        texts = [(row.get("answer"), query) for row, query, _ in unread]
        reason = why_unread(texts, [result for _, _, result in unread], conversation.output_format)
        # What `predict` could not parse it has said; raw answers may be read in another way.
        (self.unread if any(is_raw(row) for row, _, _ in unread) else self.warnings).append(
            f"{model.path}: {len(unread)} of {len(answered)} answers could not be read as {format_name!r}; {reason}"
        )

    def check_task(self) -> None:
        """Warn where relations are evaluated and the ground truth is for detection."""
        if self.conventions.task != "det" and all(example.query is not None for example in self.truth.examples):
            self.warnings.append(f"{self.options.data} is annotated for detection; use --task det")

    def mapped(self, pairs: list[Pair]) -> tuple[list[Pair], list[Mapped]]:
        """The pairs with labels mapped, and every mapping used."""
        labels, predicates = self.target_vocabulary
        changed, used = map_pairs(pairs, self.mapper, labels, predicates)
        known = {"objects": set(labels), "predicates": set(predicates)}
        if outside := [f"{entry.label!r} to {entry.to!r}" for entry in used if entry.to not in known[entry.kind]]:
            self.warnings.append(
                f"{len(outside)} labels were mapped to what is no target's label either: {shown(outside)}"
            )
        return (measured(changed, self.own, self.options.iou_threshold) if self.own else changed), used


def _lack_relations(results: Sequence[ParseResult], examples: Sequence[Example]) -> bool:
    """Whether answers have objects and none of them the relations that the ground truth has."""
    graphs = [result.graph for result in results if result.graph is not None]
    return (
        any(graph.objects for graph in graphs)
        and not any(graph.relations for graph in graphs)
        and any(example.graph.relations for example in examples)
    )
