"""Give a model more pieces.

zhbert vocab extend MODEL --with words.txt --out DIR
zhbert vocab extend MODEL --with corpus/ --at-most 500 --out DIR
zhbert vocab extend MODEL --from-text law.txt --min-frequency 20 --out DIR

--with is a list, one word or piece (##ing) a line, all of which is taken; or a
corpus folder of 'zhbert prepare'. --from-text is prose. (Which of the two a
file is, the option says: a line of prose is no word.) Prose and a corpus give
first the characters that are [UNK], then the words that are cut into several
pieces, those first that save most pieces. What was [UNK] when a corpus was
prepared is lost there: its text says more.

A new row is the mean of the rows of the pieces that the word was cut into, and
so is its bias for masked words. Trained rows stay bit for bit, and text without
new pieces gives the same outputs as before. New ids come after the old ones;
where a model has more rows than pieces, these spare rows are used first.

Words are folded as the model's tokenizer folds text (lower case if uncased). A
word of several Han characters cannot be a piece: BERT's tokenizer cuts at each.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhbert.errors import ZhbertError
from zhbert.files import read_text
from zhbert.wording import counted, without_secrets

if TYPE_CHECKING:
    from zhbert.data.read_options import ReadOptions
    from zhbert.data.shards import Corpus
    from zhbert.text.extend_vocab import Admission
    from zhbert.text.tokenizer import Tokenizer

AT_MOST = 1000
MIN_FREQUENCY = 10
# Rows of the table of new pieces, and words named in a remark; --json has them all.
_SHOWN = 10
_NAMED = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the action's arguments."""
    parser.add_argument("model", metavar="MODEL", help="a folder, an archive or a name")
    parser.add_argument("--out", required=True, metavar="DIR", help="the model folder to write")
    parser.add_argument(
        "--with", dest="source", metavar="PATH",
        help="a list (UTF-8, a word or piece a line) or a corpus folder",
    )  # fmt: skip
    parser.add_argument(
        "--from-text", nargs="+", metavar="FILE",
        help="text, jsonl or parquet, compressed or not, or a folder of these",
    )  # fmt: skip
    parser.add_argument(
        "--at-most", type=int, metavar="N",
        help=f"from text or a corpus, add at most N pieces (default {AT_MOST})",
    )  # fmt: skip
    parser.add_argument(
        "--min-frequency", type=int, metavar="K",
        help="... and nothing that occurs less often: a row that few texts train stays poor "
        f"(default {MIN_FREQUENCY})",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace a model in DIR")


def run(args: argparse.Namespace) -> int:
    """Extend, and print what was added."""
    from zhbert.console import print_json

    result = extend_vocabulary(
        args.model,
        args.out,
        source=args.source,
        from_text=args.from_text or (),
        at_most=args.at_most,
        min_frequency=args.min_frequency,
        field=args.field,
        encoding=args.encoding,
        overwrite=args.overwrite,
        quiet=args.quiet or args.json,
    )
    if args.json:
        print_json(result)
    else:
        _print(result, args.quiet)
    return 0


def extend_vocabulary(
    model: str | Path,
    out: str | Path,
    *,
    source: str | Path | None = None,
    from_text: Sequence[str | Path] = (),
    at_most: int | None = None,
    min_frequency: int | None = None,
    field: str | None = None,
    encoding: str | None = None,
    overwrite: bool = False,
    quiet: bool = True,
) -> dict[str, Any]:
    """Write the model with more pieces to ``out``; return what was added.

    Args:
        model: what ``zhbert.zoo.locate`` understands.
        source: a list file or a corpus folder.
        from_text: files of prose.
        at_most: pieces taken from prose or a corpus (1,000).
        min_frequency: how often they must occur there (10).

    Raises:
        ZhbertError: nothing to add, or something that cannot be read.
    """
    from zhbert.data.read_options import ReadOptions
    from zhbert.model.folder import check_out, open_model_folder
    from zhbert.surgery.entries import extend_rows
    from zhbert.text.extend_vocab import admit, ids_of_piece, with_pieces

    reading = ReadOptions(field=field, encoding=encoding)
    is_corpus = source is not None and Path(source).is_dir()
    _check_options(source, from_text, at_most, min_frequency, is_corpus)
    out = check_out(out, model, overwrite=overwrite)
    words = _read_list(Path(source)) if source is not None and not is_corpus else []
    opened = open_model_folder(model, quiet=quiet)
    old = opened.tokenizer
    found = admit(old, words)
    counts = _counted(opened.tokenizer, source if is_corpus else None, from_text, reading, quiet)
    asked = _asked_for(old, counts, found.new, at_most, min_frequency)
    added = [*found.new, *asked]
    if not added:
        raise ZhbertError(_nothing_to_add(found, source, from_text, min_frequency, model))
    sources = [ids_of_piece(old, piece) for piece in added]
    new = with_pieces(old, [*old.vocabulary, *added])
    entries = extend_rows(opened.entries, sources, first=len(old))
    coverage = _coverage(old, new, from_text, reading, quiet) if from_text else None
    grown = opened.changed(entries, tokenizer=new)
    grown.write(out, overwrite=overwrite)
    result: dict[str, Any] = {
        "model": without_secrets(str(model)),
        "out": str(out),
        "pieces": len(new),
        "pieces_before": len(old),
        "rows": grown.rows,
        "rows_before": opened.rows,
        "added": [
            {
                "piece": piece,
                "id": number,
                "count": asked.get(piece),
                "was": [old.vocabulary[row] for row in rows],
                "was_unknown": rows == [old.unk_id],
            }
            for number, (piece, rows) in enumerate(zip(added, sources, strict=True), len(old))
        ],
        "unknown_before": sum(rows == [old.unk_id] for rows in sources),
        "known": found.known,
        "refused": found.refused,
        "without_inner_form": _without_inner_form(new),
    }
    return result if coverage is None else {**result, "coverage": coverage}


def _check_options(
    source: str | Path | None,
    from_text: Sequence[str | Path],
    at_most: int | None,
    min_frequency: int | None,
    is_corpus: bool,
) -> None:
    if source is None and not from_text:
        raise ZhbertError("nothing to add: give --with LIST, --with CORPUS or --from-text FILES")
    if "-" in map(str, from_text):
        raise ZhbertError("--from-text reads its text twice: write stdin to a file first")
    for name, value in (("at-most", at_most), ("min-frequency", min_frequency)):
        if value is not None and value < 1:
            raise ZhbertError(f"--{name} {value}: must be 1 or more")
        if value is not None and not (is_corpus or from_text):
            raise ZhbertError(f"--{name} is for --from-text and a corpus; of a list, all is taken")


# --- what to add --------------------------------------------------------------------------------


def _read_list(path: Path) -> list[str]:
    """The lines of a list, without blank ones."""
    text = read_text(path, "a list of words")
    words = [line.strip() for line in text.splitlines() if line.strip()]
    if not words:
        raise ZhbertError(f"{path}: empty; it needs a word or a piece a line")
    return words


def _counted(
    tokenizer: Tokenizer,
    corpus: str | Path | None,
    files: Sequence[str | Path],
    reading: ReadOptions,
    quiet: bool,
) -> Counter[str]:
    """The words of a corpus folder and of files that are not one piece, or may not be."""
    from zhbert.data.shards import Corpus
    from zhbert.options import all_texts
    from zhbert.text.extend_vocab import CutWords, fold_counts

    words: Counter[str] = Counter()
    if corpus is not None:
        spellings = corpus_words(Corpus.open(corpus))
        words += fold_counts(spellings, tokenizer.options)
    if files:
        cut = CutWords(tokenizer)
        for text in all_texts(files, reading, doing="counting", quiet=quiet):
            cut.add(text)
        words += cut.folded()
    return words


def corpus_words(corpus: Corpus) -> Counter[str]:
    """How often each word of a corpus occurs: a word as the tokenizer sees it, not a segmenter.

    The corpus holds pieces; those of a word, joined, are the word again as its tokenizer folded
    it. What was [UNK] there is lost.
    """
    import numpy as np

    from zhbert.data.shards import SPLITS
    from zhbert.text.wordpiece import CONTINUATION

    tokenizer = corpus.tokenizer()
    plain = [piece.removeprefix(CONTINUATION) or piece for piece in tokenizer.vocabulary]
    pairs = zip(plain, tokenizer.vocabulary, strict=True)
    inside = np.array([one != piece for one, piece in pairs])
    special = set(tokenizer.special_ids)
    words: Counter[str] = Counter()
    for split in SPLITS:
        for shard in corpus.shards(split):
            pieces = np.asarray(shard.pieces)
            first = np.flatnonzero(~inside[pieces])
            sizes = np.diff(np.append(first, len(pieces)))
            alone = np.bincount(pieces[first[sizes == 1]])
            for piece in np.flatnonzero(alone).tolist():
                if piece not in special:
                    words[plain[piece]] += int(alone[piece])
            # Longer words of one size at a time: a table of them, and its distinct rows.
            for size in np.unique(sizes[sizes > 1]).tolist():
                table = pieces[first[sizes == size][:, None] + np.arange(size)]
                rows, counts = np.unique(table, axis=0, return_counts=True)
                for row, count in zip(rows.tolist(), counts.tolist(), strict=True):
                    words["".join(plain[piece] for piece in row)] += count
    return words


def _asked_for(
    tokenizer: Tokenizer,
    words: Counter[str],
    listed: Sequence[str],
    at_most: int | None,
    min_frequency: int | None,
) -> dict[str, int]:
    """What text asks for beyond the list, with its counts."""
    from zhbert.text.extend_vocab import pieces_for, with_pieces

    return pieces_for(
        with_pieces(tokenizer, [*tokenizer.vocabulary, *listed]),
        words,
        at_most=AT_MOST if at_most is None else at_most,
        min_frequency=MIN_FREQUENCY if min_frequency is None else min_frequency,
    )


def _nothing_to_add(
    found: Admission,
    source: str | Path | None,
    from_text: Sequence[str | Path],
    min_frequency: int | None,
    model: str | Path,
) -> str:
    where = str(source) if source is not None else ", ".join(map(str, from_text))
    reasons = []
    if found.known:
        reasons.append(f"{model} has {len(found.known):,} of its words already")
    reasons += [f"{len(words):,} cannot be pieces ({why})" for why, words in found.refused.items()]
    if found.refused:
        reasons.append("prose goes with --from-text FILE")
    if not reasons:
        least = MIN_FREQUENCY if min_frequency is None else min_frequency
        reasons.append(
            f"no word that {model} cuts, and no character that it lacks, occurs {least} times "
            "(--min-frequency)"
        )
    return f"{where}: nothing to add: {'; '.join(reasons)}"


def _without_inner_form(tokenizer: Tokenizer) -> list[str]:
    """Characters inside pieces that have no ``##`` form: a word cut before one becomes [UNK]."""
    from zhbert.text.normalize import code_points
    from zhbert.text.wordpiece import CONTINUATION

    points = code_points()
    inner = {
        character
        for piece in tokenizer.vocabulary
        for character in piece.removeprefix(CONTINUATION)[not piece.startswith(CONTINUATION) :]
        # Special tokens and [unused1] are cut at their brackets.
        if points.punctuation.isdisjoint(piece) or piece.startswith(CONTINUATION)
    }
    inner -= points.chinese | points.punctuation | points.spaces
    return sorted(c for c in inner if tokenizer.id_of(CONTINUATION + c) is None)


def _coverage(
    old: Tokenizer,
    new: Tokenizer,
    files: Sequence[str | Path],
    reading: ReadOptions,
    quiet: bool,
) -> dict[str, Any]:
    from zhbert.options import all_texts
    from zhbert.text.coverage import Coverage, cover

    before, after = Coverage(), Coverage()
    for text in all_texts(files, reading, doing="comparing", quiet=quiet):
        before += cover(old, [text])
        after += cover(new, [text])
    return {
        "characters": before.characters,
        "before": before.figures(),
        "after": after.figures(),
    }


# --- printing -----------------------------------------------------------------------------------


def _print(result: dict[str, Any], quiet: bool) -> None:
    from zhbert.console import err, out
    from zhbert.jobs.shrink import print_coverage

    console = out()
    if not quiet:
        for line in _remarks(result):
            err().print(line)
        _print_table(result["added"])
        if coverage := result.get("coverage"):
            print_coverage(coverage)
    console.print(
        f"{result['out']}: {counted(len(result['added']), 'new piece')}, "
        f"{result['pieces']:,} in all ({counted(result['rows'], 'row')}, "
        f"{result['rows_before']:,} before)",
    )
    if not quiet:
        folder = result["out"]
        console.print(
            "Train it on, so that the new rows find their place:\n"
            f"  zhbert prepare FILES --vocab {folder} --out CORPUS\n"
            f"  zhbert pretrain continue-domain --corpus CORPUS --out RUN initial_model={folder}",
        )


def _remarks(result: dict[str, Any]) -> list[str]:
    lines = []
    if result["known"]:
        lines.append(f"note: {len(result['known']):,} of the list are known already")
    for reason, words in result["refused"].items():
        more = " ..." if len(words) > _NAMED else ""
        lines.append(
            f"note: {len(words):,} of the list left out, {reason}: "
            f"{', '.join(words[:_NAMED])}{more}"
        )
    if sum(map(len, result["refused"].values())) > len(result["added"]) + len(result["known"]):
        lines.append("note: most lines are no words; prose goes with --from-text FILE")
    if count := result["unknown_before"]:
        lines.append(
            f"note: {count:,} new pieces were [UNK] before and begin as its row: they mean nothing "
            "until they are trained"
        )
    if forms := result["without_inner_form"]:
        shown = " ".join(f"##{c}" for c in forms[:_NAMED])
        lines.append(
            f"note: {len(forms):,} characters stand inside pieces and have no ## form, so that a "
            f"longer word may become [UNK] behind a new piece; to be safe, list these too: {shown}"
            + (" ..." if len(forms) > _NAMED else "")
        )
    return lines


def _print_table(added: list[dict[str, Any]]) -> None:
    from zhbert import console

    unknown = [one for one in added if one["was_unknown"]][: _SHOWN // 2]
    others = [one for one in added if not one["was_unknown"]][: _SHOWN - len(unknown)]
    has_counts = any(one["count"] is not None for one in added)
    table = console.table("new piece", *[">times"] * has_counts, "mean of")
    for one in (*unknown, *others):
        times = "" if one["count"] is None else f"{one['count']:,}"
        table.add_row(one["piece"], *[times] * has_counts, " ".join(one["was"]))
    console.out().print(table)
    if (more := len(added) - len(unknown) - len(others)) > 0:
        console.out().print(f"... and {more:,} more (--json has them)")
    console.out().print()
