"""Pretraining with a teacher: resumed, divided, in half precision, with several teachers."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from tests.distill.teachers import make_teacher
from tests.small_corpora import PIECES, TINY

from zhbert import cli
from zhbert.config import load_recipe
from zhbert.data.loader import MaskedBatch
from zhbert.distill.teacher_folder import find_teacher
from zhbert.errors import ZhbertError
from zhbert.model.pretrained import BertForPreTraining
from zhbert.packing import pack_rows
from zhbert.pretraining import distillation
from zhbert.pretraining.check import check
from zhbert.pretraining.run import pretrain

# All that is learnt at once: both kinds of labels, states through projections, and relations.
MATCHES = (
    'distill.matches=[{loss="hidden_mse", student=[0, 1, 2], teacher=[0, 2, 4]},'
    '{loss="attention_mse", weight=0.1}, {loss="relations", heads=4}]'
)
EVERYTHING = ("distill.temperature=2", "distill.soft_schedule=growth", MATCHES)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return make_teacher(tmp_path_factory.mktemp("teachers") / "one")


def distill(teacher, corpus, out, *more, **options):
    names = teacher if isinstance(teacher, list) else [teacher]
    named = f"distill.teachers={json.dumps([str(name) for name in names])}"
    return pretrain("tiny", corpus, out, [*TINY, "steps=6", named, *more], **options)


def lines_of(run):
    text = (run / "metrics.jsonl").read_text(encoding="utf-8")
    return [line for line in map(json.loads, text.splitlines()) if "evaluation" not in line]


def losses_of(run):
    timed = ("seconds", "per_second", "wait")
    return [
        {key: x for key, x in line.items() if x is not None and not key.endswith(timed)}
        for line in lines_of(run)
    ]


def weights_of(run):
    return dict(BertForPreTraining.from_pretrained(run / "final").named_parameters())


def same_weights(one, other):
    first, second = weights_of(one), weights_of(other)
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def whole(teacher, corpus, tmp_path_factory):
    """A run with everything, of six steps."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    distill(teacher, corpus, folder, *EVERYTHING)
    return folder


def test_each_part_has_its_loss_in_the_log(whole):
    first = lines_of(whole)[0]
    parts = ("masked_lm", "soft_labels", "hidden_mse", "attention_mse", "relations")
    assert all(first[f"{part}_loss"] > 0 for part in parts)
    weights = (1.0, 0.0, 1.0, 0.1, 1.0)
    expected = sum(w * first[f"{part}_loss"] for w, part in zip(weights, parts, strict=True))
    assert first["loss"] == pytest.approx(expected)
    last = lines_of(whole)[-1]
    weights = (1.0, 5 / 6, 1.0, 0.1, 1.0)
    expected = sum(w * last[f"{part}_loss"] for w, part in zip(weights, parts, strict=True))
    assert last["loss"] == pytest.approx(expected)


def test_the_student_comes_closer_to_its_teacher(teacher, corpus, tmp_path):
    distill(teacher, corpus, tmp_path / "run", "steps=30", MATCHES, "optimizer.learning_rate=1e-2")
    lines = lines_of(tmp_path / "run")
    for part in ("hidden_mse", "attention_mse", "soft_labels"):
        assert lines[-1][f"{part}_loss"] < lines[0][f"{part}_loss"]


def test_an_interrupted_run_is_the_undisturbed_one_to_the_bit(teacher, corpus, whole, tmp_path):
    run = tmp_path / "run"
    distill(teacher, corpus, run, *EVERYTHING, "checkpoint_every=2")
    # As after a kill: the newest checkpoints are gone.
    kept = run / "checkpoints"
    names = sorted(path.name for path in kept.iterdir() if path.name.startswith("step-"))
    for name in names[1:]:
        subprocess.run(["rm", "-r", str(kept / name)], check=True)
    subprocess.run(["rm", "-r", str(run / "final")], check=True)
    pretrain("tiny", corpus, run, resume=True)
    assert losses_of(run) == losses_of(whole)
    assert same_weights(run, whole)


def test_what_only_the_matches_train_is_in_checkpoints_and_not_in_the_model(whole):
    from safetensors import safe_open

    final = safe_open(whole / "final" / "model.safetensors", "pt")
    assert not [name for name in final.keys() if "matching" in name]  # noqa: SIM118
    newest = sorted((whole / "checkpoints").glob("step-*"))[-1]
    saved = [
        name
        for file in newest.glob("*.safetensors")
        for name in safe_open(file, "pt").keys()  # noqa: SIM118
    ]
    assert [name for name in saved if "matching.maps.hidden_mse.0.weight" in name]


