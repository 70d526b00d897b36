"""Why a mask ends under its budget, and which flag changes that: lines for people, none where the budget is full."""

from __future__ import annotations

from collections.abc import Mapping

from ifguide.masks.inputs import BehaviourScores


def of_selection(behaviour: BehaviourScores, admitted: int, counts: Mapping[str, int]) -> list[str]:
    """Of Algorithm 1.

    Args:
        admitted: toxic tokens whose windows the budget took.
        counts: as `ifguide.selection.algorithm.select` gives them.
    """
    selected, budget, toxic = counts["selected"], counts["budget"], counts["toxic"]
    if selected >= budget:
        return []
    head = f"{_label(behaviour)}{selected:,} tokens are selected of a budget of {budget:,}: "
    quantile, window = behaviour.settings.threshold_quantile, behaviour.settings.window
    if admitted == toxic:
        what = "and their neighbours are all in" if window else "are all in"
        lower = f"a lower --threshold-quantile (now {quantile:g}) or " if quantile else ""
        return [f"{head}the {toxic:,} tokens above the threshold {what}; {lower}a larger --window selects more"]
    # a window is selected whole or not at all, so up to 2w of the budget can be left
    raised = _budget_flag(behaviour)
    return [f"{head}the next toxic token and its neighbours do not fit whole; a larger {raised} selects more"]


def of_spans(behaviour: BehaviourScores, counts: Mapping[str, int], did_not_fit: int | None, tokens: bool) -> list[str]:
    """Of selection by spans.

    Args:
        did_not_fit: tokens of the first span that the budget could not hold; None where there is no further span.
        tokens: whether tokens within spans are taken.
    """
    selected, budget = counts["selected"], counts["budget"]
    if selected >= budget:
        return []
    head = f"{_label(behaviour)}{selected:,} tokens are selected of a budget of {budget:,}: "
    if did_not_fit is not None:
        raised = "--span-fraction" if tokens else _budget_flag(behaviour)
        return [f"{head}the next span has {did_not_fit:,} tokens and does not fit; a larger {raised} selects more"]
    return [f"{head}no further span can be selected (a score above 0, enough tokens, what --within asks)"]


def of_documents(behaviour: BehaviourScores, counts: Mapping[str, int]) -> list[str]:
    """Of document-level removal; ``counts`` as `ifguide.selection.ranked_documents` gives them, or
    `ifguide.selection.documents.drop_documents`."""
    removed, budget = counts["tokens_removed"], counts["budget"]
    if removed >= budget:
        return []
    head = f"{_label(behaviour)}documents of {removed:,} tokens are dropped of a budget of {budget:,}: "
    ranked = counts.get("documents_ranked")
    if ranked is not None and counts["documents_removed"] == ranked:
        return [f"{head}no further document has what they are ranked by; a longer --wordlist drops more"]
    if ranked is None and counts["documents_removed"] == counts["documents_toxic"]:
        return [f"{head}they are all that have a token above the threshold; a lower --threshold-quantile drops more"]
    return [f"{head}the next document does not fit whole; a larger {_budget_flag(behaviour)} drops more"]


def of_words(found: int, wanted: int) -> list[str]:
    """Of a word list with ``found`` tokens in the corpora, where Algorithm 1 selects ``wanted``."""
    if found >= wanted:
        return []
    return [
        f"{found:,} tokens are selected where --method influence selects {wanted:,}: the corpora have no more tokens "
        "of listed words; a longer --wordlist selects more"
    ]


def _label(behaviour: BehaviourScores) -> str:
    return f"{behaviour.name}: " if behaviour.name else ""


def _budget_flag(behaviour: BehaviourScores) -> str:
    if behaviour.name:
        return "share in --category"
    return "--max-tokens" if behaviour.settings.max_tokens is not None else "--max-fraction"
