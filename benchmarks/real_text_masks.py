"""The masks that are compared on real text, each one line of words: what it is, and how hard it is pushed.

    KIND [KEY=VALUE ...] [@PENALTY]

    none                       no mask
    random b=0.05              tokens drawn at random
    words                      all hits of a word list
    token b=0.02 p=small       Algorithm 1 on the influence of a proxy
    line b=0.05 p=small        whole lines by mean influence (M3b)
    classifier b=0.05          whole lines by the linear classifier of the queries
    within A=0.07 f=0.5 p=better [order=highest|random|lowest] [rule=each|global] [by=classifier|influence|labels|both]
                               tokens within lines (M3c): lines by ``by`` until A, of those the share f of the tokens
    labels                     the labelled tweets themselves
    document b=0.10 p=small    documents left out, by influence

Penalties are `PENALTIES`; without one `soft`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SOFT = "soft"
PENALTIES: dict[str, dict[str, Any]] = {
    SOFT: {"penalty_form": "clipped", "penalty_clip": 5.0, "penalty_lambda": 0.2},
    "medium": {"penalty_form": "clipped", "penalty_clip": 5.0, "penalty_lambda": 0.5},
    "hard": {"penalty_form": "clipped", "penalty_clip": 8.0, "penalty_lambda": 0.5},
    "harder": {"penalty_form": "clipped", "penalty_clip": 8.0, "penalty_lambda": 1.0},
    "drop": {"penalty_lambda": 0.0},
    "unlikely": {"penalty_form": "unlikelihood", "penalty_lambda": 1.0},
    "unlikelier": {"penalty_form": "unlikelihood", "penalty_lambda": 4.0},
}
# what a proxy is trained with beside the quickstart's configuration, and which queries it scores with
PROXIES: dict[str, dict[str, Any]] = {
    "tiny": {"num_layers": 1, "hidden_size": 64, "num_attention_heads": 2},
    "small": {},
    "longer": {"train_epochs": 4},
    "better": {
        "num_layers": 4, "hidden_size": 192, "num_attention_heads": 6, "train_epochs": 2,
        "optimizer": {"type": "Adam", "params": {"lr": 3.0e-3, "betas": [0.9, 0.95], "eps": 1.0e-8}}, "min_lr": 3.0e-4,
    },
}  # fmt: skip
MORE_QUERIES = ("better",)
_KINDS = ("none", "random", "words", "token", "line", "classifier", "within", "labels", "document")


@dataclass(frozen=True)
class Recipe:
    """One mask and one penalty."""

    kind: str
    penalty: str = SOFT
    values: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """
        Raises:
            ValueError: not of the form above.
        """
        words, _, penalty = (part.strip() for part in text.partition("@"))
        kind, *rest = words.split()
        values = dict(word.split("=", 1) for word in rest)
        penalty = penalty or SOFT
        if kind not in _KINDS or penalty not in PENALTIES or values.get("p", "small") not in PROXIES:
            raise ValueError(f"'{text}' names no known mask, proxy or penalty")
        return cls(kind, penalty, values)

    @property
    def mask(self) -> str:
        """What is masked, without how hard."""
        return " ".join([self.kind, *(f"{key}={value}" for key, value in self.values.items())])

    @property
    def text(self) -> str:
        return (
            self.mask if self.penalty == SOFT or self.kind in ("none", "document") else f"{self.mask} @{self.penalty}"
        )

    @property
    def file(self) -> str:
        return file_name(self.text)

    @property
    def proxies(self) -> list[str]:
        """Whose influence it needs."""
        return [self.values.get("p", "small")] if self.kind in ("token", "line", "within", "document") else []

    def arguments(self, folder: Path, words: Path) -> list[str]:
        """Of ``ifguide build-mask``; the output excepted."""
        data = str(folder / "data/corpus_text_document")
        scores = str(folder / f"data/scores-{self.values.get('p', 'small')}")
        suspects, labels = str(folder / "data/suspects"), str(folder / "data/labels")
        budget = ["--max-fraction", self.values["b"]] if "b" in self.values else []
        if self.kind == "random":
            return ["--scores", suspects, "--method", "random", "--threshold-quantile", "0", "--window", "0", *budget]
        if self.kind == "words":
            tokenizer = ["--tokenizer-type", "HFTokenizer", "--vocab-file", str(folder / "data/tokenizer.json")]
            words_of = ["--wordlist", str(words), "--data", data, *tokenizer, "--max-fraction", "0.2"]
            return ["--scores", labels, "--method", "wordlist", "--threshold-quantile", "0", *words_of]
        if self.kind == "token":
            return ["--scores", scores, *budget]
        if self.kind == "line":
            return ["--scores", scores, "--span", "line", *budget]
        if self.kind == "classifier":
            return ["--scores", suspects, "--span", "line", *budget]
        if self.kind == "labels":
            return ["--scores", labels, "--span", "line", "--max-fraction", "0.5", "--within", "0.5", labels]
        if self.kind == "document":
            return ["--scores", scores, "--method", "document", "--filtered-output",
                    str(folder / f"data/kept-{self.file}"), *budget]  # fmt: skip
        by = self.values.get("by", "classifier")
        ranking = {
            "classifier": ["--span-scores", suspects],
            "labels": ["--span-scores", labels],
            "influence": [],
            "both": ["--combine", "0.75", suspects, "--combine", "0.25", scores],
        }[by]
        return ["--scores", scores, "--span", "line", *ranking,
                "--span-fraction", self.values["A"], "--tokens-within", self.values["f"],
                "--tokens-within-order", self.values.get("order", "highest"),
                "--within-rule", self.values.get("rule", "each")]  # fmt: skip


def file_name(text: str) -> str:
    """A text as the name of a file."""
    return "".join(letter if letter.isalnum() or letter in "=.-" else "_" for letter in text)
