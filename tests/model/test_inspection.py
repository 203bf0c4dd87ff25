"""Random heads are told from trained ones by their numbers; strange checkpoints are described."""

from __future__ import annotations

import dataclasses
import json
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zhbert.errors import ZhbertError
from zhbert.model import inspection
from zhbert.model.checkpoint import Checkpoint, open_checkpoint
from zhbert.model.config import BertConfig
from zhbert.model.entry import Entry, entries_of
from zhbert.model.head_states import HARDLY, HEADS, head_states
from zhbert.model.inspection import inspect_checkpoint, summary_line
from zhbert.model.pretrained import BertForPreTraining
from zhbert.text.vocab import looks_cased, read_vocabulary
from zhbert.zoo.layout import find_model

HIDDEN = 64
PIECES = 120
RANGE = 0.02
TRANSFORM = "cls.predictions.transform"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
Tensors = dict[str, Tensor]


# ---------------------------------------------------------------- heads


def _normal(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape) * RANGE


def _cut(shape: tuple[int, ...]) -> Tensor:
    """As Google's truncated_normal_initializer draws."""
    return nn.init.trunc_normal_(torch.empty(shape), 0, RANGE, -2 * RANGE, 2 * RANGE)


def _fresh(draw: Callable[[tuple[int, ...]], Tensor]) -> Tensors:
    """All heads, as transformers and Google's code initialise them."""
    tensors = {}
    for name, head in HEADS.items():
        rows = {"sentence_pair": 2, "question_answering": 2, "classifier": 15}.get(name, HIDDEN)
        tensors[head.weight] = draw((rows, HIDDEN))
        tensors[head.bias] = torch.zeros(rows)
        if head.norm and head.output_bias:
            tensors[f"{head.norm}.weight"] = torch.ones(HIDDEN)
            tensors[f"{head.norm}.bias"] = torch.zeros(HIDDEN)
            tensors[head.output_bias] = torch.zeros(PIECES)
    return tensors


def _linear_defaults() -> Tensors:
    """Heads of bare nn.Linear modules: matrices and biases uniform within 1 / sqrt(inputs)."""
    tensors = _fresh(_normal)
    for head in HEADS.values():
        layer = nn.Linear(HIDDEN, tensors[head.weight].shape[0])
        tensors |= {head.weight: layer.weight.detach(), head.bias: layer.bias.detach()}
    return tensors


def _norm_like_a_matrix() -> Tensors:
    """As the first PyTorch versions of BERT initialised."""
    return _fresh(_normal) | {
        f"{TRANSFORM}.LayerNorm.{leaf}": _normal((HIDDEN,)) for leaf in ("weight", "bias")
    }


def _everything_drawn() -> Tensors:
    return {name: _normal(tuple(tensor.shape)) for name, tensor in _fresh(_normal).items()}


def _words(tensors: Tensors, dtype: torch.dtype = torch.float32) -> dict[str, str]:
    entries = entries_of({name: tensor.to(dtype) for name, tensor in tensors.items()})
    return {name: state.word for name, state in head_states(entries, RANGE).items()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    "initialise",
    [lambda: _fresh(_normal), lambda: _fresh(_cut), _norm_like_a_matrix, _everything_drawn],
    ids=["transformers", "google", "norm like a matrix", "everything drawn"],
)
def test_fresh_heads_are_random_in_any_storage(
    initialise: Callable[[], Tensors], seed: int, dtype: str
) -> None:
    torch.manual_seed(seed)
    assert _words(initialise(), DTYPES[dtype]) == dict.fromkeys(HEADS, "random")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(10))
def test_pytorch_defaults_are_random_where_there_are_numbers_enough(seed: int, dtype: str) -> None:
    torch.manual_seed(seed)
    words = _words(_linear_defaults(), DTYPES[dtype])
    assert {words["masked_words"], words["pooler"], words["classifier"]} == {"random"}


@pytest.mark.parametrize("library", ["zhbert", "transformers"])
def test_fresh_models_of_both_libraries_are_random(library: str, config: BertConfig) -> None:
    if library == "zhbert":
        tensors = _theirs(BertForPreTraining(config))
    else:
        torch.manual_seed(0)
        values = {k: v for k, v in config.to_dict().items() if v}
        theirs = transformers.BertForPreTraining(transformers.BertConfig(**values))
        tensors = theirs.state_dict()
    states = head_states(entries_of(tensors), config.initializer_range)
    for name in ("masked_words", "sentence_pair", "pooler"):
        assert states[name].word == "random", states[name]


def _theirs(model: BertForPreTraining) -> Tensors:
    from zhbert.model.names import to_hugging_face

    return to_hugging_face({n: p.detach() for n, p in model.named_parameters()})


