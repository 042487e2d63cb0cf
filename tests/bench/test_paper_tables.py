"""The paper's figures out of our counters; where one differs, the row says why."""

from __future__ import annotations

import json

import pytest

from kind_bench.paper import load_figures, paper_rows, print_paper


def test_all_but_three_figures_are_the_same_to_the_printed_digit() -> None:
    differing = [(row.model, row.quantity, row.paper, row.ours) for row in paper_rows() if not row.is_same]
    assert differing == [
        ("kind-l/2", "parameters", "245.9", "246.0"),
        ("kind-l/2", "flops", "119.6", "119.7"),
        ("dit-b/2", "floor", "11.43", "11.44"),
    ]
    assert all(row.note for row in paper_rows() if not row.is_same)


def test_the_figures_of_the_latency_table_are_there() -> None:
    floors = [(row.model, row.setting, row.ours) for row in paper_rows() if row.quantity == "floor"]
    assert ("kind-mobile", "Apple A18", "3.47") in floors
    assert ("kind-mobile", "Kirin 9020", "3.84") in floors
    assert ("kind-mobile", "Snapdragon 8 Gen 3", "2.38") in floors


def test_both_counts_of_flops_are_shown() -> None:
    (row,) = (row for row in paper_rows() if row.paper == "13.22")
    assert row.full_gflops == pytest.approx(15.60, abs=0.005)


def test_it_prints_tables_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_paper()
    text = capsys.readouterr().out
    assert all(entry["value"] in text for entry in load_figures())
    assert "38 of 41 figures the same" in text
    print_paper(as_json=True)
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert len(figures) == len(load_figures())
    assert figures[0]["ours"] == "768"
