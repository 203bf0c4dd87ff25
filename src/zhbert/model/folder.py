"""Model folders: opening with a check that the parts belong together, and atomic writing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from zhbert.errors import ZhbertError
from zhbert.files import atomic_folder
from zhbert.folders import Claim
from zhbert.zoo.layout import ModelFiles, find_model, is_model_alone

if TYPE_CHECKING:
    from zhbert.data.shards import Corpus
    from zhbert.model.config import BertConfig
    from zhbert.model.entry import Entry
    from zhbert.text.tokenizer import Tokenizer

# A model's class in transformers is the first one whose tensors all exist.
_CLASSES = (
    ("BertForQuestionAnswering", ("qa_outputs.weight",)),
    ("BertForSequenceClassification", ("classifier.weight",)),
    ("BertForPreTraining", ("cls.predictions.bias", "cls.seq_relationship.weight")),
    ("BertForMaskedLM", ("cls.predictions.bias",)),
    ("BertForNextSentencePrediction", ("cls.seq_relationship.weight",)),
    ("BertModel", ()),
)
_SPARE_ROWS = 512


@dataclass(frozen=True)
class ModelFolder:
    """A model in any format. Tensors are read, and checked for NaN, on demand."""

    folder: Path
    config: BertConfig
    entries: Mapping[str, Entry]
    tokenizer: Tokenizer

    @property
    def rows(self) -> int:
        """Number of rows of the word embeddings: as many as pieces, or more."""
        return self.config.vocab_size

    def changed(
        self,
        entries: Mapping[str, Entry],
        *,
        tokenizer: Tokenizer | None = None,
        num_layers: int | None = None,
    ) -> ModelFolder:
        """Return the model with other pieces, positions or layers, and a configuration to match.

        Its heads stay, and so does its task, but with rows no longer than the positions.
        """
        from zhbert.model.config import SECTION
        from zhbert.model.names import PER_PIECE, POSITIONS

        config, tokenizer = self.config, tokenizer or self.tokenizer
        other = dict(config.other)
        architectures = other.get("architectures") or []
        if not architectures or not str(architectures[0]).startswith("Bert"):
            # Google's files have no class name, and a BERT with Roberta's names becomes a BERT.
            tags = any(str(name).endswith("ForTokenClassification") for name in architectures)
            name = "BertForTokenClassification" if tags else architecture_of(entries)
            other["architectures"] = [name]
        positions = entries[POSITIONS].shape[0]
        task = other.get(SECTION)
        if isinstance(task, dict) and isinstance(task.get("sequence_length"), int):
            other[SECTION] = {**task, "sequence_length": min(task["sequence_length"], positions)}
        has_padding = "pad_token" in tokenizer.special_tokens
        config = replace(
            config,
            num_hidden_layers=num_layers or config.num_hidden_layers,
            vocab_size=entries[PER_PIECE[0]].shape[0],
            max_position_embeddings=positions,
            pad_token_id=tokenizer.pad_id if has_padding else config.pad_token_id,
            other=other,
        )
        return replace(self, config=config, entries=entries, tokenizer=tokenizer)

    def write(self, out: Path, *, overwrite: bool) -> None:
        """Write config.json, model.safetensors and the tokenizer's files atomically.

        What a sentence model has besides its BERT is copied.
        """
        from zhbert.model.formats.safetensors import write_safetensors
        from zhbert.model.sentence_files import copy_sentence_files

        with atomic_folder(out, replace=overwrite) as temporary:
            self.config.save_pretrained(temporary)
            write_safetensors(temporary, self.entries)
            longest = self.config.max_position_embeddings
            self.tokenizer.save_pretrained(temporary, model_max_length=longest)
            copy_sentence_files(self.folder, temporary, longest)


def open_model_folder(name: str | Path, *, quiet: bool = True) -> ModelFolder:
    """Open a model by any name that ``zhbert.zoo.locate`` accepts.

    Raises:
        ZhbertError: it is not a BERT, has no vocabulary, or has inconsistent parts.
    """
    from zhbert.model.checkpoint import open_checkpoint
    from zhbert.model.config import BertConfig
    from zhbert.model.loading import check_architecture
    from zhbert.model.names import PER_PIECE, POSITIONS
    from zhbert.zoo import locate

    files = find_model(locate(name, quiet=quiet))
    folder = files.folder
    config = BertConfig.from_pretrained(files.config or folder / "config.json")
    checkpoint = open_checkpoint(folder)
    check_architecture(checkpoint, config)
    entries = checkpoint.entries
    for needed, what in ((PER_PIECE[0], "word"), (POSITIONS, "position")):
        if needed not in entries:
            raise ZhbertError(
                f"{checkpoint.file}: no {what} embeddings in it: not a BERT checkpoint"
            )
    for tensor in PER_PIECE:
        rows = entries[tensor].shape[0] if tensor in entries else config.vocab_size
        if rows != config.vocab_size:
            raise ZhbertError(
                f"{checkpoint.file}: {tensor} has {rows:,} rows, the word embeddings "
                f"{config.vocab_size:,}: one of the two is another model's"
            )
    tokenizer = tokenizer_of(files, config.vocab_size)
    if tokenizer is None:
        raise ZhbertError(f"{folder}: no vocab.txt in it; put the model's own there")
    return ModelFolder(folder, config, checkpoint.checked(), tokenizer)


def tokenizer_beside(files: ModelFiles) -> Tokenizer | None:
    """Open the tokenizer next to a model's weights; None if it has no files."""
    from zhbert.text.tokenizer import Tokenizer

    path = files.vocabulary
    if any((files.folder / name).is_file() for name in ("vocab.txt", "tokenizer.json")):
        path = files.folder
    return None if path is None else Tokenizer.from_pretrained(path)