def _trained(tensors: Tensors, steps: int, optimiser: Callable[..., Any]) -> Tensors:
    """Every head trained on noise for ``steps``."""
    p = {name: nn.Parameter(tensor.clone()) for name, tensor in tensors.items()}
    optimise = optimiser(p.values())
    embeddings = torch.randn(PIECES, HIDDEN) * RANGE
    linear, norm, loss = (
        nn.functional.linear,
        nn.functional.layer_norm,
        nn.functional.cross_entropy,
    )

    def apply(head: str, x: Tensor) -> Tensor:
        return linear(x, p[HEADS[head].weight], p[HEADS[head].bias])

    for _ in range(steps):
        x = norm(torch.randn(24, HIDDEN), (HIDDEN,))
        transformed = norm(
            nn.functional.gelu(apply("masked_words", x)),
            (HIDDEN,),
            p[f"{TRANSFORM}.LayerNorm.weight"],
            p[f"{TRANSFORM}.LayerNorm.bias"],
        )
        scores = linear(transformed, embeddings, p["cls.predictions.bias"])
        total = loss(scores, torch.randint(PIECES, (24,)))
        pooled = torch.tanh(apply("pooler", x[:8]))
        total = total + loss(apply("sentence_pair", pooled), torch.randint(2, (8,)))
        total = total + loss(apply("classifier", pooled), torch.randint(15, (8,)))
        spans = apply("question_answering", x.view(2, 12, HIDDEN))
        for side in spans.unbind(-1):
            total = total + loss(side, torch.randint(12, (2,)))
        optimise.zero_grad()
        total.backward()
        optimise.step()
    return {name: tensor.detach() for name, tensor in p.items()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("steps", [1, 10, 100])
@pytest.mark.parametrize("draw", [_normal, _cut])
def test_a_single_step_makes_a_head_a_trained_one(
    draw: Callable[[tuple[int, ...]], Tensor], steps: int, dtype: str
) -> None:
    torch.manual_seed(steps)
    trained = _trained(_fresh(draw), steps, lambda p: torch.optim.AdamW(p, lr=2e-5))
    assert _words(trained, DTYPES[dtype]) == dict.fromkeys(HEADS, "trained")


def test_a_few_steps_are_called_a_few() -> None:
    torch.manual_seed(0)
    few = _trained(_fresh(_normal), 10, lambda p: torch.optim.AdamW(p, lr=2e-5))
    many = _trained(_fresh(_normal), 100, lambda p: torch.optim.AdamW(p, lr=1e-3))
    for name in ("masked_words", "sentence_pair", "pooler"):
        assert HARDLY in head_states(entries_of(few))[name].why
        assert HARDLY not in head_states(entries_of(many))[name].why


@pytest.mark.parametrize("everything", [False, True], ids=["matrices", "norms too"])
def test_weight_decay_alone_is_no_training(everything: bool) -> None:
    torch.manual_seed(0)
    shrunk = {
        name: tensor * 0.7 if everything or tensor.ndim == 2 else tensor
        for name, tensor in _fresh(_normal).items()
    }
    assert set(_words(shrunk).values()) == {"random"}


def test_a_moved_matrix_without_a_moved_bias_is_unclear() -> None:
    torch.manual_seed(0)
    tensors = _fresh(_normal)
    for name in (HEADS["pooler"].weight, HEADS["classifier"].weight):
        # A distribution with long tails, as trained matrices have and no initialiser.
        tensors[name] = torch.randn(tensors[name].shape).pow(3) * RANGE
    words = _words(tensors)
    assert words["pooler"] == words["classifier"] == "unclear"


def test_a_norm_that_passes_nothing_on_is_random() -> None:
    # Narrow models have too few scales for their mean to lie near 0.
    tensors = _fresh(_normal) | {f"{TRANSFORM}.LayerNorm.weight": torch.rand(HIDDEN) * 0.02 + 0.04}
    assert _words(tensors)["masked_words"] == "random"


def test_drawn_biases_beside_a_trained_head_count_as_moved() -> None:
    torch.manual_seed(0)
    tensors = _everything_drawn()
    tensors[f"{TRANSFORM}.LayerNorm.weight"] = 1 + torch.randn(HIDDEN) * 0.1
    assert set(_words(tensors).values()) == {"trained"}


def test_answers_may_be_learnt_without_moving_their_bias() -> None:
    # Softmax over positions cancels it; storage in float16 makes zero of what rounding left.
    torch.manual_seed(0)
    tensors = _fresh(_normal)
    tensors[HEADS["question_answering"].weight] *= 3
    assert _words(tensors)["question_answering"] == "unclear"


def test_a_frozen_norm_beside_moved_weights_is_unclear() -> None:
    torch.manual_seed(0)
    tensors = _fresh(_normal)
    tensors[HEADS["masked_words"].weight] = torch.randn(HIDDEN, HIDDEN).pow(3)
    tensors["cls.predictions.bias"] = torch.randn(PIECES)
    assert _words(tensors)["masked_words"] == "unclear"


def test_missing_partial_and_spoilt_heads_are_named() -> None:
    tensors = _fresh(_normal)
    del tensors["cls.predictions.bias"], tensors["classifier.bias"], tensors["classifier.weight"]
    tensors[HEADS["pooler"].bias][3] = float("nan")
    states = head_states(entries_of(tensors))
    assert states["masked_words"].word == states["classifier"].word == "missing"
    assert states["masked_words"].why == "incomplete: lacks cls.predictions.bias"
    assert states["classifier"].why == "not in the file"
    assert states["pooler"].word == "unclear"
    assert states["pooler"].why == "NaN or infinite numbers in bert.pooler.dense.bias"


# ---------------------------------------------------------------- whole checkpoints

VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *(f"[unused{number}]" for number in range(1, 8)),
    *("a", "##b"),
    *(chr(0x4E00 + number) for number in range(83)),
]


