"""The script that measures encoding and search beside sentence-transformers, with small sizes."""

from __future__ import annotations

import json

import pytest
from tests.benchmarks.scripts import script

embed = script("embed")


def test_both_find_the_same(capsys):
    embed.main(["search", "--quick", "--repeats", "1", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["queries"], found["vectors"]) == (20, 2_000)
    assert found["ratio"] > 0


def test_both_compute_the_same_vectors(capsys, monkeypatch):
    monkeypatch.setattr(embed, "sentences", lambda: ["天气很好", "今天天气好", "股票"])
    options = "--quick --shapes tiny --dtypes float32 bfloat16 --repeats 1 --json"
    embed.main(["sentences", *options.split()])
    single, half = map(json.loads, capsys.readouterr().out.splitlines())
    assert (single["dtype"], half["dtype"]) == ("float32", "bfloat16")
    assert single["largest_difference"] < 1e-5 < half["largest_difference"]
    assert half["smallest_cosine"] == pytest.approx(1, abs=1e-3)
