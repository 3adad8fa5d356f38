"""Rows on the disk: whole lines only."""

import json

import pytest

from ornstein.bench.rows import append, key, read

ROW = {"arm": "iql", "data": "one", "config_hash": "a", "seed": 0, "return_mean": 1.5}


def test_rows_come_back_as_they_were_appended(tmp_path):
    file = tmp_path / "rows.jsonl"
    assert read(file) == []
    for seed in range(3):
        append(file, ROW | {"seed": seed})
    assert [row["seed"] for row in read(file)] == [0, 1, 2]
    assert read(file)[0] == ROW


@pytest.mark.parametrize("cut", [1, 10, len(json.dumps(ROW))])
def test_a_torn_last_line_is_dropped_with_a_note_and_cut_off(tmp_path, cut, capsys):
    file = tmp_path / "rows.jsonl"
    append(file, ROW)
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:cut])
    assert read(file) == [ROW] and "cut short" in capsys.readouterr().err
    assert len(file.read_bytes()) > len(whole), "a reader that only looks changes nothing"
    assert read(file, mend=True) == [ROW]
    assert file.read_bytes() == whole
    append(file, ROW | {"seed": 1})
    assert len(read(file)) == 2


def test_a_damaged_line_in_the_middle_is_refused_by_number(tmp_path):
    file = tmp_path / "rows.jsonl"
    append(file, ROW)
    with file.open("a") as opened:
        opened.write("{}\n")
    append(file, ROW | {"seed": 1})
    with pytest.raises(ValueError, match=r"rows\.jsonl: line 2 is no row"):
        read(file)


def test_a_row_without_a_return_holds_no_result(tmp_path):
    """Older versions wrote null for a return that was not finite; such a row must not stand for one that was made."""
    file = tmp_path / "rows.jsonl"
    append(file, ROW | {"return_mean": None})
    append(file, ROW | {"seed": 1})
    assert [row["seed"] for row in read(file)] == [1]


@pytest.mark.parametrize("change", [{"arm": "iql:fast"}, {"data": "two"}, {"config_hash": "b"}, {"seed": 1}])
def test_rows_are_told_apart_by_their_names_hash_and_seed(change):
    assert key(ROW | change) != key(ROW) == key(ROW | {"return_mean": 2.5})


def test_values_that_json_has_no_words_for_are_refused_before_writing(tmp_path):
    file = tmp_path / "rows.jsonl"
    with pytest.raises(ValueError, match="JSON"):
        append(file, ROW | {"return_mean": float("nan")})
    assert not file.exists()
