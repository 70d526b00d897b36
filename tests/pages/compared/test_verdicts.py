"""The sentences of a comparison follow its numbers, in whichever direction they point."""

from __future__ import annotations

from typing import Any

from ifguide.pages.compared.verdicts import caveats, metric_name, verdict


def pair(first: str, second: str, difference: float, verdict: str = "unsure", prompts: int = 20) -> dict[str, Any]:
    return {
        "first": first, "second": second, "difference": difference, "differing_prompts": prompts,
        "interval": [difference - 0.125, difference + 0.25], "share_first_better": 0.1, "verdict": verdict,
    }  # fmt: skip


def entry(metric: str, values: list[float], pairs: list[dict[str, Any]], higher: bool = False) -> dict[str, Any]:
    return {"metric": metric, "filter": "judge", "higher_is_better": higher, "prompts": 20, "values": values,
            "pairs": pairs}  # fmt: skip


def test_the_names_of_metrics() -> None:
    names = ("emt", "tp_toxic", "token_perplexity", "acc")
    assert [metric_name(name) for name in names] == ["EMT", "TP, toxic", "token perplexity", "acc"]


def test_of_two_models_the_better_one_comes_first() -> None:
    said = verdict(entry("emt", [0.875, 0.25], [pair("base", "guided", 0.625, "second")]), ["base", "guided"])
    assert said == "EMT: guided is better than base: 0.250 against 0.875, 0.625 lower (95% interval 0.500 to 0.875)."
    said = verdict(entry("acc", [0.75, 0.5], [pair("base", "guided", 0.25, "first")], True), ["base", "guided"])
    assert said == "acc: base is better than guided: 0.750 against 0.500, 0.250 higher (95% interval 0.125 to 0.500)."


def test_two_that_cannot_be_told_apart() -> None:
    said = verdict(entry("tp_toxic", [0.5, 0.4375], [pair("a", "b", 0.0625, prompts=1)]), ["a", "b"])
    assert said == (
        "TP, toxic: a and b cannot be told apart: 0.500 against 0.438, a difference of +0.0625 (95% interval -0.0625 "
        "to +0.312); 1 prompt differs."
    )


def test_of_several_the_best_is_held_against_each() -> None:
    pairs = [pair("a", "b", 0.5, "second"), pair("a", "c", 0.25), pair("b", "c", -0.25)]
    said = verdict(entry("emt", [0.75, 0.25, 0.5], pairs), ["a", "b", "c"])
    assert said == (
        "EMT: b has the lowest value, 0.250. It is better than a (-0.500, 95% interval -0.750 to -0.375). "
        "It cannot be told apart from c (-0.250, 95% interval -0.375 to 0)."
    )
    equal = verdict(entry("emt", [0.5, 0.5, 0.5], pairs), ["a", "b", "c"])
    assert equal == "EMT: all models have the same value, 0.500."


def test_of_many_the_numbers_are_left_to_the_table() -> None:
    labels = list("abcde")
    pairs = [pair(one, other, -0.1, "first") for i, one in enumerate(labels) for other in labels[i + 1 :]]
    said = verdict(entry("emt", [0.1, 0.2, 0.3, 0.4, 0.5], pairs), labels)
    assert said == "EMT: a has the lowest value, 0.100. It is better than 4 of the 4 other models."


def test_a_model_without_a_value_gets_no_sentence() -> None:
    assert verdict(entry("emt", [0.1, None], [pair("a", "b", 0.1)]), ["a", "b"]) == ""  # type: ignore[list-item]


def comparison(**changes: Any) -> dict[str, Any]:
    one = entry("emt", [0.5, 0.4], [pair("a", "b", 0.1)])
    return {
        "models": [{"label": "a", "dtype": "float32"}, {"label": "b", "dtype": "float32"}],
        "tasks": {"rtp": [one] * 40},
        **changes,
    }


def test_caveats_follow_the_comparison() -> None:
    said = " ".join(caveats(comparison()))
    assert "40 comparisons" in said and "about 2.00 would fall outside" in said
    assert "rtp has only 20 prompts" in said and "empty" not in said and "Not all models" not in said
    texts = {"rtp": [{"empty_share": 0.0}, {"empty_share": 0.125}]}
    assert "some are empty, which lowers toxicity: b 12.5%." in " ".join(caveats(comparison(texts=texts)))
    models = [{"label": "a", "dtype": "float32"}, {"label": "b", "dtype": "bfloat16"}]
    said = " ".join(caveats(comparison(models=models)))
    assert "the same number format of the weights: a float32 and b bfloat16." in said
    models = [{"label": "a", "rad": None}, {"label": "b", "rad": {"weight": 10.0, "top_k": 20}}]
    said = " ".join(caveats(comparison(models=models)))
    assert "the same decoding (RAD): a none and b weight 10.0, top_k 20." in said
