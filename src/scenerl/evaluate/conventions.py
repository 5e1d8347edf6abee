"""The conventions of an evaluation: what the options say, else the protocol that they name."""

from __future__ import annotations

from pathlib import Path

from scenerl.commands.eval import EvalOptions
from scenerl.data.ground_truth import Names
from scenerl.errors import UserError
from scenerl.metrics import LabelMapper, MetricOptions, WordNetSynonyms, protocol, read_table
from scenerl.plugins import digest, is_own
from scenerl.predictions.row import DEFAULT_BOX_FORMAT
from scenerl.similarity import build_similarity

_READ = ("data", "split", "train", "train_split", "input", "format", "envelope", "frame")
_OF_PROTOCOLS = ("task", "plus_one", "absent_as_zero", "hits", "graph_constraint", "ties", "failed", "f1_average")
_MAPPINGS = ("map_table", "map_wordnet", "map_similarity")


def metric_options(options: EvalOptions, names: Names) -> MetricOptions:
    """The conventions: what the options say, else what the protocol says, else the defaults.

    Raises:
        UserError: conventions that do not go together, or that need a vocabulary where there is none.
    """
    chosen = None if options.protocol is None else protocol(options.protocol)
    settings: dict[str, object] = {} if chosen is None else {**chosen.settings, "task": chosen.tasks[0]}
    for key in _OF_PROTOCOLS:
        if (value := getattr(options, key)) is not None:
            settings["absent_predicates_as_zero" if key == "absent_as_zero" else key] = value
    if chosen is not None and settings["task"] not in chosen.tasks:
        raise UserError(f"protocol {options.protocol} is for task {', '.join(chosen.tasks)}, not {settings['task']}")
    if settings.get("absent_predicates_as_zero") and not names.predicates:
        raise UserError("absent_as_zero needs to know which predicates there are; give --vocabulary FILE.json")
    return MetricOptions(
        **settings,
        ks=tuple(options.ks),
        iou_threshold=options.iou_threshold,
        predicates=tuple(names.predicates) or None,
        group_bounds=tuple(options.group_bounds) or None,
        filtered=options.filtered,
        bootstrap_samples=options.resamples,
        seed=options.seed,
    )


def label_mapper(options: EvalOptions) -> LabelMapper | None:
    """How labels that are no target's are mapped; None where they are not.

    Raises:
        UserError: a table or a folder of WordNet that cannot be read.
    """
    if all(getattr(options, key) is None for key in _MAPPINGS):
        return None
    similarity = None
    if options.map_similarity is not None:
        similarity = build_similarity(options.map_similarity), options.map_threshold
    return LabelMapper(
        table={} if options.map_table is None else read_table(options.map_table),
        synonyms=None if options.map_wordnet is None else WordNetSynonyms(options.map_wordnet),
        similarity=similarity,
    )


def described_conventions(options: EvalOptions) -> dict[str, object]:
    """What metrics.json says of the files, of how they were parsed, and of the protocol and the mapping of labels."""
    keys = [*_READ, "vocabulary", "protocol"]
    if any(getattr(options, key) is not None for key in _MAPPINGS):
        keys += [*_MAPPINGS, "map_threshold"]
    values = {key: getattr(options, key) for key in keys}
    described = {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}
    if own := {name: digest(name) for name in filter(is_own, options.metrics)}:
        described["own_metrics"] = own
    if options.protocol is not None:
        chosen = protocol(options.protocol)
        described |= {"protocol_source": chosen.source, "protocol_differs": chosen.differs}
    described["frame"] = options.frame or DEFAULT_BOX_FORMAT
    files = [str(path) for path in options.compare] or [str(options.pred), *options.others]
    return {"predictions": files if len(files) > 1 else files[0], **described}
