"""Named lists of recipes (real_text_masks.py)."""

from __future__ import annotations

_BUDGETS = ("0.005", "0.01", "0.02", "0.05", "0.10")
# shares of the tokens in suspected lines; with half of them taken the budgets are those above
_SPANS = ("0.01", "0.02", "0.04", "0.10", "0.20")

SETS: dict[str, list[str]] = {
    "headline": [
        "none",
        "random b=0.05",
        "words",
        "token b=0.02 p=small",
        "token b=0.05 p=small",
        "line b=0.05 p=small",
        "classifier b=0.035",
        "classifier b=0.07",
        "within A=0.07 f=0.5 p=small",
        "within A=0.07 f=0.5 p=better",
        "within A=0.07 f=0.5 p=better order=random",
        "within A=0.07 f=0.5 p=better order=lowest",
        "labels",
    ],
    "curves": [
        "none",
        *(
            recipe
            for budget, spans in zip(_BUDGETS, _SPANS)
            for recipe in (
                f"random b={budget}",
                f"token b={budget} p=better",
                f"line b={budget} p=better",
                f"classifier b={budget}",
                f"within A={spans} f=0.5 p=better",
            )
        ),
    ],
    "proxies": [
        f"within A=0.07 f=0.5 p={proxy}{order}"
        for proxy in ("tiny", "small", "better")
        for order in ("", " order=random", " order=lowest")
    ],
    "penalties": [
        f"{mask} @{penalty}"
        for mask in ("words", "token b=0.05 p=better", "classifier b=0.07", "within A=0.07 f=0.5 p=better", "labels")
        for penalty in ("drop", "soft", "medium", "hard")
    ],
    "shares": [f"within A={A} f={f} p=better" for A in ("0.05", "0.07", "0.10") for f in ("0.35", "0.5", "0.7")],
}
