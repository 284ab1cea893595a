"""A world: latent rules, examples, a student that reads prompts, a judge, and the analytic truth.

P(success on example i) = student(margin_i), and
margin_i = a - d_i - sum_{k in S_i} miss_k + sum_{k in S_i} (gain_k + miss_k) eff_k - sum_j harm_ij present_j - length_cost words / 100,
where eff_k is the fidelity of the best sentence for rule k, reduced by missing prerequisites, conflicts and wrong versions of it.
Nothing here is reachable by an optimizer: it sees `benchmarks.server.EvalServer` only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.simland.families import FAMILIES, NOISES, Constants
from benchmarks.simland.grammar import NOUNS, RULE_TEMPLATES, Grammar, Item, count_words, nonces
from benchmarks.simland.hashing import generator, key64, uniforms

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
HELD_OUT = 4000
MODULE_NAMES = ("router", "solver", "writer")
SLICES = ("northern", "southern")
TEMPLATES_PER_WORLD = 5
MIN_HEADROOM = 0.2


@dataclass(frozen=True)
class Features:
    """What the student understood of a candidate: effective fidelity (K,), presence of every item (J,), words, misplaced rules."""

    key: int
    eff: Floats
    present: Floats
    words: int
    misplaced: int


class World:
    """One draw of a family at a noise level. `address` is everything that seeds it."""

    def __init__(self, family: str, noise: str, *address: str | int) -> None:
        self.family, self.noise, self.address = family, noise, address
        for attempt in range(40):
            self._build(generator("world", family, noise, *address, attempt))
            self.seed_truth = self.truth(self.seed_candidate)
            self.best_truth = self._oracle()
            if self.constants["flat"] or self.best_truth - self.seed_truth >= MIN_HEADROOM:
                break
        self.key = key64("student", family, noise, *address)

    # -- drawing ------------------------------------------------------------------------------------------------------

    def _build(self, rng: np.random.Generator) -> None:
        self.constants = c = Constants.draw(FAMILIES[self.family], rng)
        level = NOISES[self.noise]
        self.slope = float(rng.uniform(*level.slope)) if level else 0.0
        self.floor = float(rng.uniform(*level.floor)) if level else 0.0
        self.n_rules, n_decoys = c.whole("rules"), c.whole("decoys")
        self.components = MODULE_NAMES[: c.whole("modules")] if c.whole("modules") > 1 else ("instructions",)
        self._draw_language(rng, n_decoys)
        self.n_train, self.n_val = c.whole("train"), c.whole("val")
        self._draw_examples(rng, self.n_train + self.n_val + HELD_OUT)
        self._draw_structure(rng)
        self._features: dict[int, Features] = {}
        self._margins: dict[int, Floats] = {}
        self.a = 0.0
        self.seed_candidate = self._draw_seed(rng)
        self._calibrate(c["seed_score"])

    def _draw_language(self, rng: np.random.Generator, n_decoys: int) -> None:
        k = self.n_rules
        words = nonces(rng, 2 * (k + n_decoys + 1))
        conditions, actions = words[: len(words) // 2], words[len(words) // 2 :]
        modules = rng.integers(0, len(self.components), k + n_decoys + 1)
        items = [Item(i, "rule", conditions[i], actions[i], i, int(modules[i])) for i in range(k)]
        items += [Item(i, "decoy", conditions[i], actions[i], -1, int(modules[i])) for i in range(k, k + n_decoys)]
        wrong = rng.permutation(k)
        for i in range(k):  # the right condition with another rule's or a decoy's action
            action = actions[int(wrong[i])] if wrong[i] != i else actions[k]
            items.append(Item(len(items), "wrong", conditions[i], action, i, int(modules[i])))
        items.append(Item(len(items), "key", conditions[-1], actions[-1], -1, int(modules[-1])))
        self.partisan = np.where(rng.random(k) < self.constants["partisan"], rng.integers(0, 2, k), -1)
        for i in range(k):
            if self.partisan[i] >= 0:
                items.append(Item(len(items), "rule", conditions[i], actions[i], i, int(modules[i]), SLICES[self.partisan[i]]))
        picked = rng.choice(len(RULE_TEMPLATES), TEMPLATES_PER_WORLD, replace=False)
        fidelities = rng.permutation(np.array([1.0, 0.9, 0.75, 0.55, 0.35]))
        self.grammar = Grammar(
            str(rng.choice(NOUNS)),
            tuple(items),
            tuple(RULE_TEMPLATES[int(t)] for t in picked),
            tuple(map(float, fidelities)),
            self.components,
        )
        self.best_template = int(np.argmax(fidelities))

    def _draw_examples(self, rng: np.random.Generator, n: int) -> None:
        c, k = self.constants, self.n_rules
        prevalence = 1.0 / np.arange(1, k + 1) ** c["zipf"]
        prevalence = np.minimum(0.9, prevalence / prevalence.sum() * c["needs"])
        order = rng.permutation(k)
        need = rng.random((n, k)) < prevalence[order]
        self.slice = rng.integers(0, 2, n) if c["partisan"] else np.zeros(n, np.int64)
        foreign = (self.partisan[None, :] >= 0) & (self.partisan[None, :] != self.slice[:, None])
        self.clash = need & foreign  # the condition is there, and in this slice the rule is the wrong thing to do
        self.need = need & ~foreign
        self.difficulty = rng.normal(0.0, c["difficulty"], n)

    def _draw_structure(self, rng: np.random.Generator) -> None:
        c, k, items = self.constants, self.n_rules, self.grammar.items
        n = len(self.need)
        gain, miss = _around(rng, c["gain"], k), _around(rng, c["miss"], k)
        self.weight = gain + miss
        harm = np.zeros((n, len(items)))
        for it in items:
            if it.kind == "rule" and not it.scope:
                harm[:, it.index] = np.where(self.need[:, it.index], 0.0, c["harm"] * rng.uniform(0.3, 1.7))
                harm[:, it.index] += self.clash[:, it.index] * (gain[it.index] + miss[it.index])
            elif it.kind in ("decoy", "key"):
                applies = rng.random(n) < rng.uniform(0.2, 0.7)
                harm[:, it.index] = applies * c["decoy_harm"] * rng.uniform(0.3, 1.7)
            elif it.kind == "wrong":
                harm[:, it.index] = self.need[:, it.rule] * c["decoy_harm"]
        self.harm = harm
        self.prerequisite = np.full(k, -1)
        for i in range(k):
            if rng.random() < c["prerequisites"] and k > 1:
                self.prerequisite[i] = int(rng.choice([j for j in range(k) if j != i and self.prerequisite[j] != i]))
        pairs = [rng.choice(k, 2, replace=False) for _ in range(c.whole("conflicts"))]
        self.conflicts = [(int(p[0]), int(p[1])) for p in pairs]
        self.fixed_error = rng.random(n)  # the half of the judge's error that an example always meets
        self.gained = self.need * self.weight
        self.missed = (self.need * miss).sum(1)

    def _draw_seed(self, rng: np.random.Generator) -> dict[str, str]:
        c, k, items = self.constants, self.n_rules, self.grammar.items
        flat = bool(c["flat"])
        self.shown = np.ones(len(items))  # whether a trace can show an item's harm
        self.intro = f"You answer {self.grammar.noun}s for the office. Read each one with care and follow the house rules."
        lines: dict[int, list[str]] = {m: [] for m in range(len(self.components))}
        count = round(c["seed_rules"] * k)
        for i in map(int, rng.choice(k, count, replace=False)):
            template = self.best_template if flat else int(rng.integers(TEMPLATES_PER_WORLD))
            lines[items[i].module].append(self.grammar.write(i, template))
        bad = [it.index for it in items if it.kind in ("decoy", "wrong")]
        for i in map(int, rng.choice(bad, c.whole("seed_bad"), replace=False)):
            everywhere = bool(c["seed_bad_hidden"])
            self.harm[:, i] = c["seed_bad_harm"] if everywhere else np.where(self.harm[:, i] > 0, c["seed_bad_harm"], 0.0)
            if everywhere:
                self.shown[i] = 0.0
            lines[items[i].module].append(self.grammar.write(i, int(rng.integers(TEMPLATES_PER_WORLD))))
        return {name: "\n".join([self.intro, *(f"- {s}" for s in lines[m])]) for m, name in enumerate(self.components)}

    def _calibrate(self, target: float) -> None:
        """Set `a` so that the seed's true score is `target`."""
        low, high = -15.0, 15.0
        margins = self._held_out(self.seed_candidate)
        for _ in range(30):
            middle = (low + high) / 2
            if float(self._success(margins + middle).mean()) < target:
                low = middle
            else:
                high = middle
        self.a = high

    # -- the student and the judge --------------------------------------------------------------------------------------

    def features(self, candidate: Mapping[str, str]) -> Features:
        key = key64(*(f"{n}\0{candidate[n]}" for n in self.components))
        known = self._features.get(key)
        if known is not None:
            return known
        items, fid, misplaced, words = self.grammar.items, np.zeros(len(self.grammar.items)), 0, 0
        for m, name in enumerate(self.components):
            words += count_words(candidate[name])
            for s in self.grammar.read(candidate[name]):
                if items[s.item].module == m:
                    fid[s.item] = max(fid[s.item], s.fidelity)
                else:
                    misplaced += 1
        known = self._features[key] = Features(key, self._effective(fid), (fid > 0).astype(float), words, misplaced)
        return known

    def _effective(self, fid: Floats) -> Floats:
        k, items = self.n_rules, self.grammar.items
        eff = fid[:k].copy()
        for j in np.flatnonzero(fid[k:]) + k:
            if items[j].scope:
                eff[items[j].rule] = max(eff[items[j].rule], fid[j])
        said = eff > 0
        for j in np.flatnonzero(fid[k:]) + k:
            if items[j].kind == "wrong":
                eff[items[j].rule] *= 0.4
        eff = np.where((self.prerequisite >= 0) & ~said[self.prerequisite], eff * 0.25, eff)
        for one, other in self.conflicts:
            if said[one] and said[other]:
                eff[[one, other]] *= 0.5
        return eff

    def margins(self, candidate: Mapping[str, str]) -> Floats:
        """Of the train and then the val examples, shape (train + val,)."""
        f = self.features(candidate)
        known = self._margins.get(f.key)
        if known is None:
            if len(self._margins) > 2000:
                self._margins.clear()
            known = self._margins[f.key] = self._margin(f, slice(0, self.n_train + self.n_val))
        return known

    def _held_out(self, candidate: Mapping[str, str]) -> Floats:
        return self._margin(self.features(candidate), slice(self.n_train + self.n_val, None))

    def _margin(self, f: Features, rows: slice = slice(None)) -> Floats:
        out: Floats = self.a - self.difficulty[rows] - self.missed[rows] + self.gained[rows] @ f.eff - self.harm[rows] @ f.present
        return out - self.constants["length_cost"] * f.words / 100.0 - 0.05 * f.misplaced

    def _success(self, margins: Floats) -> Floats:
        if self.noise == "none":
            return (margins > 0).astype(float)
        out: Floats = self.floor + (1 - 2 * self.floor) / (1 + np.exp(-self.slope * margins))
        return out

    def run(self, candidate: Mapping[str, str], rows: Ints, ordinals: Ints) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """What the judge said (n,) in {0, 1} and whether the student truly succeeded, for the `ordinals`-th call of each row."""
        f, c = self.features(candidate), self.constants
        when = np.zeros_like(ordinals) if self.noise == "none" else ordinals
        p = self._success(self.margins(candidate)[rows])
        success = uniforms(f.key ^ self.key, rows, when, 1) < p
        judged = success.copy()
        if c["judge_error"] or c["length_bias"] or c["key_gain"]:
            u = self.fixed_error[rows] if self.noise == "none" else uniforms(f.key ^ self.key, rows, when, 2)
            half = c["judge_error"] / (1.0 if self.noise == "none" else 2.0)
            fixed = (self.fixed_error[rows] < half) if self.noise != "none" else np.zeros(len(rows), bool)
            judged ^= (u < half) | fixed
            judged |= u > 1.0 - min(0.9, self._lift(f))
        return judged.astype(float), success

    def truth(self, candidate: Mapping[str, str]) -> float:
        """Expected success on the held-out examples: no test noise."""
        return float(self._success(self._held_out(candidate)).mean())

    def judged(self, candidate: Mapping[str, str]) -> float:
        """Expected judged score on the held-out examples: what an optimizer that trusts the judge believes."""
        p, c, f = self._success(self._held_out(candidate)), self.constants, self.features(candidate)
        error = c["judge_error"]
        passed = p * (1 - error) + (1 - p) * error
        return float((1 - (1 - passed) * (1 - min(0.9, self._lift(f)))).mean())

    def _lift(self, f: Features) -> float:
        """How often the judge passes a failure for the prompt's length or its master key."""
        key = next(it.index for it in self.grammar.items if it.kind == "key")
        return self.constants["length_bias"] * f.words / 100.0 + self.constants["key_gain"] * float(f.present[key])

    def normalised(self, truth: float) -> float:
        """(f - f(seed)) / (f* - f(seed)); at least -1; in a flat world the plain difference, there being no headroom."""
        scale = 1.0 if self.constants["flat"] else self.best_truth - self.seed_truth
        return max(-1.0, (truth - self.seed_truth) / scale)

    def _oracle(self) -> float:
        """The best truth that coordinate ascent over items (said in the best paraphrase) finds, from three starts."""
        items = self.grammar.items
        words = {it.index: count_words("- " + self.grammar.write(it.index, self.best_template)) for it in items}
        intro = len(self.components) * count_words(self.intro)
        usable = [it.index for it in items if it.kind == "rule"]
        held = slice(len(self.need) - HELD_OUT, None)

        def value(chosen: set[int]) -> float:
            fid = np.zeros(len(items))
            fid[list(chosen)] = 1.0
            f = Features(0, self._effective(fid), fid, intro + sum(words[i] for i in chosen), 0)
            return float(self._success(self._margin(f, held)).mean())

        unscoped = {i for i in usable if not items[i].scope and self.partisan[items[i].rule] < 0}
        starts = [unscoped | {i for i in usable if items[i].scope}, {i for i in usable if not items[i].scope}, set()]
        best = self.seed_truth
        for start in starts:
            chosen, score = start, value(start)
            improved = True
            while improved:
                improved = False
                for i in usable:
                    tried = value(chosen ^ {i})
                    if tried > score + 1e-9:
                        chosen, score, improved = chosen ^ {i}, tried, True
            best = max(best, score)
        return best


def _around(rng: np.random.Generator, centre: float, count: int) -> Floats:
    return centre * rng.uniform(0.5, 1.5, count)