def test_micro_batches_do_not_change_the_curve(teacher, corpus, whole, tmp_path):
    distill(teacher, corpus, tmp_path / "run", *EVERYTHING, "micro_batch_size=3")
    for one, other in zip(losses_of(tmp_path / "run"), losses_of(whole), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_two_processes_have_the_curve_of_one(teacher, corpus, tmp_path):
    settings = [*EVERYTHING, "rows.builder=pairs", "micro_batch_size=3"]
    distill(teacher, corpus, tmp_path / "one", *settings)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "zhbert", "distill", "tiny", "--teacher", str(teacher), "--corpus"]
    command += [str(corpus), "--out", str(tmp_path / "two"), *TINY, "steps=6", *settings, "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    for one, two in zip(losses_of(tmp_path / "one"), losses_of(tmp_path / "two"), strict=True):
        assert one == pytest.approx(two, rel=1e-4)


def test_bfloat16_is_close_to_float32(teacher, corpus, whole, tmp_path):
    distill(teacher, corpus, tmp_path / "run", *EVERYTHING, "precision=bf16")
    first, exact = lines_of(tmp_path / "run")[0], lines_of(whole)[0]
    for part in ("masked_lm", "soft_labels", "hidden_mse", "attention_mse", "relations"):
        assert first[f"{part}_loss"] == pytest.approx(exact[f"{part}_loss"], rel=0.05)


def test_the_best_pieces_are_enough_for_soft_labels(teacher, corpus, tmp_path):
    distill(teacher, corpus, tmp_path / "all")
    distill(teacher, corpus, tmp_path / "best", f"distill.top_k={len(PIECES)}")
    for one, other in zip(losses_of(tmp_path / "all"), losses_of(tmp_path / "best"), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


# -- several teachers, and other vocabularies ------------------------------------------------------


class Asked:
    """A student's objective with its teachers opened, and a batch."""

    def __init__(self, teachers, corpus, tmp_path, monkeypatch, *more):
        made = []
        real = distillation.DistillationObjective

        def kept(usual, teaching):
            made.append(real(usual, teaching))
            return made[-1]

        monkeypatch.setattr("zhbert.pretraining.training.DistillationObjective", kept)
        self.result = distill(teachers, corpus, tmp_path / "asked", "steps=1", *more)
        self.objective = made[0]

    def labels(self):
        rows = np.array([2, 7, 4, 9, 3, 2, 11, 12, 4, 14, 3])
        packed = pack_rows(rows, np.array([5, 6]))
        batch = MaskedBatch(
            packed=packed,
            predicted_positions=torch.tensor([2, 8]),
            labels=torch.tensor([8, 13]),
            next_sentence_labels=None,
            dropped_pieces=0,
        )
        return self.objective._ask(batch)[0]


def test_the_soft_labels_of_several_teachers_are_averaged(teacher, corpus, tmp_path, monkeypatch):
    other = make_teacher(tmp_path / "other", seed=9, hidden_size=48, num_hidden_layers=1)
    settings = "distill.temperature=2"
    each = []
    for number, names in enumerate(([teacher], [other], [teacher, other])):
        asked = Asked(names, corpus, tmp_path / str(number), monkeypatch, settings)
        each.append((asked.labels().float() / 2).softmax(1))
    torch.testing.assert_close(each[2], (each[0] + each[1]) / 2)


def test_a_teacher_of_a_permuted_vocabulary_teaches_the_same(
    teacher, corpus, tmp_path, monkeypatch
):
    order = list(range(len(PIECES)))
    random.Random(0).shuffle(order)
    model = BertForPreTraining.from_pretrained(teacher)
    with torch.no_grad():
        words = model.encoder.embeddings.words.weight
        words.copy_(words[order].clone())
        model.mlm_head.bias.copy_(model.mlm_head.bias[order].clone())
    permuted = make_teacher(tmp_path / "permuted", pieces=[PIECES[i] for i in order])
    model.config.pad_token_id = order.index(0)
    model.save_pretrained(permuted)
    with pytest.raises(
        ZhbertError, match=r"other_vocabulary=map maps its pieces by their text: 60"
    ):
        distill(permuted, corpus, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    asked = [
        Asked(names, corpus, tmp_path / str(number), monkeypatch, "distill.other_vocabulary=map")
        for number, names in enumerate(([teacher], [permuted]))
    ]
    torch.testing.assert_close(asked[0].labels(), asked[1].labels())
    one, other = (tmp_path / str(number) / "asked" for number in range(2))
    for first, second in zip(losses_of(one), losses_of(other), strict=True):
        assert first == pytest.approx(second, rel=1e-5)


def test_only_predicted_pieces_are_computed_where_no_match_needs_more(
    teacher, corpus, tmp_path, monkeypatch
):
    asked = Asked([teacher], corpus, tmp_path, monkeypatch)
    (opened,) = asked.objective._teaching.teachers
    sizes = []
    opened.model.encoder.layers[-1].feed_forward.register_forward_hook(
        lambda module, inputs, output: sizes.append(len(output))
    )
    asked.labels()
    assert sizes == [2]


# -- bad input -------------------------------------------------------------------------------------


def refused(capsys, *words):
    """Exit with code 2 and one line; return it."""
    assert cli.main(["distill", "tiny", "--quiet", *TINY, "steps=2", *map(str, words)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


@pytest.fixture
def refuse(capsys, corpus, teacher, tmp_path):
    def run(*more, teacher=teacher):
        out = tmp_path / "run"
        said = refused(capsys, "--teacher", teacher, "--corpus", corpus, "--out", out, *more)
        assert not out.exists()
        return said

    return run


@pytest.mark.parametrize("section", [[], ["distill.temperature=2"]])
def test_no_teacher(section, corpus, tmp_path, capsys):
    said = refused(capsys, "--corpus", corpus, "--out", tmp_path / "run", *section)
    assert said.startswith("zhbert: error: --teacher is missing: zhbert distill RECIPE --teacher")


def test_a_section_in_a_recipe_without_a_teacher(corpus, tmp_path):
    with pytest.raises(ZhbertError, match="needs a teacher: 'zhbert distill' takes one"):
        pretrain("tiny", corpus, tmp_path / "run", [*TINY, "distill.temperature=2"])


def test_no_such_teacher(refuse, tmp_path):
    assert f"--teacher {tmp_path / 'nowhere'}: " in refuse(teacher=tmp_path / "nowhere")


def test_a_password_in_a_teachers_address_is_not_shown(teacher, monkeypatch):
    monkeypatch.setattr("zhbert.distill.teacher_folder.locate", lambda name, quiet: teacher)
    found = find_teacher("https://me:secret@example.org/model.zip")
    assert "secret" not in found.name


def test_a_run_folder_as_a_teacher(refuse, finished_run):
    said = refuse(teacher=finished_run)
    assert f"a run folder; its model is --teacher {finished_run / 'final'}" in said


def test_a_layer_that_does_not_exist(refuse):
    assert "no layer 5: the teacher has 4 layers" in refuse(
        "distill.matches=[{student=[1], teacher=[5]}]"
    )


def test_more_matches_than_layers(refuse):
    said = refuse('distill.matches=[{loss="cos", student=[1, 1, 2, 2], teacher=[1, 2, 3, 4]}]')
    assert "4 layers are matched, but the student has 2" in said


def test_a_head_that_was_never_trained(refuse, tmp_path):
    said = refuse(teacher=make_teacher(tmp_path / "fresh", trained=False))
    assert "its masked-word head was never trained (random)" in said


def test_a_head_that_was_never_trained_is_enough_for_states(corpus, tmp_path):
    fresh = make_teacher(tmp_path / "fresh", trained=False)
    distill(fresh, corpus, tmp_path / "run", "distill.soft_labels=none", MATCHES, "steps=1")


def test_rows_longer_than_the_teachers(refuse, tmp_path):
    short = make_teacher(tmp_path / "short", max_position_embeddings=16)
    assert "reads rows of 16 pieces at most, and the student's have up to 32" in refuse(
        teacher=short
    )


def test_pairs_for_a_teacher_of_one_segment(refuse, tmp_path):
    single = make_teacher(tmp_path / "single", type_vocab_size=1)
    assert "set rows.builder=full-sentences" in refuse("rows.builder=pairs", teacher=single)


def test_a_teacher_larger_than_the_memory(refuse, monkeypatch):
    monkeypatch.setattr(distillation, "total_memory", lambda device: 200_000)
    assert "choose a smaller teacher" in refuse()


def test_a_vocabulary_of_which_too_little_is_known(refuse, tmp_path):
    foreign = make_teacher(tmp_path / "foreign", pieces=[*PIECES[:5], *"abcdefghijk"])
    said = refuse("distill.other_vocabulary=map", teacher=foreign)
    assert "too different from the student's: 5 of 60 pieces (8.3%)" in said


def test_a_teacher_without_a_vocabulary_of_another_size(refuse, tmp_path):
    bare = make_teacher(tmp_path / "bare", pieces=[*PIECES, "[unused1]"])
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        (bare / name).unlink()
    assert "has 61 pieces and no vocab.txt" in refuse(teacher=bare)


def test_the_student_may_not_be_its_own_teacher(refuse, teacher):
    own = ["model.hidden_size=32", "model.num_hidden_layers=4", "model.intermediate_size=48"]
    own = [*own, f"initial_model={teacher}"]
    assert "a model has nothing to learn from itself" in refuse(*own)


def test_the_first_layers_of_the_teacher_may_learn_from_it(teacher, corpus, tmp_path):
    shape = ["model.hidden_size=32", "model.intermediate_size=48", f"initial_model={teacher}"]
    distill(teacher, corpus, tmp_path / "run", *shape, "model.num_hidden_layers=2", "steps=1")


def test_the_run_may_not_be_written_into_its_teacher(corpus, tmp_path, capsys):
    own = make_teacher(tmp_path / "own")
    said = refused(capsys, "--teacher", own, "--corpus", corpus, "--out", own, "--overwrite")
    assert "not empty, and not a run folder" in said
    assert (own / "model.safetensors").is_file()


def test_a_run_goes_on_with_its_own_teacher_only(teacher, corpus, tmp_path):
    changing = make_teacher(tmp_path / "changing")
    distill(changing, corpus, tmp_path / "run", "steps=2")
    make_teacher(tmp_path / "changing", seed=5)
    with pytest.raises(ZhbertError, match=r"not the teacher that .* was begun with"):
        pretrain("tiny", corpus, tmp_path / "run", ["steps=4"], resume=True)


def test_the_identity_is_that_of_the_weights_not_of_the_folder(teacher, tmp_path):
    same = make_teacher(tmp_path / "same")
    assert find_teacher(str(same)).identity == find_teacher(str(teacher)).identity
    other = make_teacher(tmp_path / "other", seed=4)
    assert find_teacher(str(other)).identity != find_teacher(str(teacher)).identity


# -- zhbert check ----------------------------------------------------------------------------------


def test_check_says_what_a_distillation_would_do(teacher, corpus, capsys):
    words = [
        "check",
        "tiny",
        *TINY,
        "--teacher",
        str(teacher),
        "--corpus",
        str(corpus),
        *EVERYTHING,
    ]
    assert cli.main([*words, "--quiet"]) == 0
    said = capsys.readouterr().out
    for text in (
        f"{teacher}: 4 layers x 32, ",
        "cross entropy over all 60 pieces, temperature 2; weight 1",
        "hidden_mse: student 0, 1, 2 <- teacher 0, 2, 4; linear 16 -> 32",
        "1,632 parameters, trained and not written to the model",
        "of it for the teacher",
    ):
        assert text in said
    assert cli.main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["distillation"]
    assert found["teachers"][0]["layers"] == 4
    assert len(found["matches"]) == 3
    assert found["operations_per_step"] > 0


def test_check_of_a_recipe_with_a_section_says_that_a_teacher_is_missing():
    result = check("minirbt-h256")
    assert any("needs a teacher: with --teacher MODEL" in note for note in result["notes"])
    assert load_recipe("minirbt-h256").distill is not None


def test_check_knows_published_models_that_cannot_fill_masks():
    teachers = ["chinese-roberta-wwm-ext"]
    assert any(
        "will be refused" in note for note in check("minirbt-h256", teachers=teachers)["notes"]
    )
    notes = check("tinybert4", teachers=teachers)["notes"]
    assert any("fetched when training begins" in note for note in notes)


def test_check_refuses_what_the_run_would(teacher, corpus, tmp_path):
    foreign = make_teacher(tmp_path / "foreign", pieces=[*PIECES[:5], *"abcdefghijk"])
    with pytest.raises(ZhbertError, match="another vocabulary than the student's"):
        check("tiny", TINY, corpus=corpus, teachers=[str(foreign)])
    fresh = make_teacher(tmp_path / "fresh", trained=False)
    with pytest.raises(ZhbertError, match="masked-word head was never trained"):
        check("tiny", TINY, teachers=[str(fresh)])
    with pytest.raises(ZhbertError, match="no layer 9"):
        check("tiny", [*TINY, "distill.matches=[{student=[9]}]"], teachers=[str(teacher)])
