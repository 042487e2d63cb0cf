"""The paper's figures out of our counters, every one of tables 1 and 2 to the printed digit."""

from __future__ import annotations

import copy
import json

import pytest

from kind_bench import paper
from kind_bench.paper import paper_rows, print_paper
from kind_bench.paper_figures import load_figures
from kind_train.data.imagenet import PRETRAIN, read_split

# As printed, DiT-B and DiT-L: parameters of table 1, in millions.
TABLE_1 = {
    "KIND": "70.2 245.9",
    "traditional": "129.7 457.0",
    "Heur-LG": "108.4 362.5",
    "Laptop-diff": "76.5 249.2",
    "Auto-LG": "76.5 249.2",
}
# Trained parameters and FLOPs of table 2.
TABLE_2 = {
    "KIND": "12.8 33.7 45.4 119.6",
    "full fine-tuning": "129.6 43.6 456.8 155.0",
    "PiSSA": "12.8 50.1 45.3 178.2",
    "DoRA": "12.8 129.5 45.6 503.0",
    "OFT": "14.2 119.7 50.5 425.6",
    "LoRA": "12.8 50.1 45.3 178.2",
    "LoHa": "12.7 87.1 45.3 309.6",
    "SVDiff": "0.1 43.6 0.2 155.0",
    "Heur-LG": "129.6 43.6 456.8 155.0",
    "Auto-LG": "129.6 43.6 456.8 155.0",
}


@pytest.mark.parametrize(("table", "printed"), [("table 1", TABLE_1), ("table 2", TABLE_2)])
def test_every_size_and_flop_figure_is_the_printed_one(table: str, printed: dict[str, str]) -> None:
    rows = [row for row in paper_rows() if row.table == table]
    ours = {system: " ".join(row.ours for row in rows if row.system == system) for system in printed}
    assert ours == printed
    assert len(rows) == len(" ".join(printed.values()).split())
    # the only two that are not what rounding gives
    assert {row.paper for row in rows if row.match != "rounded"} <= {"245.9", "119.6"}
    assert all(row.match == "truncated" for row in rows if row.paper in ("245.9", "119.6"))


def test_the_tasks_are_those_of_the_split() -> None:
    assert load_figures()["tasks"]["classes"] == [len(ids) for part, ids in read_split().items() if part != PRETRAIN]


def test_the_table_of_phones_and_its_ratios() -> None:
    mobile = {(row.system, row.note): row for row in paper_rows() if row.table == "mobile" and row.quantity == "floor"}
    assert [mobile["KIND-Mobile", device].ours for device in load_figures()["mobile"]["gflops"]] == [
        "3.47", "3.84", "2.38",
    ]  # fmt: skip
    ratios = [(row.quantity, row.paper, row.ours) for row in paper_rows() if row.table == "ratios"]
    assert ratios[:3] == [
        ("parameters", "(1.85)", "1.85"),
        ("memory", "(1.85)", "1.85"),
        ("one pass", "(3.30)", "3.30"),
    ]
    assert len(ratios) == 6


def test_both_counts_of_flops_are_shown() -> None:
    (row,) = (row for row in paper_rows() if row.paper == "13.22")
    assert row.full_gflops == pytest.approx(15.60, abs=0.005)


def test_what_the_paper_does_not_print_or_was_not_measured_is_no_match() -> None:
    for row in paper_rows():
        if row.table in ("ratios", "answers"):
            assert row.match == "not compared"
    hours = [row for row in paper_rows() if row.table == "answers"]
    assert {(row.paper, row.ours) for row in hours if row.system == "KIND"} == {("1.6", ""), ("6.3", "")}


def test_it_prints_tables_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_paper()
    text = capsys.readouterr().out
    assert "tables 1 and 2: 50 of 50 figures the same to the printed digit, 2 of them truncated" in text
    assert "245.985 before that" in text
    assert "not measured" in text
    print_paper(as_json=True)
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert {figure["table"] for figure in figures} == {"table 1", "table 2", "mobile", "ratios", "settings", "answers"}
    assert sum(figure["table"] in ("table 1", "table 2") for figure in figures) == 50


def test_a_figure_that_is_not_ours_differs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    changed = copy.deepcopy(load_figures())
    changed["table_2"][0]["trained"][0] = "12.9"
    monkeypatch.setattr(paper, "load_figures", lambda: changed)
    print_paper()
    text = capsys.readouterr().out
    assert "49 of 50 figures" in text
    assert any(line.endswith("differs") and "12.9" in line for line in text.splitlines())
