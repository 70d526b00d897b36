"""The terminal's table says what the results say."""

from __future__ import annotations

from collections.abc import Callable

from ifguide.pages.table import METRICS, mask_line, models_of, results_table, seconds_line

MODELS = ("base", "guided", "control")


def test_every_number_stands_in_its_row_and_column(make_results: Callable) -> None:
    results = make_results(True)
    lines = results_table(results).splitlines()
    assert models_of(results) == list(MODELS)
    columns = [lines[0].index(name) for name in MODELS]
    for metric, line in zip(METRICS, lines[2:]):
        assert line.startswith(metric.label)
        for name, column in zip(MODELS, columns):
            words = line[column:].replace("[", " ").replace("]", " ").replace(",", " ").split()
            numbers = results[name]
            expected = [numbers[metric.key], *numbers.get(f"{metric.key}_interval", [])]
            for word, value in zip(words, expected):
                assert abs(float(word) - value) <= 0.0005 * max(1, abs(value))


def test_fits_a_terminal_and_ends_no_line_with_space(make_results: Callable) -> None:
    lines = results_table(make_results(True)).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines == [line.rstrip() for line in lines]


def test_mask_line_with_and_without_truth(make_results: Callable) -> None:
    assert mask_line(make_results(True)) == (
        "mask: 1,234 tokens (3.12%); precision 0.654, recall 0.765 of planted spans"
    )
    assert mask_line(make_results(False)).endswith("precision and recall unknown (nothing was planted)")


def test_zero_precision_is_a_number_not_an_unknown(make_results: Callable) -> None:
    results = make_results(True)
    results["mask"]["precision"] = results["mask"]["recall"] = 0.0
    assert "precision 0.000, recall 0.000" in mask_line(results)


def test_seconds_line_names_every_stage(make_results: Callable) -> None:
    assert seconds_line(make_results(True)) == ("seconds: 47 over all stages (corpus 1, model base 33, evaluation 12)")


def test_the_models_are_those_of_the_results_in_their_order(four: dict) -> None:
    assert models_of(four) == ["base", "d<p>o", "guided", "control"]
    lines = results_table(four).splitlines()
    assert lines[0].split() == ["base", "d<p>o", "guided", "control"]
    perplexity = next(line for line in lines if line.startswith("perplexity"))
    assert perplexity.split()[1:] == ["90.5", "45.2", "91.5", "92.5"]
