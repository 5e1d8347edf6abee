"""The tokenizer of a small model: byte-level BPE in which coordinates, the prompt and labels are one token each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from os.path import commonprefix

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from scenerl.tiny.architectures import ARCHITECTURES, Architecture


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


# A number with the comma and space before it is one piece, and everything between numbers another, cut where a JSON
# string ends: in every format a coordinate costs one token, and the rest of an object or a relation a few. Without the
# cut a predicate and the label after it would be one token, and every pair of them to be learnt by itself.
_PIECES = r',? ?\d+|[^\d]+?(?=,? ?\d|", ")|[^\d]+'
LEADS = ("", " ", ", ")
"""What may stand before a number within its token."""
_ROLES = ("user", "assistant")  # in every conversation, so worth a token each
_MOST_LABEL_TOKENS = 200  # queried labels that get a token each


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
            every row and would be most of the text to run through. Queried labels are others.
        vocab_size: upper limit of the vocabulary.
        model_type: the family whose special tokens and chat template it gets.
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
    coordinates = [f"{lead}{number}" for number in numbers for lead in LEADS] * max(1, len(texts))
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


def shared_phrases(prompts: list[str], labels: list[str]) -> list[str]:
    """What is worth a token: the one prompt, or what all prompts begin and end with, and the queried labels.

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


def split_at(texts: list[str], phrases: list[str]) -> list[str]:
    """What is left between the phrases, so that no merge of the tokenizer reaches across one."""
    longest_first = sorted(phrases, key=len, reverse=True)
    return [part for text in texts for part in re.split("|".join(map(re.escape, longest_first)), text) if part]
