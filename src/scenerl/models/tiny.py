"""A small model of a family's architecture with a tokenizer of its own: everything but the size is the real thing.

It is built where no checkpoint can be downloaded (the demo, the tests) and saved in the standard files, so that it is
loaded, trained and served by the same code as the real ones. Three millions of parameters learn the synthetic scenes in
minutes on two cores.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from os.path import commonprefix
from pathlib import Path
from types import SimpleNamespace

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from scenerl.answers import OutputFormat, build_prompt, write_answer
from scenerl.box_formats import extent_wh
from scenerl.errors import UserError
from scenerl.models.architectures import ARCHITECTURES, Architecture, TinyShape, build_model
from scenerl.models.loading import family_named
from scenerl.types import Example

__all__ = ["CHAT_TEMPLATE", "TinyShape", "build", "build_tokenizer", "chat_template", "save"]


def chat_template(architecture: Architecture) -> str:
    """Messages in ChatML with the family's image and end of an answer; content may be text or a list of parts."""
    return (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}" + architecture.image + "{% elif part['type'] == 'text' %}{{ part['text'] }}"
        "{% endif %}{% endfor %}{% endif %}" + architecture.end + "\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


CHAT_TEMPLATE = chat_template(ARCHITECTURES["qwen2_vl"])
# A number with the comma and space before it is one piece, and everything between numbers another, cut where a JSON
# string ends: in every format a coordinate costs one token, and the rest of an object or a relation a few. Without the
# cut a predicate and the label after it would be one token, and every pair of them to be learnt by itself.
_PIECES = r',? ?\d+|[^\d]+?(?=,? ?\d|", ")|[^\d]+'
_LEADS = ("", " ", ", ")
_ROLES = ("user", "assistant")  # in every conversation, so worth a token each
_TOKENIZER_EXAMPLES = 2000
_MOST_LABEL_TOKENS = 200  # labels asked for that are worth a token each


def build_tokenizer(
    texts: Iterable[str],
    numbers: Iterable[int],
    phrases: Iterable[str] = (),
    vocab_size: int = 1000,
    model_type: str = "qwen2_vl",
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on ``texts``, with every number of ``numbers`` as one token.

    Args:
        texts: answers the model will write.
        numbers: the coordinates that occur.
        phrases: texts that become one token each. The prompt of a small model's only task is one: it is the same in
            every row and would be most of the text to run through. Labels asked for are others.
        vocab_size: upper limit of the vocabulary.
        model_type: of which family special tokens and chat template are.
    """
    architecture = ARCHITECTURES[model_type]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    texts = list(texts)
    coordinates = [f"{lead}{number}" for number in numbers for lead in _LEADS] * max(1, len(texts))
    tokenizer.train_from_iterator(
        texts + coordinates,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(architecture.special_tokens),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.add_tokens([*_ROLES, *phrases])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=architecture.end,
        pad_token=architecture.special_tokens[0],
        chat_template=chat_template(architecture),
        model_max_length=32768,
    )


def build(
    examples: Sequence[Example],
    output_format: OutputFormat,
    shape: TinyShape | None = None,
    seed: int = 0,
    model_type: str = "qwen2_vl",
):
    """A randomly initialised model and its processor for a data set: coordinates, labels and prompt are its own tokens.

    Args:
        examples: the training data; the answers to the first 2,000 make the tokenizer.
        output_format: how the model will be asked and answer, in its family's frame.
        shape: sizes; not given: those of :class:`TinyShape`.
        seed: of the weights.
        model_type: the family, one of :data:`scenerl.models.FAMILIES`.

    Raises:
        UserError: there is no example, or one cannot be written in ``style``.
    """
    if not examples:
        raise UserError("a small model is made for a data set, and this one has no examples")
    shape = shape or TinyShape()
    architecture, family = ARCHITECTURES[model_type], family_named(model_type)
    images, largest = architecture.build_images(shape), 0
    texts, prompts, labels = [], set(), set()
    for example in examples[:_TOKENIZER_EXAMPLES]:
        own = output_format if example.query is None else replace(output_format, objects=example.query)
        input_wh = family.input_wh(SimpleNamespace(image_processor=images), example.image_wh)
        texts.append(write_answer(example.graph, own, example.image_wh, input_wh))
        largest = max(largest, *map(int, extent_wh(output_format.box_format, example.image_wh, input_wh)))
        prompts.add(build_prompt(output_format, example.query))
        labels.update(example.query or ())
    numbers = range(0, largest + 1, output_format.step)
    phrases = _phrases(sorted(prompts), sorted(labels))
    rest = [] if len(prompts) == 1 else _cut(sorted(prompts), phrases)
    vocab_size = 1000 + len(_LEADS) * len(numbers)
    tokenizer = build_tokenizer(_cut(texts, phrases) + rest, numbers, phrases, vocab_size, model_type)
    processor = architecture.build_processor(images, tokenizer, chat_template=chat_template(architecture))
    return build_model(model_type, tokenizer, shape, seed), processor


def _phrases(prompts: list[str], labels: list[str]) -> list[str]:
    """What is worth a token: the one prompt, or what all prompts begin and end with, and the labels asked for.

    Many labels are text like any other.
    """
    if len(prompts) == 1:
        return prompts
    start = commonprefix(prompts)
    end = commonprefix([prompt[::-1] for prompt in prompts])[::-1]
    ends = [
        start[: start.rfind(" ") + 1],
        end[max(0, end.find("\n")) :],
    ]  # no part of a label that all begin or end with
    names = [label for label in labels if len(label) > 2]  # shorter ones are parts of words
    return [phrase for phrase in ends if phrase] + (names if len(names) <= _MOST_LABEL_TOKENS else [])


def _cut(texts: list[str], phrases: list[str]) -> list[str]:
    """What is left between the phrases, so that no merge of the tokenizer reaches across one."""
    longest_first = sorted(phrases, key=len, reverse=True)
    return [part for text in texts for part in re.split("|".join(map(re.escape, longest_first)), text) if part]


def save(model, processor, folder: str | Path) -> None:
    """Write a checkpoint folder that :func:`scenerl.models.loading.load` and other tools read."""
    processor.save_pretrained(folder)
    model.save_pretrained(folder)
