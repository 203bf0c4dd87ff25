"""Whole word masks for transformers: in Trainer, in workers, and with every kind of tokenizer."""

from __future__ import annotations

import json
import pickle
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import assume, given, settings
from tests.data import reference_masking as reference
from tests.data.test_masking import UNLIKELY
from tests.small_models import SHAPE
from tests.text.test_added_tokens import PIECES, write_vocabulary
from tests.text.test_words import texts_with_words
from tests.transformers4 import run_with_transformers4
from torch.utils.data import DataLoader
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

import zhbert
from zhbert import Segmenter, Tokenizer, WholeWordMaskCollator
from zhbert.config import MaskingSettings
from zhbert.data.examples import WholeSentenceRows
from zhbert.data.masking import IGNORED, Masker
from zhbert.data.random_streams import MASKS, generator
from zhbert.data.shards import Corpus
from zhbert.data.similar_words import write_similar_words
from zhbert.errors import ZhbertError
from zhbert.hugging_face.tokenizer import ZhbertTokenizer
from zhbert.zoo.packaged import packaged_model

LENGTH = 24
TEXTS = [
    "使用语言模型来预测下一个词的probability。",
    "研究生命的起源，是科学家们的愿望。",
    "  “Café”——２０２６年…… 𠮷野家 naïve😀",
    "哈尔滨是黑龙江的省会，冬天非常寒冷",
    "한국어 とカタカナ",
    "模型",
]


class GivenWords(Segmenter):
    """Words that end where the test says."""

    name, version = "given", "1"

    def __init__(self, ends: list[int]) -> None:
        self.ends, self.options = ends, {}

    def segment(self, texts: Any) -> list[np.ndarray]:
        return [np.array(self.ends, np.int32) for _ in texts]


def masked(collator: WholeWordMaskCollator, *rows: dict[str, Any]) -> list[tuple[list[int], ...]]:
    """The input ids and labels of each row, without padding."""
    batch = collator(rows, return_tensors="np")
    lengths = batch["attention_mask"].sum(1)
    return [
        (ids[:length].tolist(), labels[:length].tolist())
        for ids, labels, length in zip(batch["input_ids"], batch["labels"], lengths, strict=True)
    ]


def original(ids: list[int], labels: list[int]) -> list[int]:
    return [i if label == IGNORED else label for i, label in zip(ids, labels, strict=True)]


def hit(labels: list[int]) -> list[int]:
    return [place for place, label in enumerate(labels) if label != IGNORED]


