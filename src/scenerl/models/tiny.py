"""A small model of the Qwen2-VL architecture with a tokenizer of its own: everything but the size is the real thing.

It is built where no checkpoint can be downloaded (the demo, the tests) and saved in the standard files, so that it is
loaded, trained and served by the same code as the real ones. Three millions of parameters learn the synthetic scenes in
minutes on two cores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from scenerl.answers import AnswerStyle, build_prompt, write_answer
from scenerl.models.qwen2_vl import Qwen2VLImageTextProcessor
from scenerl.types import Example

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# A number with the comma and space before it is one piece, and everything between numbers another, cut where a JSON
# string ends: in every format a coordinate costs one token, and the rest of an object or a relation a few. Without the
# cut a predicate and the label after it would be one token, and every pair of them to be learnt by itself.
_PIECES = r',? ?\d+|[^\d]+?(?=,? ?\d|", ")|[^\d]+'
_LEADS = ("", " ", ", ")
_ROLES = ("user", "assistant")  # in every conversation, so worth a token each
_TOKENIZER_EXAMPLES = 2000


@dataclass(frozen=True, slots=True)
class TinyShape:
    """Sizes of the small model. Widths are multiples of 32, the size of one attention head."""

    text_width: int = 192
    text_layers: int = 4
    vision_width: int = 128
    vision_layers: int = 3
    patch: int = 14
    min_pixels: int = 56 * 56
    max_pixels: int = 448 * 448


def build_tokenizer(
    texts: Iterable[str], numbers: Iterable[int], phrases: Iterable[str] = (), vocab_size: int = 1000
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on ``texts``, with every number of ``numbers`` as one token.

    Args:
        texts: answers the model will write.
        numbers: the coordinates that occur.
        phrases: texts that become one token each. The prompt of a small model's only task is one: it is the same in
            every row and would be most of the text to run through.
        vocab_size: upper limit of the vocabulary.
    """
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
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.add_tokens([*_ROLES, *phrases])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=32768,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, shape: TinyShape, seed: int = 0) -> Qwen2VLForConditionalGeneration:
    """A randomly initialised model for ``tokenizer``, the same for the same seed."""
    ids = dict(zip(SPECIAL_TOKENS, tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)), strict=True))
    heads = shape.text_width // 32
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": shape.text_width,
            "intermediate_size": shape.text_width * 3,
            "num_hidden_layers": shape.text_layers,
            "num_attention_heads": heads,
            "num_key_value_heads": max(1, heads // 2),
            "max_position_embeddings": 32768,
            "rope_parameters": {
                "type": "mrope",
                "rope_type": "default",
                "mrope_section": [4, 6, 6],
                "rope_theta": 10000.0,
            },
            "tie_word_embeddings": True,
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": shape.vision_layers,
            "embed_dim": shape.vision_width,
            "hidden_size": shape.text_width,
            "num_heads": shape.vision_width // 32,
            "mlp_ratio": 4,
            "patch_size": shape.patch,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen2VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = ids["<|im_end|>"]
    model.generation_config.pad_token_id = ids["<|endoftext|>"]
    return model


def build_processor(tokenizer: PreTrainedTokenizerFast, shape: TinyShape) -> Qwen2VLImageTextProcessor:
    """The image and text processor that goes with :func:`build_model`."""
    images = Qwen2VLImageProcessorPil(
        patch_size=shape.patch, merge_size=2, min_pixels=shape.min_pixels, max_pixels=shape.max_pixels
    )
    return Qwen2VLImageTextProcessor(images, tokenizer, chat_template=CHAT_TEMPLATE)


def build(
    examples: Sequence[Example], style: AnswerStyle, shape: TinyShape | None = None, seed: int = 0
) -> tuple[Qwen2VLForConditionalGeneration, Qwen2VLImageTextProcessor]:
    """A randomly initialised model and its processor for a data set: coordinates, labels and prompt are its own tokens.

    Args:
        examples: the training data; the answers to the first 2,000 make the tokenizer.
        style: how the model will be asked and answer, in frame ``norm1000``.
        shape: sizes; not given: those of :class:`TinyShape`.
        seed: of the weights.

    Raises:
        ValueError: there is no example, or one cannot be written in ``style``.
    """
    if not examples:
        raise ValueError("a small model is made for a data set, and this one has no examples")
    texts, prompts = [], set()
    for example in examples[:_TOKENIZER_EXAMPLES]:
        own = style if example.query is None else replace(style, objects=example.query)
        texts.append(write_answer(example.graph, own, example.image_wh))
        prompts.add(build_prompt(style, example.query))
    numbers = range(0, 1001, style.grid)
    # one prompt for all rows becomes a token; many are text like the answers
    one_prompt = sorted(prompts) if len(prompts) == 1 else []
    tokenizer = build_tokenizer(
        texts if one_prompt else texts + sorted(prompts),
        numbers,
        one_prompt,
        vocab_size=1000 + len(_LEADS) * len(numbers),
    )
    shape = shape or TinyShape()
    return build_model(tokenizer, shape, seed), build_processor(tokenizer, shape)


def save(model, processor, folder: str | Path) -> None:
    """Write a checkpoint folder that :func:`scenerl.models.loading.load` and other tools read."""
    processor.save_pretrained(folder)
    model.save_pretrained(folder)
