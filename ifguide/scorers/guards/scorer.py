"""A guard model as a scorer: p(unsafe) from the first word of its answer.

For a text t and a question q of the family, with P(t, q) the model's own chat template around the text, what the model
writes before its verdict behind it, and z the logits after the last token:

  score_q(t) = e^z[u] / (e^z[u] + e^z[s])     u, s: the tokens in which the answers "unsafe" and "safe" first differ

The text stands as the user's message. A guard knows no toxicity but its own policy: what is unsafe by that counts.

Shapes: N texts, B texts in a batch, L tokens of its longest prompt.
"""

from __future__ import annotations

import datetime
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ifguide.errors import InputError, first_line
from ifguide.models.folder import model_fingerprint, read_config, require_model_folder
from ifguide.models.loading import load_causal_model
from ifguide.scorers.base import Scorer
from ifguide.scorers.batching import by_length, distinct
from ifguide.scorers.guards.families import TOXICITY, Family, family_of
from ifguide.system.files import hash_value

# padded tokens asked at once, as for classifiers (`ifguide.scorers.huggingface`)
_BATCH_TOKENS = {"cpu": 2048}
_BATCH_TOKENS_ELSEWHERE = 32768
# stands for a text where only what is around it is looked at: no template can take it for its own words
_PROBE = "IFGUIDEPROBE"
# tokens that a text may have more inside the prompt than alone
_MARGIN = 8
# some templates write the date of today, by this name: a score may not depend on the day
_CLOCK = "strftime_now"
_DAY = datetime.datetime(2025, 1, 1)


class GuardScorer(Scorer):
    """The guard model of a local folder.

    Labels: ``toxicity``; of a family with several questions each of them too, and ``toxicity`` is the highest.

    Args:
        folder: with model and tokenizer.
        family: its name; None where configuration and chat template tell it.
        device: where to run; single precision on a processor, elsewhere the folder's own.
        batch_tokens: tokens asked at once, padding included.

    Raises:
        InputError: an unusable folder, a tokenizer without a chat template or with one that leaves the text out, an
            unknown family, or answers that begin with the same tokens.
    """

    max_tokens: int

    def __init__(
        self,
        folder: str | os.PathLike,
        family: str | None = None,
        *,
        device: str = "cpu",
        batch_tokens: int | None = None,
    ):
        where = f"guard model {os.fspath(folder)}"
        require_model_folder(folder, "guard model")
        config = read_config(Path(folder))
        self.tokenizer = _tokenizer(folder, where)
        template = _template(self.tokenizer, where)
        self.family = family_of(str(config.get("model_type")), template, family, where)
        self.name = f"guard:{os.fspath(folder)}" + (f"#{family}" if family else "")
        self.labels = tuple(dict.fromkeys([TOXICITY, *self.family.questions]))
        self._chat = _Chat(self.tokenizer, template, self.family, where)
        self._unsafe, self._safe, self._lead = _verdicts(self._chat, self.family, where)
        self._folder, self._template = Path(folder), template
        self.dtype = torch.float32 if torch.device(device).type == "cpu" else _own_dtype(config)
        self.model = load_causal_model(folder, self.dtype, "guard model", device=device).eval()
        self.max_tokens = self._longest_text(where)
        kind = self.model.device.type
        self._batch_tokens = batch_tokens or _BATCH_TOKENS.get(kind, _BATCH_TOKENS_ELSEWHERE)

    def fingerprint(self) -> str | None:
        """Of the folder, and of what is asked: the chat template decides scores as the weights do."""
        asked = [self._template, self.family.name, self.family.unsafe, self.family.safe, str(self.family.questions)]
        asked += [str(_DAY)] if _CLOCK in self._template else []
        return f"{model_fingerprint(self._folder)}+{hash_value([*asked, str(self.dtype)])}"

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "family": self.family.name, "dtype": str(self.dtype).removeprefix("torch.")}

    def cut(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([len(row) > self.max_tokens for row in self._ids(texts)], dtype=bool)

    @torch.inference_mode()
    def _probabilities(self, texts: list[str]) -> Mapping[str, np.ndarray]:
        unique, back = distinct(texts)
        longer = self.cut(unique)
        self.truncated += int(longer[back].sum())
        asked = [self._start(text) if is_longer else text for text, is_longer in zip(unique, longer)]
        scores = {}
        for label, arguments in self.family.questions.items():
            rows = [row + self._lead for row in self._ids([self._chat.prompt(text, arguments) for text in asked])]
            found = np.full(len(rows), np.nan)
            for batch in by_length([len(row) for row in rows], self._batch_tokens):
                found[batch] = self._ask([rows[index] for index in batch])
            scores[label] = found[back]
        scores.setdefault(TOXICITY, np.max(list(scores.values()), axis=0))
        return scores

    def _ask(self, rows: Sequence[list[int]]) -> np.ndarray:
        """p(unsafe) of each prompt, float64[B]. Padded on the left, so that all answers begin at the same place."""
        pad = self.tokenizer.pad_token_id or 0
        width = max(map(len, rows))
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=self.model.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=self.model.device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits = self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=1
        ).logits[:, -1]
        return logits[:, [self._unsafe, self._safe]].double().softmax(-1)[:, 0].cpu().numpy()

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens as they stand in a prompt, which has its special tokens written out."""
        return self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []

    def _start(self, text: str) -> str:
        """As much of the text as is read."""
        ends = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return text[: ends["offset_mapping"][self.max_tokens - 1][1]]

    def _longest_text(self, where: str) -> int:
        limit = int(min(self.model.config.max_position_embeddings, self.tokenizer.model_max_length))
        prompts = [self._chat.prompt(_PROBE, arguments) for arguments in self.family.questions.values()]
        around = max(map(len, self._ids(prompts))) + len(self._lead) + _MARGIN
        if around >= limit:
            raise InputError(f"{where}: its prompt alone takes {around} of the {limit} tokens that it reads")
        return limit - around


class _Chat:
    """The model's chat ``template`` around a text, on one and the same day."""

    def __init__(self, tokenizer: Any, template: str, family: Family, where: str):
        self.tokenizer, self._family, self._where = tokenizer, family, where
        self._template = _stopped_clock() + template if _CLOCK in template else template
        # templates of models that also see pictures take a list of parts
        self._in_parts = False
        for self._in_parts in (False, True):
            asked = [self.prompt(_PROBE, arguments) for arguments in family.questions.values()]
            if all(prompt.count(_PROBE) == 1 for prompt in asked):
                return
        raise InputError(f"{where}: its chat template does not put a user's message into the prompt, once")

    def prompt(self, text: str, arguments: Mapping[str, Any]) -> str:
        content = [{"type": "text", "text": text}] if self._in_parts else text
        try:
            return self.tokenizer.apply_chat_template(
                [{"role": "user", "content": content}],
                chat_template=self._template,
                tokenize=False,
                **self._family.options,
                **arguments,
            )
        except Exception as error:  # a template may raise whatever it likes
            raise InputError(f"{self._where}: its chat template fails: {first_line(error)}") from error


