"""A causal language model with random weights, made on the spot: bytes for tokens, one layer."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}<assistant>"


def make(directory: Path, *, chat: bool = True, positions: int = 2048) -> Path:
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    tokenizers: Any = importlib.import_module("tokenizers")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    words = {"<end>": 0, **{letter: at + 1 for at, letter in enumerate(alphabet)}}
    tokens = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=words, merges=[]))
    tokens.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = tokenizers.decoders.ByteLevel()
    tokenizer: Any = transformers.PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token="<end>", pad_token="<end>")
    if chat:
        tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(directory)
    torch.manual_seed(7)
    shape = {"vocab_size": len(words), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0}
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape, **ids, max_position_embeddings=positions)).save_pretrained(directory)
    return directory
