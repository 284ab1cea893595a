"""instructions: IFEval-style checks of what a program can verify in an answer (Zhou et al. 2023, arXiv 2311.07911).

The example's spec holds `instruction_id_list` and `kwargs` as IFEval writes them; the score is the share that is followed, or all or
nothing. Written anew from the paper's descriptions. Sentences are counted by their end marks; a language is told by its script, and
among those written in Latin letters by its most frequent words (Hindi, Marathi and Nepali share a script and count for each other).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

from gepa_atlas.errors import DataError
from gepa_atlas.ports import Case
from gepa_atlas.rim.judges.base import SPEC, Door, JudgeSettings, ProgramJudge, Verdict, program
from gepa_atlas.types import Example

Check = Callable[[str, dict[str, Any]], bool]


class InstructionsSettings(JudgeSettings):
    type: Literal["instructions"] = "instructions"
    partial: bool = True  # the share of instructions followed; otherwise all or nothing
    loose: bool = False  # also accept the answer without its first or last line, or without asterisks (IFEval's loose metric)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({SPEC})

    def check(self, examples: Sequence[Example]) -> None:
        for example in examples:
            for name, kwargs in self._read(example):
                _followed(example, name, kwargs, "Some answer.")

    def _read(self, example: Example) -> list[tuple[str, dict[str, Any]]]:
        try:
            spec = json.loads(example.spec or "{}")
            return list(zip(spec["instruction_id_list"], spec.get("kwargs") or [{}] * len(spec["instruction_id_list"]), strict=True))
        except (ValueError, KeyError, TypeError):
            raise DataError(
                f"example {example.id!r} has no `instruction_id_list` with `kwargs` in its spec, as judge {self.called!r} needs: add them"
            ) from None

    def grade(self, case: Case) -> Verdict:
        wanted = self._read(case.example)
        broken = [
            name for name, kwargs in wanted if not any(_followed(case.example, name, kwargs, text) for text in self._readings(case.output))
        ]
        share = 1 - len(broken) / len(wanted) if wanted else 1.0
        why = f"does not follow {', '.join(broken)}" if broken else f"follows all {len(wanted)}"
        return (share if self.partial else float(not broken)), why

    def _readings(self, output: str) -> list[str]:
        if not self.loose:
            return [output]
        lines = output.split("\n")
        cuts = [output, "\n".join(lines[1:]), "\n".join(lines[:-1]), "\n".join(lines[1:-1])]
        return [text for cut in cuts for text in (cut.strip(), cut.replace("*", "").strip())]

    def build(self, door: Door) -> ProgramJudge:
        return program(self, self.grade)


def _followed(example: Example, name: str, kwargs: dict[str, Any], text: str) -> bool:
    if name not in CHECKS:
        raise DataError(f"example {example.id!r} asks for the instruction {name!r}, which has no check; see rim/judges/instructions.py")
    try:
        return followed(name, kwargs, text)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"example {example.id!r}: the kwargs of {name} do not fit it ({type(error).__name__}: {error}); correct the spec"
        ) from None


def followed(name: str, kwargs: dict[str, Any], text: str) -> bool:
    return bool(text.strip()) and CHECKS[name](text, {k: v for k, v in kwargs.items() if v is not None})


def _compare(count: int, relation: str, wanted: int) -> bool:
    return count < wanted if relation == "less than" else count >= wanted


def _words(text: str) -> list[str]:
    return re.findall(r"\w+(?:['’-]\w+)*", text)


def _sentences(text: str) -> int:
    guarded = re.sub(r"\b(?:Mr|Mrs|Ms|Dr|St|Prof|etc|e\.g|i\.e|vs|No)\.|\d\.\d", "x", text)
    return len([s for s in re.split(r"[.!?…]+[\"'”’)\]]*(?=\s|\Z)|\n{2,}", guarded) if re.search(r"\w", s)])


def _paragraphs(text: str, divider: str) -> list[str]:
    return [p for p in re.split(divider, text) if p.strip()]


def _number_paragraphs(text: str, k: dict[str, Any]) -> bool:
    return len(_paragraphs(text, r"\s?\*\*\*\s?")) == int(k["num_paragraphs"])


def _nth_first_word(text: str, k: dict[str, Any]) -> bool:
    paragraphs = _paragraphs(text, r"\n\n")
    nth = int(k["nth_paragraph"])
    if len(paragraphs) != int(k["num_paragraphs"]) or not 1 <= nth <= len(paragraphs):
        return False
    first = paragraphs[nth - 1].split()[0].strip("'\"“”‘’.,?!*_#").casefold()
    return first == str(k["first_word"]).casefold()


def _has(text: str, word: str) -> bool:
    return re.search(re.escape(word), text, re.IGNORECASE) is not None


def _json(text: str, k: dict[str, Any]) -> bool:
    body = re.sub(r"\A\s*```(?:json)?\s*|\s*```\s*\Z", "", text, flags=re.I)
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _highlights(text: str, k: dict[str, Any]) -> bool:
    found = re.findall(r"\*\*([^\n*]+)\*\*|(?<!\*)\*([^\n*]+)\*(?!\*)", text)
    return len([1 for pair in found if "".join(pair).strip()]) >= int(k["num_highlights"])


def _sections(text: str, k: dict[str, Any]) -> bool:
    return len(re.split(rf"\s?{re.escape(k['section_spliter'])}\s?\d+\s?", text)) - 1 >= int(k["num_sections"])


def _postscript(text: str, k: dict[str, Any]) -> bool:
    marker = str(k["postscript_marker"])
    letters = [c for c in marker if c.isalpha()]
    return re.search(r"^\s*" + r"\.?\s?".join(letters) + r"\b", text, re.I | re.M) is not None


def _two_responses(text: str, k: dict[str, Any]) -> bool:
    parts = text.split("******")
    said = [p.strip() for p in parts if p.strip()]
    empty_inside = any(not p.strip() for p in parts[1:-1])
    return not empty_inside and len(said) == 2 and said[0] != said[1]


def _repeat(text: str, k: dict[str, Any]) -> bool:
    return text.strip().casefold().startswith(str(k["prompt_to_repeat"]).strip().casefold())


def _letter_frequency(text: str, k: dict[str, Any]) -> bool:
    return _compare(text.casefold().count(str(k["letter"]).casefold()), k["let_relation"], int(k["let_frequency"]))


def _frequency(text: str, k: dict[str, Any]) -> bool:
    return _compare(len(re.findall(re.escape(k["keyword"]), text, re.I)), k["relation"], int(k["frequency"]))


def _capitals(text: str, k: dict[str, Any]) -> bool:
    return _compare(sum(word.isupper() for word in _words(text)), k["capital_relation"], int(k["capital_frequency"]))


def _forbidden(text: str, k: dict[str, Any]) -> bool:
    return not any(re.search(rf"\b{re.escape(word)}\b", text, re.I) for word in k["forbidden_words"])


_SCRIPTS = {
    "devanagari": (0x0900, 0x097F), "bengali": (0x0980, 0x09FF), "gurmukhi": (0x0A00, 0x0A7F), "gujarati": (0x0A80, 0x0AFF),
    "tamil": (0x0B80, 0x0BFF), "telugu": (0x0C00, 0x0C7F), "kannada": (0x0C80, 0x0CFF), "malayalam": (0x0D00, 0x0D7F),
    "thai": (0x0E00, 0x0E7F), "arabic": (0x0600, 0x06FF), "hebrew": (0x0590, 0x05FF), "cyrillic": (0x0400, 0x04FF),
    "greek": (0x0370, 0x03FF), "hangul": (0xAC00, 0xD7AF), "kana": (0x3040, 0x30FF), "han": (0x4E00, 0x9FFF),
}  # fmt: skip
_SCRIPT_OF = {
    "hi": "devanagari", "mr": "devanagari", "ne": "devanagari", "bn": "bengali", "pa": "gurmukhi", "gu": "gujarati", "ta": "tamil",
    "te": "telugu", "kn": "kannada", "ml": "malayalam", "th": "thai", "ar": "arabic", "fa": "arabic", "ur": "arabic", "he": "hebrew",
    "ru": "cyrillic", "bg": "cyrillic", "uk": "cyrillic", "el": "greek", "ko": "hangul", "ja": "kana", "zh": "han",
}  # fmt: skip
_FREQUENT = {
    "en": "the of and to in is that it for you was with on are this", "de": "der die und das ist nicht ein ich zu mit auf den von sie es",
    "fr": "le la les et des est une que dans qui pour pas je vous un", "es": "el la de que y los se por con una para las del es no",
    "it": "il che di la e per non una sono con del è in le si", "pt": "o que de e do da em um para com não uma os as é",
    "fi": "ja on ei se että hän oli ovat kun mutta tai niin myös joka", "sw": "na ya wa kwa ni katika za la kama hii hiyo cha vya pia",
    "vi": "và là của có cho không một được trong các người tôi này với", "nl": "de het een en van is dat niet op te ik voor zijn met",
    "sv": "och att det som en är på för med inte jag av den till", "pl": "i w nie na się to jest z że do jak co ale o",
    "tr": "ve bir bu için da de ile ne olarak çok daha gibi var", "id": "yang dan di untuk dengan ini itu dari tidak adalah pada dalam",
}  # fmt: skip


def _language(text: str, k: dict[str, Any]) -> bool:
    wanted = str(k["language"]).lower()[:2]
    letters = [ord(c) for c in text if c.isalpha()]
    if not letters:
        return False
    if wanted in _SCRIPT_OF:
        low, high = _SCRIPTS[_SCRIPT_OF[wanted]]
        return sum(low <= c <= high for c in letters) > 0.5 * len(letters)
    said = [word.casefold() for word in _words(text)]
    hits = {name: sum(word in set(frequent.split()) for word in said) for name, frequent in _FREQUENT.items()}
    return wanted in hits and hits[wanted] > 0 and hits[wanted] == max(hits.values())


_CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")

CHECKS: dict[str, Check] = {
    "change_case:capital_word_frequency": _capitals,
    "change_case:english_capital": lambda t, k: t.isupper(),
    "change_case:english_lowercase": lambda t, k: t.islower(),
    "combination:repeat_prompt": _repeat,
    "combination:two_responses": _two_responses,
    "detectable_content:number_placeholders": lambda t, k: len(re.findall(r"\[[^\[\]]*\]", t)) >= int(k["num_placeholders"]),
    "detectable_content:postscript": _postscript,
    "detectable_format:constrained_response": lambda t, k: any(option in t for option in _CONSTRAINED),
    "detectable_format:json_format": _json,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:number_bullet_lists": lambda t, k: len(re.findall(r"^\s*(?:\*(?!\*)|-)\s*\S.*$", t, re.M)) == int(k["num_bullets"]),
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:title": lambda t, k: any(found.strip("<> ") for found in re.findall(r"<<[^\n]+?>>", t)),
    "keywords:existence": lambda t, k: all(_has(t, word) for word in k["keywords"]),
    "keywords:forbidden_words": _forbidden,
    "keywords:frequency": _frequency,
    "keywords:letter_frequency": _letter_frequency,
    "language:response_language": _language,
    "length_constraints:nth_paragraph_first_word": _nth_first_word,
    "length_constraints:number_paragraphs": _number_paragraphs,
    "length_constraints:number_sentences": lambda t, k: _compare(_sentences(t), k["relation"], int(k["num_sentences"])),
    "length_constraints:number_words": lambda t, k: _compare(len(_words(t)), k["relation"], int(k["num_words"])),
    "punctuation:no_comma": lambda t, k: "," not in t,
    "startend:end_checker": lambda t, k: t.strip().strip('"').casefold().endswith(str(k["end_phrase"]).strip().casefold()),
    "startend:quotation": lambda t, k: len(t.strip()) > 1 and t.strip()[0] == '"' and t.strip()[-1] == '"',
}
