"""The conventions of an evaluation: what the options say, and the protocol that they name."""

from __future__ import annotations

from scenerl.config.options import EvalOptions
from scenerl.errors import UserError
from scenerl.metrics import LabelMapper, MetricOptions, WordNetSynonyms, protocol, read_table
from scenerl.predictions import Names
from scenerl.similarity import build_similarity


def metric_options(options: EvalOptions, names: Names) -> MetricOptions:
    """The conventions: what the options say, else what the protocol says, else the defaults.

    Raises:
        UserError: conventions that do not go together, or that need a vocabulary where there is none.
    """
    chosen = None if options.protocol is None else protocol(options.protocol)
    settings: dict[str, object] = {} if chosen is None else {**chosen.settings, "task": chosen.tasks[0]}
    given = {
        "task": options.task,
        "plus_one": options.plus_one,
        "absent_predicates_as_zero": options.absent_as_zero,
        "hits": options.hits,
        "graph_constraint": options.graph_constraint,
        "ties": options.ties,
        "failed": options.failed,
        "f1_average": options.f1_average,
    }
    settings |= {key: value for key, value in given.items() if value is not None}
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


def wants_mapping(options: EvalOptions) -> bool:
    """Whether labels outside the vocabulary are to be mapped."""
    return any(way is not None for way in (options.map_table, options.map_wordnet, options.map_similarity))


def mapper(options: EvalOptions) -> LabelMapper:
    """How labels outside the vocabulary are mapped."""
    similarity = None
    if options.map_similarity is not None:
        similarity = build_similarity(options.map_similarity), options.map_threshold
    return LabelMapper(
        table={} if options.map_table is None else read_table(options.map_table),
        synonyms=None if options.map_wordnet is None else WordNetSynonyms(options.map_wordnet),
        similarity=similarity,
    )


def described_conventions(options: EvalOptions) -> dict[str, object]:
    """What metrics.json says of the files, of how they were read, and of the protocol and the mapping of labels."""
    described: dict[str, object] = {
        "predictions": [str(path) for path in options.compare] if options.compare else str(options.pred),
        **{
            key: getattr(options, key)
            for key in ("data", "split", "train", "train_split", "input", "format", "envelope", "frame")
        },
        "vocabulary": None if options.vocabulary is None else str(options.vocabulary),
        "protocol": options.protocol,
    }
    if options.protocol is not None:
        chosen = protocol(options.protocol)
        described |= {"protocol_source": chosen.source, "protocol_differs": chosen.differs}
    if wants_mapping(options):
        described |= {
            "map_table": None if options.map_table is None else str(options.map_table),
            "map_wordnet": None if options.map_wordnet is None else str(options.map_wordnet),
            "map_similarity": options.map_similarity,
            "map_threshold": options.map_threshold,
        }
    return described
