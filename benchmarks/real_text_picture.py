"""TP against perplexity for all masks in one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_FAMILIES = {
    "none": ("no mask", "black", "*"),
    "random": ("random tokens", "grey", "x"),
    "words": ("word list", "tab:brown", "s"),
    "token": ("influence, token by token", "tab:blue", "o"),
    "line": ("influence, whole lines", "tab:cyan", "o"),
    "classifier": ("classifier, whole lines", "tab:orange", "^"),
    "within": ("classifier's lines, influence's tokens", "tab:green", "D"),
    "labels": ("the labelled tweets", "tab:red", "P"),
    "document": ("documents left out", "tab:purple", "v"),
}


def picture(result: dict[str, Any], path: Path) -> None:
    """One panel a judge and held-out text, one point a mask: means over seeds, with the interval of TP."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    judges, texts = list(result["judges"]), ("prose", "tweets")
    figure = Figure(figsize=(5.2 * len(texts), 3.4 * len(judges)), layout="constrained")
    axes = figure.subplots(len(judges), len(texts), squeeze=False, sharey="row")
    for row, judge in enumerate(judges):
        for column, text in enumerate(texts):
            panel = axes[row][column]
            for name, found in result["summary"].items():
                label, colour, marker = _family(name)
                judged = found["judged"][judge]
                low, high = judged["tp_interval"]
                change = 100 * found.get(f"perplexity_{text}_change", 0.0)
                panel.errorbar(
                    change, judged["tp"], yerr=[[judged["tp"] - low], [high - judged["tp"]]],
                    color=colour, marker=marker, linewidth=0.8, label=label,
                )  # fmt: skip
            panel.set_ylim(0, 1.03)
            panel.grid(alpha=0.25)
            panel.set_title(f"{judge}, held-out {text}", fontsize=9)
            if row == len(judges) - 1:
                panel.set_xlabel("perplexity against no mask, %")
        axes[row][0].set_ylabel("prompts with a toxic continuation")
    handles: dict[str, Any] = {}
    for handle, label in zip(*axes[0][0].get_legend_handles_labels()):
        handles.setdefault(label, handle)
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=3, fontsize=8)
    FigureCanvasAgg(figure).print_png(str(path)) if path.suffix == ".png" else figure.savefig(path)


def _family(name: str) -> tuple[str, str, str]:
    kind = name.split()[0].split("@")[0]
    label, colour, marker = _FAMILIES[kind]
    if "order=random" in name:
        return "its control: random tokens of the same lines", "lightgreen", "x"
    if "order=lowest" in name:
        return "its control: lowest tokens of the same lines", "olive", "x"
    return label, colour, marker