@pytest.fixture
def theirs(shape: dict[str, Any], large: Callable[[nn.Module], Any]) -> Any:
    torch.manual_seed(0)
    return large(transformers.BertForPreTraining(transformers.BertConfig(**shape)))


@pytest.fixture
def folder(theirs: Any, tmp_path: Path) -> Path:
    theirs.save_pretrained(tmp_path / "model")
    _write_vocabulary(tmp_path / "model", VOCABULARY)
    return tmp_path / "model"


def _write_vocabulary(folder: Path, pieces: list[str]) -> None:
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")


def _edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not ...}), "utf-8")


def _edit(folder: Path, change: Callable[[Tensors], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _inspect(folder: Path) -> Any:
    return inspect_checkpoint(find_model(folder))


def test_a_whole_checkpoint_is_described(theirs: Any, folder: Path) -> None:
    found = _inspect(folder)
    assert found.format == "safetensors"
    assert found.files == {"model.safetensors": (folder / "model.safetensors").stat().st_size}
    assert found.shape == {
        "num_hidden_layers": 3,
        "hidden_size": 32,
        "intermediate_size": 48,
        "max_position_embeddings": 40,
        "type_vocab_size": 2,
        "vocab_size": 97,
        "num_attention_heads": 4,
    }
    assert found.parameters == theirs.num_parameters()
    assert found.dtypes == {"float32": 1.0}
    assert found.encoder.word == "trained"
    assert {n: s.word for n, s in found.heads.items()} == {
        "masked_words": "trained",
        "sentence_pair": "trained",
        "pooler": "trained",
        "classifier": "missing",
        "question_answering": "missing",
    }
    assert found.missing == found.unused == found.not_finite == found.problems == ()
    assert found.decoder == "shared"
    assert found.refusal is None
    assert [(use.what, use.answer) for use in found.uses] == [
        ("fine-tuning, embedding text", True),
        ("fills masks", True),
        ("says whether two sentences follow", True),
    ]


def test_the_vocabulary_is_described(folder: Path) -> None:
    found = _inspect(folder).vocabulary
    assert (found.pieces, found.rows, found.unused) == (97, 97, 7)
    assert (found.cased, found.lower_cases) == (False, True)
    assert found.special_tokens == {
        "[UNK]": 1,
        "[SEP]": 3,
        "[PAD]": 0,
        "[CLS]": 2,
        "[MASK]": 4,
    }
    assert found.missing == []


@pytest.mark.parametrize(
    ("pieces", "problem"),
    [
        (VOCABULARY[:-2], "vocab.txt has 95 pieces, the weights 97 rows: rows without a piece"),
        ([*VOCABULARY, "x"], "98 pieces, the weights 97 rows: this is another model's list"),
        ([*VOCABULARY[:-1], "Water"], "the vocabulary is cased, but the tokenizer lower-cases"),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_said(
    folder: Path, pieces: list[str], problem: str
) -> None:
    _write_vocabulary(folder, pieces)
    assert any(problem in line for line in _inspect(folder).problems)


def test_a_missing_special_token_is_said(folder: Path) -> None:
    _write_vocabulary(folder, [p if p != "[MASK]" else "mask" for p in VOCABULARY])
    assert _inspect(folder).vocabulary.missing == ["[MASK]"]


def test_a_tokenizer_that_keeps_capitals_of_a_lower_cased_list_is_said(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert any("keeps capitals" in line for line in _inspect(folder).problems)


def test_cased_and_lower_cased_vocabularies_are_told_apart(data: Path) -> None:
    google = read_vocabulary(data / "google_zh_vocab.txt")
    # Lower-cased, though seven of its pieces hold capitals: [UNK], <S>, ...
    assert not looks_cased(google)
    assert looks_cased([*google, *"ABCDEFGHIJKLMNOPQRSTUVWXYZ"])
    assert not looks_cased([*google, "Ⅷ", "BERT"])
    assert looks_cased(["[UNK]", "的", "The", "the", "##ing"])
    assert not looks_cased(["[UNK]", "<Entity>", "的", "1", "é"])
    assert not looks_cased([])


def test_shards_halves_and_pickles_are_described(theirs: Any, tmp_path: Path) -> None:
    whole = theirs.num_parameters()
    theirs.half().save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    found = _inspect(tmp_path / "shards")
    assert len(found.files) > 3
    assert found.size == sum(
        p.stat().st_size for p in (tmp_path / "shards").glob("model*safetensors*")
    )
    assert (found.dtypes, found.parameters) == ({"float16": 1.0}, whole)
    (tmp_path / "pickle").mkdir()
    torch.save(theirs.float().state_dict(), tmp_path / "pickle" / "pytorch_model.bin")
    found = _inspect(tmp_path / "pickle")
    assert (found.format, found.parameters) == ("pytorch", whole)
    assert found.decoder == "shared, kept twice"
    assert "config.json is missing" in found.refusal
    assert found.shape["num_attention_heads"] is None
    assert found.shape["num_hidden_layers"] == 3


def test_the_genuine_tensorflow_checkpoint_is_described(data: Path) -> None:
    found = _inspect(data / "fixtures" / "tf1_tiny_bert")
    assert (found.format, found.parameters, len(found.files)) == ("tensorflow", 701, 3)
    assert found.shape["hidden_size"] == 4
    assert any(name.endswith("/adam_m") for name in found.skipped)
    assert found.missing == found.unused == found.problems == ()
    # Its biases are 6e-6 away from zero: a step of a schedule that warms up.
    assert found.heads["masked_words"].word == "trained"
    assert ("fills masks", None) in [(use.what, use.answer) for use in found.uses]


def test_parts_exactly_as_initialised_are_named(folder: Path, shape: dict[str, Any]) -> None:
    fresh = transformers.BertForPreTraining(transformers.BertConfig(**shape)).state_dict()
    with_fresh_layer = {n: t for n, t in fresh.items() if "layer.1." in n or "pooler" in n}
    _edit(folder, lambda tensors: tensors.update(with_fresh_layer))
    found = _inspect(folder)
    assert any("layers exactly as initialised, never trained: 1" in p for p in found.problems)
    assert found.heads["pooler"].word == "random"
    assert "not the pooler's: it is random" in found.uses[0].why
    _edit(folder, lambda t: t.update({n: fresh[n].clone() for n in t}))
    found = _inspect(folder)
    assert found.encoder.word == "random"
    assert [(use.what, use.answer) for use in found.uses] == [("anything but training", False)]


def test_random_and_missing_heads_fill_no_masks(theirs: Any, folder: Path) -> None:
    fresh = transformers.BertForPreTraining(theirs.config).cls.state_dict()
    _edit(
        folder, lambda t: t.update({f"cls.{n}": x for n, x in fresh.items() if "decoder" not in n})
    )
    use = next(use for use in _inspect(folder).uses if use.what == "fills masks")
    assert (use.answer, use.why) == (False, "no trained mask-filling head: train it first")
    _edit(folder, lambda t: [t.pop(n) for n in list(t) if n.startswith("cls.")])
    found = _inspect(folder)
    assert len(found.missing) == 7
    assert next(use for use in found.uses if use.what == "fills masks") == use


def test_a_classifier_is_described_by_the_config(theirs: Any, tmp_path: Path) -> None:
    config = transformers.BertConfig(**theirs.config.to_dict())
    config.id2label = {0: "O", 1: "B", 2: "I"}
    model = transformers.BertForTokenClassification(config)
    model.bert.load_state_dict(theirs.bert.state_dict(), strict=False)
    model.save_pretrained(tmp_path)
    found = _inspect(tmp_path)
    assert found.classifier == "each piece"
    assert found.labels == {"0": "O", "1": "B", "2": "I"}
    assert found.heads["classifier"].word == "random"
    assert found.problems == ()
    _edit_config(tmp_path, id2label={"0": "O"})
    assert "the config names 1 labels, the classifier has 3" in _inspect(tmp_path).problems


def test_a_decoder_of_its_own_is_said_and_counted(folder: Path, theirs: Any) -> None:
    _edit(folder, lambda t: t.update({"cls.predictions.decoder.weight": torch.ones(97, 32)}))
    found = _inspect(folder)
    assert found.decoder == "its own"
    assert found.parameters == theirs.num_parameters() + 97 * 32


def _nothing(folder: Path) -> None:
    pass


def _spoil(folder: Path) -> None:
    def change(tensors: Tensors) -> None:
        tensors["bert.encoder.layer.1.output.dense.weight"][2, 3] = float("inf")

    _edit(folder, change)


def _untie(folder: Path) -> None:
    _edit(folder, lambda t: t.update({"cls.predictions.decoder.weight": torch.ones(97, 32)}))
    _edit_config(folder, tie_word_embeddings=False)


def _rename(folder: Path, old: str, new: str) -> None:
    _edit(folder, lambda t: [t.update({n.replace(old, new): t.pop(n)}) for n in list(t)])


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (_nothing, None),
        (lambda f: _edit_config(f, num_hidden_layers=2), None),
        (lambda f: _edit(f, lambda t: t.pop("cls.seq_relationship.bias")), None),
        (lambda f: _edit(f, lambda t: t.update({"bert.x": torch.ones(2)})), None),
        (lambda f: _edit_config(f, num_hidden_layers=4), "lacks 16 tensors of the encoder"),
        (lambda f: _edit_config(f, vocab_size=98), "vocab_size 98, the tensors 97"),
        (lambda f: _edit_config(f, hidden_size=64), "hidden_size 64, the tensors 32"),
        (lambda f: _edit_config(f, hidden_size=...), "no hidden_size"),
        (lambda f: _edit_config(f, num_attention_heads=5), "not a multiple"),
        (lambda f: _edit_config(f, model_type="albert"), "AlbertModel"),
        (lambda f: (f / "config.json").unlink(), "config.json is missing"),
        (lambda f: (f / "config.json").write_text("{"), "config.json is unreadable"),
        (_spoil, "NaN or infinite numbers in bert.encoder.layer.1.output.dense.weight"),
        (_untie, "a decoder of its own"),
        (lambda f: _rename(f, "bert.embeddings", "electra.embeddings"), "an ELECTRA"),
        (
            lambda f: _edit(f, lambda t: t.update({"bert.pooler.dense.bias": torch.ones(31)})),
            "bert.pooler.dense.bias has the shape (31,), beside the others (32,) fits",
        ),
    ],
)
def test_what_does_not_open_is_refused_for_the_same_reason(
    folder: Path, change: Callable[[Path], Any], refusal: str | None
) -> None:
    change(folder)
    found = _inspect(folder)
    opens = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            BertForPreTraining.from_pretrained(folder, quiet=True)
        except ZhbertError:
            opens = False
    assert opens == (found.refusal is None)
    if refusal is not None:
        assert refusal in found.refusal
        assert [(use.what, use.answer) for use in found.uses] == [("opens in zhbert", False)]


def test_what_is_damaged_is_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ZhbertError, match="damaged, or not a safetensors file"):
        _inspect(folder)


def test_one_line_says_shape_type_and_heads(folder: Path) -> None:
    _edit(folder, lambda t: t.pop("cls.seq_relationship.bias"))
    assert summary_line(open_checkpoint(folder)) == (
        "BERT, 3 layers x 32, 97 pieces, float32 safetensors; masked-word head trained; "
        "sentence-pair head missing"
    )


def test_one_tensor_is_in_memory_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[weakref.ref[Tensor]] = []
    largest = 0

    def watched(path: Path) -> Checkpoint:
        def watch(entry: Entry) -> Entry:
            def read() -> Tensor:
                nonlocal largest
                held = [tensor for ref in given if (tensor := ref()) is not None]
                largest = max(largest, sum(tensor.numel() for tensor in held))
                tensor = entry.read()
                given.append(weakref.ref(tensor))
                return tensor

            return Entry(entry.shape, entry.dtype, read)

        checkpoint = open_checkpoint(path)
        entries = {n: watch(e) for n, e in checkpoint.entries.items()}
        return dataclasses.replace(checkpoint, entries=entries, aliases={})

    monkeypatch.setattr(inspection, "open_checkpoint", watched)
    _inspect(folder)
    assert len(given) > len(load_file(folder / "model.safetensors"))
    # While a vector is read, its head's matrix may be there.
    assert largest <= 32 * 48