def tokenizer_of(files: ModelFiles, rows: int) -> Tokenizer | None:
    """Open the tokenizer next to a model with ``rows`` word embeddings; check that they fit."""
    tokenizer = tokenizer_beside(files)
    if tokenizer is not None:
        check_vocabulary(files.folder, tokenizer, rows)
    return tokenizer


def check_vocabulary(where: str | Path, tokenizer: Tokenizer, rows: int) -> None:
    """Raise a ZhbertError if a vocabulary does not fit a model with ``rows`` rows.

    Some models have more rows than pieces, padded to a round number, but never hundreds more.
    """
    if not 0 <= rows - len(tokenizer) < _SPARE_ROWS:
        raise ZhbertError(
            f"{where}: the vocabulary has {len(tokenizer):,} pieces, the model {rows:,} rows: this "
            "is another model's vocabulary; put the model's own vocab.txt there"
        )


def check_corpus_vocabulary(model: Path, corpus: Corpus, say: Callable[[str], None]) -> None:
    """Raise a ZhbertError if a corpus was not made with the vocabulary of a model's folder."""
    from zhbert.model.config import BertConfig

    tokenizer = tokenizer_beside(find_model(model))
    if tokenizer is not None:
        theirs = tokenizer.fingerprint()
        if theirs != corpus.fingerprint:
            raise other_vocabulary(corpus, str(model), theirs, len(tokenizer), model)
        return
    size = BertConfig.from_pretrained(model).vocab_size
    if size != corpus.vocabulary_size:
        raise ZhbertError(
            f"{corpus.folder}: made with a vocabulary of {corpus.vocabulary_size:,} pieces, but "
            f"{model} has {size:,} (and no vocab.txt): prepare the corpus with that model's "
            "vocabulary"
        )
    say(f"note: {model} has no vocab.txt; its vocabulary is taken to be the corpus's")


def other_vocabulary(
    corpus: Corpus, what: str, theirs: str, size: int | None, folder: Path
) -> ZhbertError:
    """Return the error about a corpus with a different vocabulary than ``what``."""
    pieces = f"{size:,} pieces, " if size is not None else ""
    return ZhbertError(
        f"{corpus.folder}: made with another vocabulary ({corpus.vocabulary_size:,} pieces, hash "
        f"{corpus.fingerprint[:12]}) than {what} ({pieces}hash {theirs[:12]}): prepare the corpus "
        f"again with --vocab {folder}"
    )


def check_out(
    out: str | Path, source: str | Path, *, overwrite: bool, option: str = "--out"
) -> Path:
    """Return the folder to write, which must be empty, new, or a model that may be replaced.

    ``source`` is the input of the new model, if it is a local file or folder.
    """
    out, source = Path(out), Path(source)
    if out.is_dir() and source.is_dir() and out.samefile(source):
        raise ZhbertError(f"{option} {out}: the model itself; name another folder")
    Claim(
        folder=out,
        what="a model",
        is_ours=is_model_alone,
        overwrite=overwrite,
        needed={"model": source},
        option=option,
    ).check()
    return out


def train_on(out: str | Path, *overrides: str) -> str:
    """Return the advice to continue training a changed model, with the command."""
    command = f"zhbert pretrain continue-domain --corpus CORPUS --out RUN initial_model={out}"
    if is_fine_tuned(out):
        command = f"zhbert finetune TASK --model {out} --data DATA --out RUN"
    return " ".join(("Train it on before use:", command, *overrides))


def is_fine_tuned(folder: str | Path) -> bool:
    """Return whether a model folder's config.json says that the model is of some task."""
    from zhbert.model.config import SECTION, BertConfig

    other = BertConfig.from_pretrained(folder).other
    names = other.get("architectures") or ()
    heads = ("Classification", "QuestionAnswering")
    return SECTION in other or any(str(name).endswith(heads) for name in names)


def architecture_of(entries: Mapping[str, Entry]) -> str:
    """Return transformers' class of these tensors; classifiers cannot be distinguished by them."""
    return next(name for name, heads in _CLASSES if all(head in entries for head in heads))
