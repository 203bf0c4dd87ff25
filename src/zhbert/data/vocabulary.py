"""Vocabularies and text files: learning a vocabulary, and its coverage of files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zhbert.data.read_options import ReadOptions
from zhbert.data.sources import Source
from zhbert.data.texts import Advance, read_texts, silent
from zhbert.errors import ZhbertError
from zhbert.files import make_folder, sha256_of, write_text
from zhbert.folders import check_file
from zhbert.text.character_sets import characters_of
from zhbert.text.coverage import Coverage, cover
from zhbert.text.learn_vocab import (
    DEFAULT_SIZE,
    TextCounts,
    default_character_sets,
    learn_vocabulary,
)
from zhbert.text.tokenizer import Tokenizer


def train_vocabulary(
    sources: Sequence[Source],
    out: str | Path,
    *,
    size: int = DEFAULT_SIZE,
    min_frequency: int = 2,
    characters: str | None = None,
    special_tokens: Sequence[str] = (),
    reading: ReadOptions | None = None,
    overwrite: bool = False,
    advance: Advance = silent,
) -> dict[str, Any]:
    """Learn a vocabulary from files, write it to ``out`` and return its figures.

    Args:
        sources: the result of ``zhbert.data.sources.find_sources``.
        out: the vocab.txt to write.
        size: maximum number of pieces.
        min_frequency: pieces that occur less often are not learnt.
        characters: comma-separated names of required sets
            (``zhbert.text.character_sets.CHARACTER_SETS``) or files of characters, or ``none``;
            None: the sets that leave half of the rows to the text.
        special_tokens: special tokens besides BERT's five.
        reading: options for reading the files.
        overwrite: replace the file ``out``.
        advance: callback for the progress.

    Raises:
        ZhbertError: a file cannot be read, the size is too small for the required pieces, or
            ``out`` exists without ``overwrite``.
    """
    if min_frequency < 1:
        raise ZhbertError(f"--min-frequency {min_frequency}: must be 1 or more")
    out = Path(out)
    inputs = {f"input {source.name}": source.path for source in sources if source.path is not None}
    check_file(out, overwrite=overwrite, needed=inputs, make_parents=True)
    if characters is None:
        characters = ",".join(default_character_sets(size)) or "none"
    required = characters_of(characters)
    counts = TextCounts()
    # Before reading, check that the size is large enough for the required pieces.
    learn_vocabulary(counts, size=size, characters=required, special_tokens=special_tokens)
    for source in sources:
        counts.add(read_texts([source], reading or ReadOptions(), advance))
    vocabulary = learn_vocabulary(
        counts,
        size=size,
        characters=required,
        min_frequency=min_frequency,
        special_tokens=special_tokens,
    )
    make_folder(out.parent)
    write_text(out, "".join(f"{piece}\n" for piece in vocabulary.pieces))
    return {
        "vocabulary": str(out),
        "size": len(vocabulary.pieces),
        "asked_size": size,
        "sha256": sha256_of(out),
        "files": len(sources),
        "characters": counts.characters,
        "required": characters,
        "words_pruned": counts.pruned,
        "rows": vocabulary.rows,
    }


def coverage_of_files(
    tokenizer: Tokenizer,
    sources: Sequence[Source],
    *,
    reading: ReadOptions | None = None,
    advance: Advance = silent,
) -> dict[str, Coverage]:
    """Count the pieces and unknown characters of each file, by the file's name.

    Raises:
        ZhbertError: a file is missing, empty, or not UTF-8.
    """
    reading = reading or ReadOptions()
    return {
        source.name: cover(tokenizer, read_texts([source], reading, advance)) for source in sources
    }