def _stopped_clock() -> str:
    """Jinja before a template: what it calls for today's date gives that of `_DAY`. transformers hands no function of
    ours to a template."""
    parts = "".join(f" | replace('%{part}', '{_DAY.strftime('%' + part)}')" for part in "AaBbdjmyYHIMSp")
    # the empty text keeps a line break that the template begins with
    return f"{{% macro {_CLOCK}(form) %}}{{{{ form{parts} }}}}{{% endmacro %}}{{{{ '' }}}}"


def _tokenizer(folder: str | os.PathLike, where: str) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{where} cannot be loaded: {first_line(error)}") from error
    if not tokenizer.is_fast:
        raise InputError(f"{where}: its tokenizer has no tokenizer.json, which is needed to cut long texts")
    return tokenizer


def _template(tokenizer: Any, where: str) -> str:
    try:
        return tokenizer.get_chat_template()
    except ValueError as error:
        raise InputError(
            f"{where}: its tokenizer has no chat template; a guard model is asked in its own, so copy "
            "tokenizer_config.json (and chat_template.jinja) of the published model"
        ) from error


def _verdicts(chat: _Chat, family: Family, where: str) -> tuple[int, int, list[int]]:
    """(token of unsafe, token of safe, tokens between the prompt and these): where the two answers first differ."""
    prompt = chat.prompt(_PROBE, next(iter(family.questions.values())))
    answers = [prompt + family.lead_after(prompt) + word for word in (family.unsafe, family.safe)]
    rows = chat.tokenizer([prompt, *answers], add_special_tokens=False)["input_ids"]
    before, unsafe, safe = rows
    shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(unsafe, safe)))
    if unsafe[: len(before)] != before or shared < len(before) or shared == min(len(unsafe), len(safe)):
        raise InputError(
            f"{where}: with this tokenizer the answers '{family.unsafe}' and '{family.safe}' cannot be told apart by "
            "a token after the prompt"
        )
    return unsafe[shared], safe[shared], unsafe[len(before) : shared]


def _own_dtype(config: Mapping[str, Any]) -> torch.dtype:
    name = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    found = getattr(torch, name, None)
    return found if isinstance(found, torch.dtype) else torch.float32
