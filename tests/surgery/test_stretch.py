"""``zhbert stretch`` and ``shrink --positions``: rows that fitted before give the same outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tests.small_corpora import PIECES as CORPUS_PIECES
from tests.small_corpora import TINY
from tests.small_models import make_model, outputs

from zhbert.cli import main
from zhbert.errors import ZhbertError
from zhbert.model.pretrained import BertForPreTraining
from zhbert.pretraining.run import pretrain
from zhbert.surgery.shrink import shrink
from zhbert.surgery.stretch import stretch

IDS = [[3, 6, 7, 25, 60, 5, 92], [3, 94, 10, 94, 18, 30, 4]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of forty positions; read it only."""
    return make_model(tmp_path_factory.mktemp("models") / "short")


@pytest.mark.parametrize("arguments", [["stretch", "--positions", "1024"],
                                       ["stretch", "--positions", "99", "--new-rows", "repeat"],
                                       ["shrink", "--positions", "7"]])  # fmt: skip
def test_transformers_opens_the_model_and_short_rows_give_the_same(
    model: Path, tmp_path: Path, arguments: list[str]
) -> None:
    verb, *options = arguments
    assert main([verb, str(model), *options, "--out", str(tmp_path / "new"), "--quiet"]) == 0
    length = int(options[1])
    old, new = outputs(model, IDS), outputs(tmp_path / "new", IDS)
    assert torch.equal(new.prediction_logits, old.prediction_logits)
    assert torch.equal(new.seq_relationship_logits, old.seq_relationship_logits)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "new").model_max_length == length
    # A row that is as long as the new model takes: both programs agree on it.
    ids = torch.randint(6, 90, (2, length), generator=torch.Generator().manual_seed(0))
    ours = BertForPreTraining.from_pretrained(tmp_path / "new", quiet=True)
    with torch.no_grad():
        mine = ours(ids, output_hidden_states=True).hidden_states
    for one, other in zip(mine, outputs(tmp_path / "new", ids).hidden_states, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-5)


def test_longer_and_shortened_again_is_the_same_model(model: Path, tmp_path: Path) -> None:
    stretch(model, tmp_path / "long", positions=300)
    shrink(tmp_path / "long", tmp_path / "short", positions=40)
    old, new = (load_file(f / "model.safetensors") for f in (model, tmp_path / "short"))
    assert old.keys() == new.keys()
    assert all(torch.equal(new[name], tensor) for name, tensor in old.items())


def test_interpolated_rows_lie_evenly_between_the_trained_ones(model: Path, tmp_path: Path) -> None:
    to = tmp_path / "long"
    command = ["stretch", str(model), "--positions", "79", "--new-rows", "interpolate"]
    assert main([*command, "--out", str(to), "--quiet"]) == 0
    name = "bert.embeddings.position_embeddings.weight"
    old, new = (load_file(folder / "model.safetensors")[name] for folder in (model, to))
    # 79 rows for 40: every second one is a trained row, the others are means of its neighbours.
    torch.testing.assert_close(new[::2], old, rtol=0, atol=1e-7)
    torch.testing.assert_close(new[1::2], (old[1:] + old[:-1]) / 2, rtol=0, atol=1e-7)


def test_pretraining_takes_rows_beyond_the_old_length(corpus: Path, tmp_path: Path) -> None:
    pieces = list(CORPUS_PIECES)
    short = make_model(tmp_path / "short", pieces=pieces, max_position_embeddings=64)
    stretch(short, tmp_path / "long", positions=600)
    own = [option for option in TINY if not option.startswith(("model.", "sequence_length"))]
    own += ["steps=2", "sequence_length=600", "rows.builder=full-sentences", "batch_size=2"]
    overrides = [*own, f"initial_model={tmp_path / 'long'}"]
    pretrain("continue-domain", corpus, tmp_path / "run", overrides)
    trained = load_file(tmp_path / "run" / "final" / "model.safetensors")
    before = load_file(tmp_path / "long" / "model.safetensors")
    name = "bert.embeddings.position_embeddings.weight"
    moved = (trained[name] != before[name]).any(1)
    assert trained[name].shape == (600, 16)
    assert bool(moved[100:].any())
    # The short model is refused with the way to a long one.
    with pytest.raises(ZhbertError, match=r"must be at most .* = 64 \(zhbert stretch gives"):
        pretrain("continue-domain", corpus, tmp_path / "other", [*own, f"initial_model={short}"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stretch", "--positions", "40"], "the model has 40 already; 'zhbert shrink' makes fewer"),
        (["stretch", "--positions", "1601"], "hierarchical; --new-rows repeat makes more"),
        (["stretch", "--positions", "0"], "--positions 0: must be from 1"),
        (["stretch", "--positions", "99999999999"], "must be from 1 to 1,048,576"),
        (["shrink", "--positions", "41"], "--positions 41 --out DIR' makes more"),
        (["shrink", "--positions", "2"], "must be 3 or more"),
    ],
)
def test_a_length_that_cannot_be_is_one_line(
    model: Path, tmp_path: Path, arguments: list[str], said: str, capsys
) -> None:
    verb, *options = arguments
    assert main([verb, str(model), *options, "--out", str(tmp_path / "new")]) == 2
    captured = capsys.readouterr().err
    assert said in captured
    assert captured.count("\n") == 1
    assert not (tmp_path / "new").exists()
