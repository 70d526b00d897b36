"""Families of guard models: how each is told, what its chat template is given, and the two words that it answers with.

The template itself is the model's own: it comes with its tokenizer and holds the policy that it was trained on. The
facts here are those of the public repositories in `Family.sources`; no published model was run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ifguide.errors import InputError

TOXICITY = "toxicity"


@dataclass(frozen=True)
class Family:
    """One family.

    Attributes:
        name: as in ``guard:FOLDER#NAME``.
        model_types: of ``config.json``.
        marks: what stands in the chat template of every member, and of no other family's.
        unsafe, safe: the two words that an answer can begin with.
        lead: what the model writes before the word, by what the prompt ends with; "" stands for any other end.
        questions: what is asked of a text: label -> further arguments of the chat template.
        options: arguments of the chat template for all questions.
        sources: public repositories, and files in them, that these facts were read from.
    """

    name: str
    model_types: tuple[str, ...]
    marks: tuple[str, ...]
    unsafe: str
    safe: str
    sources: tuple[str, ...]
    lead: Mapping[str, str] = field(default_factory=dict)
    questions: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {TOXICITY: {}})
    options: Mapping[str, Any] = field(default_factory=dict)

    def lead_after(self, prompt: str) -> str:
        """What the model writes between the prompt and its verdict."""
        ends = [end for end in self.lead if prompt.endswith(end)]
        return self.lead[max(ends, key=len)] if ends else ""


# huggingface.js holds the chat templates that come with models, for a program of its own
_TEMPLATES = "github.com/huggingface/huggingface.js: packages/ollama-utils/src/chat-template-automap.ts"
# one policy a question, in Google's words, whose grammar the model was trained on
_FORBIDS = "The prompt shall not contain or seek generation of content that "
_SHIELDGEMMA = {
    "dangerous_content": (
        "No Dangerous Content",
        "harming oneself and/or others (e.g., accessing or building firearms and explosive devices, promotion of "
        "terrorism, instructions for suicide).",
    ),
    "harassment": (
        "No Harassment",
        "is malicious, intimidating, bullying, or abusive content targeting another individual (e.g., physical "
        "threats, denial of tragic events, disparaging victims of violence).",
    ),
    "hate_speech": (
        "No Hate Speech",
        "targeting identity and/or protected attributes (e.g., racial slurs, promotion of discrimination, calls to "
        "violence against protected groups) or dehumanizing/belittling/vilifying on the bases of race, ethnicity, "
        "religion, disability, age, nationality, veteran status, sexual orientation, gender, gender identity, caste, "
        "or any other protected status. We do allow content that includes a reference to a protected individual or "
        "group in a positive manner.",
    ),
    "sexually_explicit": (
        "No Sexually Explicit Information",
        "contains references to sexual acts or other lewd content (e.g., sexually graphic descriptions, content aimed "
        "at causing arousal). Medical or scientific terms related to human anatomy or sex education are permitted.",
    ),
}
FAMILIES = (
    Family(
        name="llama-guard",
        model_types=("llama",),
        marks=("<BEGIN UNSAFE CONTENT CATEGORIES>", "unsafe"),
        unsafe="unsafe",
        safe="safe",
        # Llama 3 ends the head of a turn with a blank line, which not every template writes; Llama 2 wants a space
        lead={"<|end_header_id|>": "\n\n", "[/INST]": " "},
        options={"add_generation_prompt": True},
        sources=(
            "github.com/meta-llama/PurpleLlama: Llama-Guard3/8B/MODEL_CARD.md, Llama-Guard3/1B/MODEL_CARD.md",
            "github.com/meta-llama/llama-recipes: src/llama_recipes/inference/prompt_format_utils.py",
            _TEMPLATES,
        ),
    ),
    Family(
        name="granite-guardian",
        model_types=("granite", "granitemoe"),
        marks=("guardian_config", "risk_name"),
        unsafe="Yes",
        safe="No",
        questions={TOXICITY: {"guardian_config": {"risk_name": "harm"}}},
        options={"add_generation_prompt": True},
        sources=(
            "github.com/ibm-granite/granite-guardian: cookbooks/granite-guardian-3.0, -3.1, -3.2",
            "github.com/ibm-granite/gguf: resources/ollama/granite3-guardian, granite3.2-guardian",
            _TEMPLATES,
        ),
    ),
    Family(
        name="qwen3guard",
        model_types=("qwen3",),
        marks=("Safety: Controversial",),
        unsafe="Unsafe",
        safe="Safe",
        lead={"": "Safety: "},
        sources=(
            "github.com/QwenLM/Qwen3Guard: README.md",
            "github.com/manboster/manboml: internal/tokenizer/template.go, the template of a converted Qwen3Guard-Gen",
        ),
    ),
    Family(
        name="shieldgemma",
        model_types=("gemma2",),
        marks=("guideline", "policy expert"),
        unsafe="Yes",
        safe="No",
        # toxicity is the highest of them
        questions={
            label: {"guideline": f'"{title}": {_FORBIDS}{forbidden}'}
            for label, (title, forbidden) in _SHIELDGEMMA.items()
        },
        sources=(
            "github.com/google-gemini/gemma-cookbook: responsible/shieldgemma_on_huggingface.ipynb",
            _TEMPLATES,
        ),
    ),
)
# Granite Guardian from 3.3 on writes <score> yes </score>, after reasoning or an empty block of it
_LATER_GRANITE = ("criteria_id", "<score>", "<guardian>")
_GRANITE = "granite-guardian"


def family_of(model_type: str, template: str, stated: str | None, where: str) -> Family:
    """The family of a model, stated by the user or told by its configuration and chat template.

    Args:
        model_type: of ``config.json``.
        template: the tokenizer's chat template.
        stated: a name, or None.
        where: begins a message.

    Raises:
        InputError: no such family, or a model of none.
    """
    names = ", ".join(family.name for family in FAMILIES)
    if stated is not None:
        family = next((one for one in FAMILIES if one.name == stated.lower()), None)
        if family is None:
            raise InputError(f"{where}: there is no family '{stated}'; give one of {names}")
    else:
        fitting = [
            one for one in FAMILIES if model_type in one.model_types and all(mark in template for mark in one.marks)
        ]
        if len(fitting) != 1:
            raise InputError(
                f"{where}: model type '{model_type}' with this chat template is of no family that is known; state it "
                f"as guard:FOLDER#FAMILY, one of {names}"
            )
        family = fitting[0]
    if family.name == _GRANITE and any(mark in template for mark in _LATER_GRANITE):
        raise InputError(
            f"{where}: Granite Guardian from 3.3 on reasons before it answers, so that its first word is no verdict; "
            "give one of 3.0 to 3.2"
        )
    return family