@pytest.fixture(scope="module")
def folder() -> Path:
    return packaged_model("zhbert-mini")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A small cased vocabulary with added tokens: a fast tokenizer, and one without offsets."""
    path = tmp_path_factory.mktemp("vocabulary")
    write_vocabulary(path, [*PIECES, *"研究生命的"])
    options = {"do_lower_case": False, "strip_accents": False}
    fast = transformers.BertTokenizer(str(path / "vocab.txt"), **options)
    slow = BertTokenizerLegacy(str(path / "vocab.txt"), **options)
    for one in (fast, slow):
        one.add_tokens(["生命", "b12"])
    fast.save_pretrained(path / "fast")
    return {"fast": fast, "slow": slow, "vocabulary": str(path / "vocab.txt")}


# --- Which pieces are predicted


@pytest.mark.parametrize("strategy", ["wwm", "wwm-unbiased", "ngram"])
@given(case=texts_with_words())
@settings(max_examples=100)
def test_a_word_is_masked_whole_or_not_at_all(
    nasty: dict[str, Any], strategy: str, case: tuple[str, list[int]]
) -> None:
    text, ends = case
    text = text.replace("\ud800", "\ufffd")
    fast = nasty["fast"]
    expected = fast(text, return_offsets_mapping=True)
    collator = WholeWordMaskCollator(fast, segmenter=GivenWords(ends), strategy=strategy, rate=0.5)
    ((ids, labels),) = masked(collator, {"text": text})
    assert original(ids, labels) == expected["input_ids"]
    places = [start for start, _ in expected["offset_mapping"]]
    for place in range(2, len(ids) - 1):
        boundary = any(places[place - 1] < end <= places[place] for end in ends)
        marks = {ids[place], ids[place - 1]} & set(fast.all_special_ids) - {fast.unk_token_id}
        if not boundary and not marks - {fast.mask_token_id}:
            assert (labels[place] == IGNORED) == (labels[place - 1] == IGNORED)


@given(case=texts_with_words())
@settings(max_examples=200)
def test_tokenizers_without_offsets_get_the_same_masks(
    nasty: dict[str, Any], case: tuple[str, list[int]]
) -> None:
    text, ends = case
    rows = {}
    for name in ("fast", "slow"):
        collator = WholeWordMaskCollator(nasty[name], segmenter=GivenWords(ends), rate=0.5)
        collator.set_epoch(0)
        ((ids, labels),) = masked(collator, {"text": text})
        rows[name] = original(ids, labels), labels
    # Python's older rules differ for a few characters.
    assume(rows["fast"][0] == rows["slow"][0])
    assert rows["fast"] == rows["slow"]


def test_ours_give_the_same_masks(folder: Path, tokenizer: Any) -> None:
    for text in TEXTS:
        found = []
        ours = (kind.from_pretrained(folder) for kind in (Tokenizer, ZhbertTokenizer))
        for one in (tokenizer, *ours):
            collator = WholeWordMaskCollator(one, seed=3, rate=0.4)
            collator.set_epoch(1)
            found += masked(collator, {"text": text})
        assert found[0] == found[1] == found[2]


def test_pieces_that_only_one_of_the_two_has_are_aligned_by_their_neighbours(
    nasty: dict[str, Any],
) -> None:
    # A tokenizer whose rules are not BERT's: it leaves out full stops, and doubles 冠.
    class Odd(BertTokenizerLegacy):
        def _tokenize(self, text: str, *arguments: Any, **options: Any) -> list[str]:
            pieces = super()._tokenize(text, *arguments, **options)
            return [p for piece in pieces if piece != "." for p in [piece] * (1 + (piece == "冠"))]

    odd = Odd(nasty["vocabulary"], do_lower_case=False)
    text, ends = "他.说好新冠12ab", [2, 4, 6, 8, 10]
    collator = WholeWordMaskCollator(odd, segmenter=GivenWords(ends))
    assert odd.tokenize(text) == ["他", "说", "好", "新", "冠", "冠", "12", "##ab"]
    (segment,) = collator._source.segments([text], [np.array(ends)])
    assert segment.word_starts.tolist() == [True, True, False, True, False, False, True, True]


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "char"},
        {"strategy": "wwm"},
        {"strategy": "wwm-unbiased", "rate": 0.3},
        {"strategy": "ngram", "per_word": True},
        {"char_share": 0.5, "mask_share": 0.5, "random_share": 0.5},
        {"random_pieces": "all", "max_predictions": 2},
        {"strategy": "mac", "rate": 0.5},
    ],
    ids=str,
)
def test_masks_are_those_of_pretraining(
    corpus: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    seed, epoch = 5, 2
    shards = Corpus.open(corpus).shards("train")
    tokenizer = Corpus.open(corpus).tokenizer()
    if options.get("strategy") == "mac":
        similar = [((a,), (a + 1,), 0.5) for a in range(5, 50)]
        similar += [((a, a + 1), (a + 1, a + 2), 0.5) for a in range(5, 50)]
        write_similar_words(tmp_path / "similar.tsv", tokenizer.vocabulary, similar)
        options = options | {"similar_words": str(tmp_path / "similar.tsv")}
    masker = Masker(MaskingSettings(**{"max_predictions": LENGTH, **options}), tokenizer.vocabulary)
    cls, sep = masker.vocabulary.cls_id, masker.vocabulary.sep_id
    rows = WholeSentenceRows(shards, cls_id=cls, sep_id=sep, sequence_length=LENGTH, lines=False)
    expected = []
    for number in range(rows.count(epoch)):
        rng = generator(seed, MASKS, epoch, number)
        row = rows.row(epoch, number, rng)
        labels = masker.mask(row.piece_ids, row.word_starts, rng)
        expected.append((row.piece_ids.tolist(), labels.tolist()))
    table = zhbert.load_corpus(corpus, sequence_length=LENGTH)["train"]
    for one in (tokenizer, transformers.BertTokenizer(str(corpus / "vocab.txt"))):
        collator = WholeWordMaskCollator(one, sequence_length=LENGTH, seed=seed, **options)
        collator.set_epoch(epoch)
        assert masked(pickle.loads(pickle.dumps(collator)), *table.to_pylist()) == expected


def test_special_tokens_of_a_text_are_not_predicted(tokenizer: Any) -> None:
    collator = WholeWordMaskCollator(tokenizer, rate=1.0)
    for text in ("使用[MASK]语言[SEP]模型", "[CLS][PAD]"):
        ((ids, labels),) = masked(collator, {"text": text})
        restored = original(ids, labels)
        assert restored == tokenizer(text)["input_ids"]
        special = [piece in tokenizer.all_special_ids for piece in restored]
        assert [label == IGNORED for label in labels] == special


def test_transformers_takes_a_chinese_sentence_for_one_word(tokenizer: Any) -> None:
    """What this collator is for: theirs masks six pieces of three words or none."""
    theirs = transformers.DataCollatorForLanguageModeling(
        tokenizer,
        mlm_probability=0.1,
        whole_word_mask=True,
        mask_replace_prob=1.0,
        random_replace_prob=0.0,
    )
    torch.manual_seed(0)
    row = tokenizer("使用语言模型", return_offsets_mapping=True, return_special_tokens_mask=True)
    drawn = [hit(theirs([dict(row)])["labels"][0].tolist()) for _ in range(30)]
    assert {len(places) for places in drawn} == {0, 6}


def test_special_tokens_may_have_other_names(tmp_path: Path) -> None:
    names = {"<pad>": "pad", "<unk>": "unk", "<s>": "cls", "</s>": "sep", "<mask>": "mask"}
    write_vocabulary(tmp_path, ["[MASK]", "[UNK]", *names, *"使用语言模型"])
    given = {f"{name}_token": token for token, name in names.items()}
    tokenizer = transformers.BertTokenizer(str(tmp_path / "vocab.txt"), **given)
    collator = WholeWordMaskCollator(tokenizer, rate=0.5, mask_share=1.0, random_share=0.0)
    ((ids, labels),) = masked(collator, {"text": "使用语言模型"})
    assert original(ids, labels) == [4, *range(7, 13), 5]
    assert {ids[place] for place in hit(labels)} == {6}


# --- What a row can be


def test_tokenized_rows_have_the_masks_of_their_texts(tokenizer: Any) -> None:
    collator = WholeWordMaskCollator(tokenizer, rate=0.5)
    collator.set_epoch(0)
    pairs = [{"text": a, "text_pair": b} for a, b in zip(TEXTS, TEXTS[::-1], strict=True)]
    singles = [{"text": text} for text in TEXTS]
    for rows in (pairs, singles):
        expected = masked(collator, *rows)
        for options in ({"return_offsets_mapping": True, "padding": "max_length"}, {}):
            tokenized = [
                row | tokenizer(*row.values(), max_length=90, **options).data for row in rows
            ]
            assert masked(collator, *tokenized) == expected
        token_types = collator(rows)["token_type_ids"].tolist()
        assert token_types == tokenizer([*map(list, map(dict.values, rows))] if rows is pairs
                                        else TEXTS, padding=True)["token_type_ids"]  # fmt: skip


def test_rows_segmented_before_have_the_same_masks(tokenizer: Any) -> None:
    collator = WholeWordMaskCollator(tokenizer, rate=0.5)
    collator.set_epoch(0)
    ends = collator.segmenter.segment(TEXTS)
    segments = collator._source.segments(TEXTS, ends)
    stored = [{"pieces": ids, "word_starts": starts} for ids, starts in segments]
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    whole = [
        {"input_ids": [cls, *ids, sep], "word_starts": [True, *starts, True]}
        for ids, starts in segments
    ]
    expected = masked(collator, *({"text": text} for text in TEXTS))
    assert masked(collator, *stored) == masked(collator, *whole) == expected


def test_long_texts_are_cut_before_a_word(tokenizer: Any) -> None:
    text = "使用语言模型"
    for length, kept in ((8, text), (7, "使用语言"), (6, "使用语言"), (5, "使用")):
        ((ids, labels),) = masked(
            WholeWordMaskCollator(tokenizer, sequence_length=length), {"text": text}
        )
        assert original(ids, labels) == tokenizer(kept)["input_ids"]
    # One word, longer than a row.
    collator = WholeWordMaskCollator(tokenizer, sequence_length=5, segmenter=GivenWords([6]))
    assert len(masked(collator, {"text": text})[0][0]) == 5


def test_pairs_are_cut_by_words_until_they_fit(tokenizer: Any) -> None:
    collator = WholeWordMaskCollator(tokenizer, sequence_length=11)
    row = {"text": "使用语言模型", "text_pair": "研究生命起源"}
    ((ids, labels),) = masked(collator, row)
    first, second = "".join(tokenizer.convert_ids_to_tokens(original(ids, labels))).split("[SEP]")[
        :2
    ]
    assert first.removeprefix("[CLS]") in ("使用语言", "语言模型")
    assert second in ("研究生命", "生命起源")


def test_masked_rows_are_only_padded(tokenizer: Any) -> None:
    collator = WholeWordMaskCollator(tokenizer, pad_to_multiple_of=16)
    rows = collator.mask([{"text": text} for text in TEXTS])
    batch = collator(rows)
    assert batch["input_ids"].shape[1] % 16 == 0
    for number, row in enumerate(rows):
        for name in ("input_ids", "labels"):
            length = len(row[name])
            assert batch[name][number, :length].tolist() == row[name].tolist()
            padding = tokenizer.pad_token_id if name == "input_ids" else IGNORED
            assert set(batch[name][number, length:].tolist()) <= {padding}
        assert batch["attention_mask"][number].sum() == len(row["input_ids"])


# --- Seeds, epochs, rows, workers


# A plain list, since a spawned process cannot import a test.
ROWS = [{"text": text + str(number)} for number in range(4) for text in TEXTS]


def rows_of(batches: Any) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The text's pieces and the predicted places of each row of some batches."""
    for batch in batches:
        for ids, labels, length in zip(
            batch["input_ids"], batch["labels"], batch["attention_mask"].sum(1), strict=True
        ):
            row = ids[:length].tolist(), labels[:length].tolist()
            yield tuple(original(*row)), (*row[0], *row[1])


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")
@pytest.mark.parametrize(("method", "workers"), [("fork", 2), ("spawn", 1)])
def test_masks_depend_on_seed_epoch_and_row_alone(
    tokenizer: Any, method: str, workers: int
) -> None:
    here = WholeWordMaskCollator(tokenizer, seed=4, rate=0.4)
    there = WholeWordMaskCollator(tokenizer, seed=4, rate=0.4)
    loader = DataLoader(
        ROWS,
        batch_size=5,
        shuffle=True,
        num_workers=workers,
        persistent_workers=True,
        multiprocessing_context=method,
        collate_fn=there,
    )
    epochs = []
    # The second epoch twice, as if a run had been resumed there.
    for epoch in (0, 1, 2, 1):
        here.set_epoch(epoch)
        there.set_epoch(epoch)
        expected = dict(rows_of([here(ROWS)]))
        assert dict(rows_of(loader)) == expected
        epochs.append(expected)
    assert epochs[1] == epochs[3]
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert sum(epochs[one][row] != epochs[other][row] for row in epochs[0]) > 15
    other = WholeWordMaskCollator(tokenizer, seed=5)
    other.set_epoch(0)
    assert dict(rows_of([other(ROWS)])) != epochs[0]


