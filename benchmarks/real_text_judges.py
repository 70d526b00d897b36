"""Judges from outside: classifiers that PyPI carries with their weights, each in an environment of its own.

None of them made a mask. Their environments are made once, in a folder; each scores in a process of its own:

    PYTHON real_text_judges.py NAME < texts.jsonl > scores.txt        # a line of texts, a line of numbers

Shapes: n texts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_ANSWER = "scores: "


@dataclass(frozen=True)
class Judge:
    """
    Attributes:
        packages: what its environment holds.
        learned_from: its training data, as its authors state it.
        kind: what sort of model.
    """

    packages: tuple[str, ...]
    learned_from: str
    kind: str


JUDGES = {
    "bilstm": Judge(
        ("toxic-comment-classifier==0.3.0",),
        "Jigsaw's comments from Wikipedia's talk pages (159,571)",
        "bidirectional LSTM on words",
    ),
    "profanity-check": Judge(
        ("alt-profanity-check==1.9.1",),
        "the collection that these tweets come from, and Jigsaw's comments",
        "linear, on words",
    ),
    "hatesonar": Judge(
        ("hatesonar==0.1.0",), "the collection that these tweets come from", "linear, on words and parts of speech"
    ),
}


def make_environment(folder: Path, name: str) -> Path:
    """The Python of a judge's environment, made on first need.

    Raises:
        RuntimeError: it cannot be installed.
    """
    python = folder / name / "bin" / "python"
    done = folder / name / ".done"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / name)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        found = subprocess.run([*install, *JUDGES[name].packages], capture_output=True, text=True, check=False)
        if found.returncode:
            raise RuntimeError(f"judge {name} cannot be installed: {found.stderr.strip().splitlines()[-1]}")
        done.touch()
    return python


def judge(python: Path, name: str, texts: Sequence[str]) -> list[float]:
    """Probabilities [n] that the texts are toxic."""
    found = subprocess.run(
        _command(python, name), input=json.dumps(list(texts)) + "\n", capture_output=True, text=True,
        env=_environment(python), check=False,
    )  # fmt: skip
    if found.returncode:
        raise RuntimeError(f"judge {name} failed: {found.stderr.strip().splitlines()[-1]}")
    return json.loads(found.stdout.strip().splitlines()[-1].removeprefix(_ANSWER))


class Session:
    """A judge that stays open: its environment in ``folder`` is made on first need.

    Raises:
        RuntimeError: it cannot be installed.
    """

    def __init__(self, folder: Path, name: str):
        python = make_environment(folder, name)
        self.name = name
        self._process = subprocess.Popen(
            _command(python, name), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=_environment(python),
        )  # fmt: skip

    def scores(self, texts: Sequence[str]) -> list[float]:
        """Probabilities [n] that the texts are toxic.

        Raises:
            RuntimeError: the judge ended.
        """
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(list(texts)) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith(_ANSWER):
                return json.loads(line.removeprefix(_ANSWER))
        raise RuntimeError(f"judge {self.name} ended")

    def close(self) -> None:
        """End the judge's process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def _command(python: Path, name: str) -> list[str]:
    return [str(python), str(Path(__file__).resolve()), name]


def _environment(python: Path) -> dict[str, str]:
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "LOCPATH": str(_locales(python.parent.parent))}
    environment.pop("PYTHONPATH", None)
    return environment


def _locales(folder: Path) -> Path:
    """A folder with the locale en_US.UTF-8, which hatesonar asks for and a small machine lacks."""
    target = folder / "locales"
    if not target.exists():
        target.mkdir()
        subprocess.run(["localedef", "-i", "en_US", "-f", "UTF-8", str(target / "en_US.UTF-8")], check=False)
    return target


def _profanity_check(texts: list[str]) -> list[float]:
    from profanity_check import predict_prob

    return [float(value) for value in predict_prob(texts)]


def _hatesonar(texts: list[str]) -> list[float]:
    sonar = _sonar()
    found = []
    for text in texts:
        classes = {row["class_name"]: row["confidence"] for row in sonar.ping(text=text or " ")["classes"]}
        found.append(float(1.0 - classes["neither"]))
    return found


def _bilstm(texts: list[str]) -> list[float]:
    from tensorflow.keras.preprocessing.sequence import pad_sequences
    from toxic_classifier.model import LIST_CLASSES, MAXLEN

    # its own methods read one text at a time
    classifier = _lstm()
    words = pad_sequences(classifier.tokenizer.texts_to_sequences(texts), maxlen=MAXLEN)
    found = classifier.model.predict(words, batch_size=512, verbose=0)
    return [float(value) for value in found[:, LIST_CLASSES.index("toxic")]]


@cache
def _sonar() -> Any:
    """Read once for all lines of texts."""
    from hatesonar import Sonar

    return Sonar()


@cache
def _lstm() -> Any:
    """Read once for all lines of texts."""
    from toxic_classifier.model import ToxicCommentClassifier

    return ToxicCommentClassifier()


_WAYS = {"profanity-check": _profanity_check, "hatesonar": _hatesonar, "bilstm": _bilstm}

if __name__ == "__main__":
    # a line of texts in, a line of numbers out; libraries print too
    for line in sys.stdin:
        print(_ANSWER + json.dumps(_WAYS[sys.argv[1]](json.loads(line))), flush=True)
