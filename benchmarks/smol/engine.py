"""The embedded model's weights in numpy: greedy answers to many questions that share a long beginning, computed together.

A search asks one prompt 6 to 60 questions at a time and stops at the end of a line. The product's servers answer them one by one (a
reproducible answer may not depend on its neighbours); here all of them go through each layer in one matrix product, after a beginning
that is computed once. On one core that is about ten times the questions a second. Sums are float32 in place of llama.cpp's 8-bit
activations, so an answer may differ from the product's where two words are nearly as likely; for a benchmark both are the same model.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.smol.gguf import Floats, Gguf

Ints = npt.NDArray[np.int64]
CONTEXT = 2048
_REMEMBERED = 48  # computed beginnings kept
_MOST = 64  # questions computed at once
_END = ("<|endoftext|>", "<|im_end|>")


Linear = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Layer:
    norm: Floats
    qkv: Linear
    out: Linear
    ffn_norm: Floats
    gate_up: Linear
    down: Linear


@dataclass
class Head:
    """A computed beginning: its tokens and, by layer, their keys and values, each (kv heads, tokens, 64)."""

    tokens: tuple[int, ...]
    keys: list[Floats]
    values: list[Floats]


class Engine:
    """`answers(prompts)`: the greedy continuation of each up to a line break, a function of the prompt (see above for its last bits)."""

    def __init__(self, weights: Path) -> None:
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

        file = Gguf(weights)
        meta = file.metadata
        words = meta["tokenizer.ggml.tokens"]
        vocab = {word: i for i, word in enumerate(words)}
        merges = [tuple(m.split(" ")) for m in meta["tokenizer.ggml.merges"]]
        self._tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
        self._tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(r"\p{N}"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        self._tokenizer.decoder = decoders.ByteLevel()
        self._end = {vocab[word] for word in _END}
        self._breaks = np.array(["Ċ" in word for word in words])
        self.heads, self.kv_heads = int(meta["llama.attention.head_count"]), int(meta["llama.attention.head_count_kv"])
        self._eps = float(meta["llama.attention.layer_norm_rms_epsilon"])
        self._embedding = file.tensor("token_embd.weight")
        self._norm, self._words = file.tensor("output_norm.weight"), linear(self._embedding)
        self.width = self._embedding.shape[1] // self.heads
        self._layers = [_layer(file, i) for i in range(int(meta["llama.block_count"]))]
        angles = np.outer(np.arange(CONTEXT), float(meta["llama.rope.freq_base"]) ** (-np.arange(0, self.width, 2) / self.width))
        self._cos, self._sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        self.known: OrderedDict[tuple[int, ...], Head] = OrderedDict()  # computed beginnings, the last used ones

    def tokens(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def answers(self, prompts: Sequence[str], max_tokens: int) -> list[str]:
        """In the order of `prompts`. Those longer than the context are cut at their beginning, where the instructions are."""
        made: dict[int, str] = {}
        by_head: dict[str, list[int]] = {}
        for i, text in enumerate(prompts):
            by_head.setdefault(text[: _cut(text)], []).append(i)
        for start, members in by_head.items():
            head = self.tokens(start)
            tails = {i: self.tokens(prompts[i][len(start) :]) for i in members}
            same = _shared(list(tails.values()))
            head += tails[members[0]][:same]
            tails = {i: tail[same:] for i, tail in tails.items()}
            head = head[max(0, len(head) + max(map(len, tails.values())) + max_tokens - CONTEXT) :]
            computed = self._head(tuple(head))
            order = sorted(members, key=lambda i: len(tails[i]))
            for low in range(0, len(order), _MOST):
                batch = order[low : low + _MOST]
                for i, answer in zip(batch, self._continue(computed, [tails[i] for i in batch], max_tokens), strict=True):
                    made[i] = self._tokenizer.decode(answer).partition("\n")[0]
        return [made[i] for i in range(len(prompts))]

    # -- the model ------------------------------------------------------------------------------------------------------

    def _head(self, tokens: tuple[int, ...]) -> Head:
        """The computed beginning; what another one shares with it is taken over."""
        if tokens in self.known:
            self.known.move_to_end(tokens)
            return self.known[tokens]
        near, same = None, 0
        for other in self.known.values():
            n = next((n for n, (a, b) in enumerate(zip(other.tokens, tokens, strict=False)) if a != b), min(len(other.tokens), len(tokens)))
            if n > same:
                near, same = other, n
        shape = (self.kv_heads, 0, self.width)
        empty = [np.zeros(shape, np.float32) for _ in self._layers]
        start = (
            Head(tokens[:same], [k[:, :same] for k in near.keys], [v[:, :same] for v in near.values]) if near else Head((), empty, empty)
        )
        cache = _Cache(self, start, [len(tokens) - same], 0)
        if len(tokens) > same:
            self._forward(cache, np.array(tokens[same:]), last=False)
        keys = [np.concatenate([old, new[0]], axis=1) for old, new in zip(start.keys, cache.keys, strict=True)]
        values = [np.concatenate([old, new[0]], axis=1) for old, new in zip(start.values, cache.values, strict=True)]
        self.known[tokens] = head = Head(tokens, keys, values)
        if len(self.known) > _REMEMBERED:
            self.known.popitem(last=False)
        return head

    def _continue(self, head: Head, tails: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
        cache = _Cache(self, head, [len(t) for t in tails], max_tokens)
        said: list[list[int]] = [[] for _ in tails]
        logits = self._forward(cache, np.concatenate([np.array(t) for t in tails]), last=True)
        going = np.arange(len(tails))
        for step in range(max_tokens):
            best = logits.argmax(1)
            for row, token in zip(going, best, strict=True):
                if token not in self._end:
                    said[row].append(int(token))
            on = np.array([t not in self._end and not self._breaks[t] for t in best], dtype=bool)
            going, best = going[on], best[on]
            if not len(going) or step == max_tokens - 1:
                break
            cache.keep(on)
            logits = self._forward(cache, best, last=True)
        return said

    def _forward(self, cache: _Cache, tokens: Ints, *, last: bool) -> Floats:
        """New tokens of every row of the cache, packed row by row; logits behind the last token of each row when `last`."""
        rows, columns, number = cache.grow()
        x = self._embedding[tokens]
        place = len(cache.head.tokens) + columns
        cos, sin = self._cos[place][:, None, :], self._sin[place][:, None, :]
        for n, layer in enumerate(self._layers):
            mixed = layer.qkv(self._rms(x, layer.norm))
            q, k, v = np.split(mixed.reshape(len(tokens), -1, self.width), [self.heads, self.heads + self.kv_heads], axis=1)
            cache.keys[n][rows, :, columns], cache.values[n][rows, :, columns] = _turned(k, cos, sin), v
            seen = cache.attend(n, _turned(q, cos, sin), rows, columns, number)
            x = x + layer.out(seen)
            gate, up = np.split(layer.gate_up(self._rms(x, layer.ffn_norm)), 2, axis=1)
            x = x + layer.down(gate / (1 + np.exp(-gate)) * up)
        if not last:
            return x
        ends = np.append(np.flatnonzero(np.diff(rows)), len(rows) - 1)
        return self._words(self._rms(x[ends], self._norm))

    def _rms(self, x: Floats, weight: Floats) -> Floats:
        return np.asarray(x / np.sqrt((x * x).mean(1, keepdims=True) + self._eps) * weight, dtype=np.float32)


class _Cache:
    """Keys and values of the rows' own tokens, (rows, kv heads, longest, 64) by layer, behind a common beginning."""

    def __init__(self, engine: Engine, head: Head, lengths: Sequence[int], more: int) -> None:
        self.head, self.lengths, self._new = head, np.zeros(len(lengths), np.int64), np.array(lengths)
        shape = (len(lengths), engine.kv_heads, max(lengths) + more, engine.width)
        self.keys = [np.zeros(shape, np.float32) for _ in head.keys]
        self.values = [np.zeros(shape, np.float32) for _ in head.keys]
        self._scale = np.float32(engine.width**-0.5)

    def grow(self) -> tuple[Ints, Ints, Ints]:
        """Of each new token, packed row by row: its row, its column in the row, and its number among the row's new ones."""
        rows = np.repeat(np.arange(len(self.lengths)), self._new)
        number = np.arange(len(rows)) - np.repeat(np.cumsum(self._new) - self._new, self._new)
        columns = self.lengths[rows] + number
        self.lengths = self.lengths + self._new
        self._new = np.ones_like(self.lengths)
        return rows, columns, number

    def keep(self, on: npt.NDArray[np.bool_]) -> None:
        """Only these rows go on."""
        if not on.all():
            self.lengths, self._new = self.lengths[on], self._new[on]
            self.keys, self.values = [k[on] for k in self.keys], [v[on] for v in self.values]

    def attend(self, n: int, q: Floats, rows: Ints, columns: Ints, number: Ints) -> Floats:
        """Attention of packed queries (tokens, heads, 64) over the common beginning and, causally, over their own row."""
        tokens, heads, size = q.shape
        count, kv, _, _ = self.keys[n].shape
        group, start, width, most = heads // kv, len(self.head.tokens), int(self.lengths.max()), int(number.max()) + 1
        q = (q * self._scale).reshape(tokens, kv, group, size)
        padded = np.zeros((count, most, kv, group, size), np.float32)
        padded[rows, number] = q
        mine = padded.transpose(0, 2, 1, 3, 4).reshape(count, kv, most * group, size) @ self.keys[n][:, :, :width].transpose(0, 1, 3, 2)
        scores = np.empty((tokens, kv, group, start + width), np.float32)
        scores[..., start:] = mine.reshape(count, kv, most, group, width)[rows, :, number]
        scores[..., start:] += np.where(np.arange(width) > columns[:, None], -np.inf, 0.0).astype(np.float32)[:, None, None, :]
        if start:
            packed = np.ascontiguousarray(q.transpose(1, 0, 2, 3)).reshape(kv, tokens * group, size)
            scores[..., :start] = (packed @ self.head.keys[n].transpose(0, 2, 1)).reshape(kv, tokens, group, start).transpose(1, 0, 2, 3)
        scores -= scores.max(-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(-1, keepdims=True)
        weights = np.zeros((count, most, kv, group, width), np.float32)
        weights[rows, number] = scores[..., start:]
        own = weights.transpose(0, 2, 1, 3, 4).reshape(count, kv, most * group, width) @ self.values[n][:, :, :width]
        seen = own.reshape(count, kv, most, group, size)[rows, :, number]
        if start:
            packed = np.ascontiguousarray(scores[..., :start].transpose(1, 0, 2, 3)).reshape(kv, tokens * group, start)
            seen = seen + (packed @ self.head.values[n]).reshape(kv, tokens, group, size).transpose(1, 0, 2, 3)
        return np.ascontiguousarray(seen.reshape(tokens, -1))


def _layer(file: Gguf, n: int) -> Layer:
    def joined(*names: str) -> Linear:
        return linear(np.concatenate([file.tensor(f"blk.{n}.{name}.weight") for name in names]))

    return Layer(
        file.tensor(f"blk.{n}.attn_norm.weight"),
        joined("attn_q", "attn_k", "attn_v"),
        joined("attn_output"),
        file.tensor(f"blk.{n}.ffn_norm.weight"),
        joined("ffn_gate", "ffn_up"),
        joined("ffn_down"),
    )


def arithmetic() -> str:
    """What the matrix products are made with: torch's bfloat16 where torch is installed, else numpy's float32, at a third of the speed."""
    return "torch bfloat16" if find_spec("torch") else "numpy float32"


def linear(weight: Floats) -> Linear:
    """x -> x W^T for a weight of (outputs, inputs)."""
    if not find_spec("torch"):
        turned = np.ascontiguousarray(weight.T)
        return lambda x: x @ turned
    torch: Any = import_module("torch")
    torch.set_num_threads(1)
    held = torch.from_numpy(weight).to(torch.bfloat16)

    def product(x: Floats) -> Floats:
        with torch.inference_mode():
            made: Floats = torch.nn.functional.linear(torch.from_numpy(x).to(torch.bfloat16), held).float().numpy()
        return made

    return product


def _turned(x: Floats, cos: Floats, sin: Floats) -> Floats:
    """Rotary positions, in pairs of neighbours as llama.cpp stores these weights."""
    even, odd = x[..., 0::2], x[..., 1::2]
    out = np.empty_like(x)
    out[..., 0::2], out[..., 1::2] = even * cos - odd * sin, even * sin + odd * cos
    return out


def _shared(tails: Sequence[Sequence[int]]) -> int:
    """How many first tokens all tails share, of each at least one left over."""
    most = min(map(len, tails)) - 1
    return next((n for n in range(most) if len({t[n] for t in tails}) > 1), max(0, most))


def _cut(text: str) -> int:
    """Characters up to the last blank line: what neighbours share."""
    return text.rfind("\n\n") + 2 if "\n\n" in text else 0