def test_without_an_epoch_masks_are_new_in_every_batch(tokenizer: Any) -> None:
    collator = WholeWordMaskCollator(tokenizer)
    torch.manual_seed(1)
    first, second = (masked(collator, *ROWS) for _ in range(2))
    assert first != second
    torch.manual_seed(1)
    assert masked(collator, *ROWS) == first


def test_static_masks_come_again(tokenizer: Any) -> None:
    collator = WholeWordMaskCollator(tokenizer, static_masks=2)
    epochs = []
    for epoch in range(4):
        collator.set_epoch(epoch)
        epochs.append(masked(collator, *ROWS))
    assert epochs[0] == epochs[2] != epochs[1] == epochs[3]


def test_rows_of_equal_pieces_differ_by_their_number(tokenizer: Any) -> None:
    collator = WholeWordMaskCollator(tokenizer)
    collator.set_epoch(0)
    alike = masked(collator, *({"text": TEXTS[0]} for _ in range(8)))
    assert len({str(row) for row in alike}) == 1
    numbered = masked(collator, *({"text": TEXTS[0], "row": number} for number in range(8)))
    assert len({str(row) for row in numbered}) > 4


def test_a_user_dictionary_reaches_another_process(tokenizer: Any, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("使用语言模型\n", encoding="utf-8")
    segmenter = zhbert.load_segmenter("jieba", user_words=words)
    collator = WholeWordMaskCollator(tokenizer, segmenter=segmenter, rate=0.75)
    copy = pickle.loads(pickle.dumps(collator))
    ((_, labels),) = masked(copy, {"text": "使用语言模型"})
    assert hit(labels) == [*range(1, 7)]


# --- transformers' Trainer


def make_trainer(folder: Path, rows: Any, collator: Any, vocabulary: int, **options: Any) -> Any:
    """A Trainer of a tiny model, and the list of the batches that its model will see."""
    torch.manual_seed(0)
    model = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=vocabulary, **SHAPE))
    seen: list[dict[str, torch.Tensor]] = []
    model.register_forward_pre_hook(lambda _, __, batch: seen.append(dict(batch)), with_kwargs=True)
    arguments = {
        "max_steps": 20,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "report_to": [],
        "remove_unused_columns": False,
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "save_strategy": "no",
    }
    trainer = transformers.Trainer(
        model,
        transformers.TrainingArguments(str(folder), **(arguments | options)),
        train_dataset=rows,
        data_collator=collator,
        callbacks=[collator.trainer_callback()],
    )
    return trainer, seen


