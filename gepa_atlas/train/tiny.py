"""A Llama of about 90,000 random weights whose vocabulary is the words of the hand-off: trained in seconds on a processor.

With `pretrain_steps` it first learns to write the texts of the run's candidates after any prompt of the hand-off, and to repeat the
question: what a pretrained model can do as well. Which text a question needs is left for training.
"""

from __future__ import annotations

import importlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gepa_atlas.evolve.rng import rng
from gepa_atlas.train.config import TinyConfig

PAD, UNKNOWN, END = "<pad>", "<unk>", "<end>"
TURNS = ("<system>", "<user>", "<assistant>")
TEMPLATE = (
    "{% for m in messages %}{{ '<' + m['role'] + '>' }} {{ m['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TEXTS = ("sft.jsonl", "grpo_train.jsonl", "grpo_val.jsonl", "tasks.jsonl", "prompts.jsonl")
_NOT_READ = re.compile(r"(?:^|_)(?:id|ids|hash|hashes|json|answers|spec|split|role)$")
_WORDS, _EXACT = r"\w+|[^\w\s]+", r" ?\w+| ?[^\w\s]+|\s"
_BATCH, _RATE = 16, 3e-3
_SPREAD = 0.05  # standard deviation of the random weights
_ECHO = 0.5  # share of pretraining in which the answer repeats the question


def build(target: Path, how: TinyConfig, context: int, seed: int, handoff: Path) -> None:
    """Weights and tokenizer in the folder `target`, which exists. The words are the most frequent ones of the hand-off."""
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    tokenizers: Any = importlib.import_module("tokenizers")
    counted = Counter(word for text in texts_of(handoff) for word in re.findall(_EXACT if how.spaces else _WORDS, text))
    special = (PAD, UNKNOWN, END, *TURNS)
    words = sorted(counted, key=lambda word: (-counted[word], word))[: how.vocabulary - len(special)]
    vocabulary = {word: at for at, word in enumerate((*special, *words))}
    tokens = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokens.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    if how.spaces:
        tokens.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(_EXACT), "isolated")
        tokens.decoder = tokenizers.decoders.Fuse()
    made: Any = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokens, pad_token=PAD, unk_token=UNKNOWN, eos_token=END, additional_special_tokens=list(TURNS),
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    made.chat_template = TEMPLATE.replace(" {{ m['content'] }} <end> ", "{{ m['content'] }}<end>") if how.spaces else TEMPLATE
    made.save_pretrained(target)
    shape = transformers.LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=how.hidden, intermediate_size=2 * how.hidden, num_hidden_layers=how.layers,
        num_attention_heads=how.heads, num_key_value_heads=how.heads, max_position_embeddings=context, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=vocabulary[END], pad_token_id=vocabulary[PAD], initializer_range=_SPREAD,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.LlamaForCausalLM(shape)
        if how.pretrain_steps:
            _pretrain(model, made, how.pretrain_steps, seed, handoff)
        model.save_pretrained(target)


def texts_of(handoff: Path) -> Iterator[str]:
    """Every text of the hand-off that a trainee may read or write; no gold answers."""
    for name in TEXTS:
        for row in _rows(handoff / name):
            yield from _strings(row)


def _rows(path: Path) -> Iterator[Any]:
    if path.is_file():
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            if not _NOT_READ.search(name):
                yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def _pretrain(model: Any, tokenizer: Any, steps: int, seed: int, handoff: Path) -> None:
    """Next-word training on prompts of the hand-off, each followed by the text of some candidate."""
    torch: Any = importlib.import_module("torch")
    prompts = [row["prompt"] for row in _rows(handoff / "grpo_train.jsonl")]
    texts = ["\n".join(row["texts"].values()) for row in _rows(handoff / "prompts.jsonl")]
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE)
    tokenizer.padding_side = "right"
    for step in range(steps):
        draw = rng(seed, step, "pretrain")
        chats = []
        for _ in range(_BATCH):
            prompt, text = prompts[draw.integers(len(prompts))], texts[draw.integers(len(texts))]
            if draw.random() < _ECHO:  # without it the answer hardly looks at the question, and training finds one text for all
                text = prompt[-1]["content"]
            chats.append([*prompt, {"role": "assistant", "content": text}])
        written = [tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats]
        ids = tokenizer(written, return_tensors="pt", padding=True, add_special_tokens=False, return_token_type_ids=False)
        labels = ids["input_ids"].masked_fill(ids["attention_mask"] == 0, -100)
        loss = model(**ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