def test_trainer_trains_on_masks_distributed_as_the_reference_s(
    corpus: Path, tmp_path: Path
) -> None:
    import datasets

    tables = zhbert.load_corpus(corpus, sequence_length=LENGTH)
    tokenizer, table = tables.tokenizer, tables["train"]
    collator = WholeWordMaskCollator(tokenizer, sequence_length=LENGTH, rate=0.3)
    rows = datasets.Dataset(table)
    trainer, seen = make_trainer(
        tmp_path, rows, collator, len(tokenizer), per_device_train_batch_size=64
    )
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert len(seen) == 20
    assert all(np.isfinite(losses))
    marks = {tokenizer.cls_id, tokenizer.sep_id}
    starts = {}
    for row in table.to_pylist():
        pieces = np.insert(row["pieces"], row["document_starts"], tokenizer.sep_id)
        words = np.insert(row["word_starts"], row["document_starts"], True)
        starts[(tokenizer.cls_id, *pieces, tokenizer.sep_id)] = [True, *words, True]
    ours: dict[str, Counter[Any]] = {"pieces": Counter(), "lengths": Counter()}
    theirs: dict[str, Counter[Any]] = {"pieces": Counter(), "lengths": Counter()}
    actions: Counter[str] = Counter()
    rng = random.Random(1)
    masks: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
    for row, both in rows_of(seen):
        ids, labels = both[: len(row)], both[len(row) :]
        positions = set(hit(list(labels)))
        masks.setdefault(row, set()).add(tuple(sorted(positions)))
        words = [w for part in reference.words_of(row, starts[row], marks) for w in part]
        chosen = [word for word in words if positions & set(word)]
        assert positions == {place for word in chosen for place in word}
        expected = reference.choose(row, starts[row], marks, strategy="wwm", rate=0.3, rng=rng)
        for counts, some in ((ours, chosen), (theirs, expected)):
            counts["pieces"][len(row), sum(map(len, some))] += 1
            counts["lengths"][len(some[0])] += 1
        for place in positions:
            kept = "kept" if ids[place] == row[place] else "random"
            actions["mask" if ids[place] == tokenizer.mask_id else kept] += 1
    for name in ours:
        assert reference.two_sample_p(ours[name], theirs[name]) > UNLIKELY, name
    # A random piece may be the piece itself.
    same = 0.1 / 55
    due = [0.8, 0.1 - same, 0.1 + same]
    observed = [actions[name] for name in ("mask", "random", "kept")]
    assert reference.chi_square_p(observed, [p * actions.total() for p in due]) > UNLIKELY
    # New masks in every epoch.
    assert np.mean([len(different) for different in masks.values()]) > 8


def test_a_resumed_trainer_sees_the_batches_of_one_that_went_on(
    tokenizer: Any, tmp_path: Path
) -> None:
    batches = []
    for resumed in (False, True):
        collator = WholeWordMaskCollator(tokenizer, seed=2)
        trainer, seen = make_trainer(
            tmp_path, ROWS, collator, len(tokenizer),
            max_steps=8, save_strategy="steps", save_steps=5,
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5") if resumed else None)
        batches.append([batch["labels"].tolist() for batch in seen])
    # Three steps an epoch: in the middle of the second.
    assert len(batches[1]) == 3
    assert batches[1] == batches[0][5:]


def test_dropped_columns_are_explained_in_one_line(tokenizer: Any, tmp_path: Path) -> None:
    collator = WholeWordMaskCollator(tokenizer)
    rows = [{"text": text, **tokenizer(text).data} for text in TEXTS]
    trainer, _ = make_trainer(tmp_path, rows, collator, len(tokenizer), remove_unused_columns=True)
    with pytest.raises(ZhbertError, match=r"no 'text' \(columns: .*remove_unused_columns=False"):
        trainer.train()


def test_trainer_refuses_a_dataset_of_texts_alone(tokenizer: Any, tmp_path: Path) -> None:
    import datasets

    rows = datasets.Dataset.from_dict({"text": TEXTS})
    collator = WholeWordMaskCollator(tokenizer)
    trainer, _ = make_trainer(tmp_path, rows, collator, len(tokenizer), remove_unused_columns=True)
    with pytest.raises(ValueError, match="No columns in the dataset"):
        trainer.train()


TRANSFORMERS4 = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
import transformers
transformers.utils.import_utils._datasets_available = False  # that here is for transformers 5
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertTokenizer
from transformers import Trainer, TrainingArguments
import zhbert
texts = json.loads(sys.argv[3])
epochs, result = [], {"version": transformers.__version__, "masks": []}
for kind in (AutoTokenizer, BertTokenizer):
    collator = zhbert.WholeWordMaskCollator(kind.from_pretrained(sys.argv[2]), seed=6)
    model = BertForMaskedLM(BertConfig(len(collator.tokenizer), **json.loads(sys.argv[5])))
    seen = []
    model.register_forward_pre_hook(
        lambda _, __, batch: seen.append((int(collator._epoch), batch["labels"].tolist())),
        with_kwargs=True,
    )
    arguments = TrainingArguments(
        sys.argv[4], num_train_epochs=2, per_device_train_batch_size=len(texts), report_to=[],
        remove_unused_columns=False, use_cpu=True, disable_tqdm=True, save_strategy="no",
        dataloader_pin_memory=False,
    )
    rows = [{"text": text} for text in texts]
    Trainer(model, arguments, train_dataset=rows, data_collator=collator,
            callbacks=[collator.trainer_callback()]).train()
    result["masks"].append([(epoch, sorted(labels)) for epoch, labels in seen])
"""


def test_transformers_4_trains_with_the_same_masks(
    folder: Path, tokenizer: Any, tmp_path: Path
) -> None:
    theirs = run_with_transformers4(
        TRANSFORMERS4,
        str(Path(zhbert.__file__).parents[1]),
        str(folder),
        json.dumps(TEXTS),
        str(tmp_path),
        json.dumps(SHAPE),
    )
    assert theirs["version"].startswith("4.")
    collator = WholeWordMaskCollator(tokenizer, seed=6)
    expected = []
    for epoch in range(2):
        collator.set_epoch(epoch)
        labels = collator([{"text": text} for text in TEXTS])["labels"].tolist()
        expected.append([epoch, sorted(labels)])
    # Its fast tokenizer, and its Python one.
    assert theirs["masks"] == [expected, expected]


# --- Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategie": "wwm"}, "unknown key 'strategie'"),
        ({"strategy": "words"}, "strategy = .words"),
        ({"rate": 1.5}, "rate = 1.5"),
        ({"rate": "much"}, "rate"),
        ({"final_rate": 0.3}, "final_rate"),
        ({"sequence_length": 2}, "sequence_length = 2"),
        ({"seed": -1}, "seed = -1"),
        ({"return_tensors": "tf"}, "return_tensors"),
        ({"segmenter": "words"}, "unknown segmenter"),
    ],
)
def test_bad_settings_are_refused(tokenizer: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ZhbertError, match=message) as error:
        WholeWordMaskCollator(tokenizer, **options)
    assert "\n" not in str(error.value)


def test_a_name_is_no_tokenizer() -> None:
    with pytest.raises(ZhbertError, match=r"tokenizer = .mini.: a tokenizer is needed"):
        WholeWordMaskCollator("mini")


def test_bad_rows_are_refused(tokenizer: Any) -> None:
    collator = WholeWordMaskCollator(tokenizer)
    for row, message in (
        ({}, "no 'text' .columns: none"),
        ({"text": None}, "text is NoneType"),
        ({"text": "使用", "row": -1}, "row = -1"),
    ):
        with pytest.raises(ZhbertError, match=message):
            collator([row])
    with pytest.raises(ZhbertError, match="epoch = -1"):
        collator.set_epoch(-1)


def test_a_missing_transformers_is_named(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collator = WholeWordMaskCollator(Corpus.open(corpus).tokenizer())
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ZhbertError, match="pip install transformers"):
        collator.trainer_callback()


def test_a_tokenizer_that_is_not_bert_s_is_refused(tmp_path: Path) -> None:
    class Words(transformers.PreTrainedTokenizer):
        vocab_size = 3

        def get_vocab(self) -> dict[str, int]:
            return {"[CLS]": 0, "[SEP]": 1, "[MASK]": 2, "a": 3}

        def _tokenize(self, text: str, **_: Any) -> list[str]:
            return text.split()

        def _convert_token_to_id(self, token: str) -> int:
            return self.get_vocab().get(token, 3)

        def save_vocabulary(self, *_: Any, **__: Any) -> tuple[str, ...]:
            return ()

    words = Words(cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")
    with pytest.raises(ZhbertError, match="Words: gives no offsets"):
        WholeWordMaskCollator(words)([{"text": "a a"}])
