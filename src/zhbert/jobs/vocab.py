"""Train a vocabulary, see what one covers, or give a model more pieces.

zhbert vocab train FILES... --size 21128 --out vocab.txt
zhbert vocab coverage VOCAB FILES...      (VOCAB: a vocab.txt, a model folder, or 'default')
zhbert vocab extend MODEL --with words.txt --out DIR
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhbert.errors import ZhbertError
from zhbert.wording import counted

if TYPE_CHECKING:
    from zhbert.text.coverage import Coverage
    from zhbert.text.tokenizer import Tokenizer


_EXTEND = """Give a model more pieces.

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
# Rows of the table of new pieces, and words named in a remark; --json has them all.
_SHOWN = 10
_NAMED = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``train``, ``coverage`` and ``extend``, each with its options."""
    from zhbert import options

    verbs = parser.add_subparsers(dest="action", required=True, metavar="{train,coverage,extend}")
    common = argparse.ArgumentParser(add_help=False)
    # Given before or after the action; a default here would undo what stood before it.
    for option, text in (("--quiet", "print results only"), ("--json", "print results as JSON")):
        common.add_argument(option, action="store_true", default=argparse.SUPPRESS, help=text)
    options.add_reading_arguments(common)
    files = f"{options.FILES}, a folder of these, or - for stdin"

    train = verbs.add_parser(
        "train",
        parents=[common],
        help="learn a WordPiece vocabulary from text",
        description="Learn a WordPiece vocabulary from text: lower-cased, every Han character a "
        "piece, word pieces for the rest. The same text gives the same bytes.",
        allow_abbrev=False,
    )
    train.add_argument("files", nargs="+", metavar="FILE", help=files)
    train.add_argument("--out", required=True, metavar="FILE", help="where vocab.txt is written")
    train.add_argument("--overwrite", action="store_true", help="replace the file at --out")
    train.add_argument("--size", type=int, default=21128, help="pieces, 21128 if not given")
    train.add_argument(
        "--min-frequency",
        type=int,
        default=2,
        metavar="N",
        help="learn nothing that occurs less often (default 2)",
    )
    train.add_argument(
        "--characters",
        metavar="SETS",
        help="characters that must be there: quotes, gb2312, big5-1, letters, none, or a UTF-8 "
        "file of characters; several with commas (default: of the four sets, in this order, those "
        "that leave half of the rows to the text; for 21128 pieces, all)",
    )
    train.add_argument(
        "--special-tokens",
        default="",
        metavar="TOKENS",
        help="further special tokens with commas, such as '<S>,<T>', with the ids from 104 on",
    )

    coverage = verbs.add_parser(
        "coverage",
        parents=[common],
        help="what a vocabulary makes of text: [UNK] and its causes",
        description="Show what share of a text becomes [UNK], for which characters, and what to "
        "do about it.",
        allow_abbrev=False,
    )
    coverage.add_argument("vocabulary", metavar="VOCAB", help="vocab.txt, model folder or default")
    coverage.add_argument("files", nargs="+", metavar="FILE", help=files)
    coverage.add_argument(
        "--top", type=int, default=15, metavar="N", help="characters to list (default 15)"
    )

    extend = verbs.add_parser(
        "extend",
        parents=[common],
        help="give a model more pieces; its trained rows stay as they are",
        description=_EXTEND,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    extend.add_argument("model", metavar="MODEL", help="a folder, an archive or a name")
    extend.add_argument("--out", required=True, metavar="DIR", help="the model folder to write")
    extend.add_argument(
        "--with", dest="source", metavar="PATH",
        help="a list (UTF-8, a word or piece a line) or a corpus folder",
    )  # fmt: skip
    extend.add_argument(
        "--from-text", nargs="+", metavar="FILE",
        help="text, jsonl or parquet, compressed or not, or a folder of these",
    )  # fmt: skip
    extend.add_argument(
        "--at-most", type=int, metavar="N",
        help="from text or a corpus, add at most N pieces (default 1000)",
    )  # fmt: skip
    extend.add_argument(
        "--min-frequency", type=int, metavar="K",
        help="... and nothing that occurs less often: a row that few texts train stays poor "
        "(default 10)",
    )  # fmt: skip
    extend.add_argument("--overwrite", action="store_true", help="replace a model in DIR")


def run(args: argparse.Namespace) -> int:
    """Do the action and print its result."""
    actions = {"train": _run_train, "coverage": _run_coverage, "extend": _run_extend}
    return actions[args.action](args)


# --- train --------------------------------------------------------------------------------------


def train_vocabulary(
    files: Sequence[str | Path],
    out: str | Path,
    *,
    size: int = 21128,
    min_frequency: int = 2,
    characters: str | None = None,
    special_tokens: Sequence[str] = (),
    field: str | None = None,
    overwrite: bool = False,
    encoding: str | None = None,
    quiet: bool = True,
) -> dict[str, Any]:
    """Learn a vocabulary from ``files``, write it to ``out``; return the figures of it.

    ``characters`` names sets that must be there (``zhbert.text.vocab.CHARACTER_SETS``), ``none``,
    or files of characters, with commas between them; None stands for those of the sets that leave
    half of the rows to the text.

    Raises:
        ZhbertError: files that cannot be read, a size too small for what must be there, or a
            file at ``out`` without ``overwrite``.
    """
    from zhbert.data.read_options import ReadOptions
    from zhbert.data.texts import read_texts
    from zhbert.files import make_folder, sha256_of, write_text
    from zhbert.folders import check_file
    from zhbert.options import find, progress
    from zhbert.text.vocab import TextCounts, default_character_sets, learn_vocabulary

    if min_frequency < 1:
        raise ZhbertError(f"--min-frequency {min_frequency}: must be 1 or more")
    out = Path(out)
    reading = ReadOptions(field=field, encoding=encoding)
    check_file(
        out,
        overwrite=overwrite,
        needed={f"input {name}": Path(name) for name in files},
        make_parents=True,
    )
    sources = find(files)
    if characters is None:
        characters = ",".join(default_character_sets(size)) or "none"
    required = _required_characters(characters)
    counts = TextCounts()
    # Too small a size is found before the reading, not after it.
    learn_vocabulary(counts, size=size, characters=required, special_tokens=special_tokens)
    with progress(sources, "reading", quiet) as advance:
        for source in sources:
            counts.add(read_texts([source], reading, advance))
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


def _required_characters(names: str) -> frozenset[str]:
    from zhbert.files import read_text
    from zhbert.text.vocab import CHARACTER_SETS

    found: set[str] = set()
    for name in filter(None, names.split(",")):
        if name in CHARACTER_SETS:
            found |= CHARACTER_SETS[name]()
        elif name == "none":
            continue
        elif Path(name).is_file():
            found.update(read_text(name, "a file of characters"))
        else:
            raise ZhbertError(
                f"--characters {name}: neither a file nor a set of characters; sets: "
                f"{', '.join(CHARACTER_SETS)}, none"
            )
    return frozenset(found)


def _run_train(args: argparse.Namespace) -> int:
    from zhbert.console import err, out, print_json
    from zhbert.text.vocab import CHARACTER_SETS

    result = train_vocabulary(
        args.files,
        args.out,
        size=args.size,
        min_frequency=args.min_frequency,
        characters=args.characters,
        special_tokens=[token for token in args.special_tokens.split(",") if token],
        field=args.field,
        overwrite=args.overwrite,
        encoding=args.encoding,
        quiet=args.quiet or args.json,
    )
    if result["size"] < args.size and not args.quiet:
        err().print(
            f"note: {counted(result['size'], 'piece')}, not {args.size:,}: the text holds no more "
            f"that occurs {args.min_frequency} times or more; give more text"
            + (", or --min-frequency 1" if args.min_frequency > 1 else ""),
        )
    left_out = set(CHARACTER_SETS) - set(result["required"].split(","))
    if args.characters is None and left_out and not args.quiet:
        err().print(
            f"note: {args.size:,} pieces have no room for every character of "
            f"{', '.join(name for name in CHARACTER_SETS if name in left_out)}; they get rows as "
            "far as the text has them (--characters decides)",
        )
    if args.json:
        print_json(result)
        return 0
    rows = result["rows"]
    if not args.quiet:
        for count, what in (
            (rows["special"], "special tokens"),
            (rows["unused"], "[unusedN], free for symbols of your own"),
            (rows["han"], f"Han characters ({rows['han_from_text']:,} of them only from the text)"),
            (rows["other_characters"], "other characters"),
            (rows["continued_characters"], "of these in their ## form"),
            (rows["word_starts"], "words and beginnings of words"),
            (rows["word_continuations"], "continuations (##...)"),
        ):
            out().print(f"{count:>7,}  {what}")
    out().print(f"{result['size']:>7,}  pieces in {result['vocabulary']}")
    return 0


# --- coverage -----------------------------------------------------------------------------------


def open_tokenizer(vocabulary: str | Path) -> Tokenizer:
    """The tokenizer of a vocab.txt or a model folder, or of the vocabulary shipped: ``default``."""
    from zhbert.text.tokenizer import Tokenizer
    from zhbert.text.vocab import default_vocabulary

    shipped = str(vocabulary) == "default" and not Path("default").exists()
    return Tokenizer.from_pretrained(default_vocabulary() if shipped else vocabulary)


def vocabulary_coverage(
    tokenizer: Tokenizer,
    files: Sequence[str | Path],
    *,
    field: str | None = None,
    encoding: str | None = None,
    quiet: bool = True,
) -> dict[str, Coverage]:
    """What ``tokenizer`` makes of each file, by its path.

    Raises:
        ZhbertError: a file is missing, empty, or not UTF-8.
    """
    from zhbert.data.read_options import ReadOptions
    from zhbert.data.texts import read_texts
    from zhbert.options import find, progress
    from zhbert.text.coverage import cover

    reading = ReadOptions(field=field, encoding=encoding)
    sources = find(files)
    with progress(sources, "reading", quiet) as advance:
        return {
            source.name: cover(tokenizer, read_texts([source], reading, advance))
            for source in sources
        }


def _run_coverage(args: argparse.Namespace) -> int:
    from zhbert.console import out, print_json
    from zhbert.text.coverage import QUOTES_AND_DASHES, Coverage, advice, unreachable_rows

    tokenizer = open_tokenizer(args.vocabulary)
    by_file = vocabulary_coverage(
        tokenizer,
        args.files,
        field=args.field,
        encoding=args.encoding,
        quiet=args.quiet or args.json,
    )
    total = sum(by_file.values(), Coverage())
    sentences = advice(tokenizer, total)
    if args.json:
        print_json(
            {
                "vocabulary": args.vocabulary,
                "size": len(tokenizer),
                "unreachable_rows": unreachable_rows(tokenizer),
                "missing_quotes_and_dashes": [
                    c for c in QUOTES_AND_DASHES if tokenizer.id_of(c) is None
                ],
                "total": _as_dict(total, args.top),
                "files": {name: _as_dict(found, args.top) for name, found in by_file.items()},
                "advice": sentences,
            }
        )
        return 0
    _print_coverage(by_file, total, args.top)
    for sentence in sentences or ["Nothing to mend: this vocabulary suits this text."]:
        out().print(sentence)
    if (rows := unreachable_rows(tokenizer)) and not args.quiet:
        out().print(
            f"{rows:,} of the {len(tokenizer):,} rows are ## + a Han character, which no text "
            "leads to: Han characters always stand alone."
        )
    return 0


def _as_dict(found: Coverage, top: int) -> dict[str, Any]:
    from zhbert.text.coverage import ranked

    missing = ranked(found.missing)
    return {
        "characters": found.characters,
        "pieces": found.pieces,
        "unknown": found.unknown,
        "unknown_share": found.unknown_share,
        "dropped": dict(found.dropped),
        "han": found.han,
        "traditional": found.traditional,
        "traditional_share": found.traditional_share,
        "traditional_unknown": found.traditional_unknown,
        "latin_words": found.latin_words,
        "latin_pieces_per_word": found.latin_pieces_per_word,
        "latin_pieces_per_character": found.latin_pieces_per_character,
        "too_long_words": found.too_long,
        "missing_characters": len(missing),
        "missing": [
            {
                "character": character,
                "code_point": f"U+{ord(character):04X}",
                "count": count,
                "example": found.examples[character],
            }
            for character, count in missing[:top]
        ],
    }


def _print_coverage(by_file: dict[str, Coverage], total: Coverage, top: int) -> None:
    from zhbert import console
    from zhbert.text.coverage import ranked

    headings = (">pieces", ">[UNK]", ">share", ">trad.", ">pieces per\nLatin word", ">per\nletter")
    table = console.table("file", *headings)
    for column in table.columns:
        column.vertical = "bottom"
    names = [Path(name).name for name in by_file]
    if len(set(names)) < len(names):
        names = list(by_file)
    rows = list(zip(names, by_file.values(), strict=True))
    for name, found in [*rows, ("total", total)] if len(rows) > 1 else rows:
        table.add_row(
            name,
            f"{found.pieces:,}",
            f"{found.unknown:,}",
            f"{found.unknown_share:.4%}",
            f"{found.traditional_share:.1%}",
            f"{found.latin_pieces_per_word:.2f}",
            f"{found.latin_pieces_per_character:.2f}",
        )
    console.out().print(table)
    missing = ranked(total.missing)
    if not missing:
        return
    shown = console.table("=character", "=code", ">[UNK]", "for example")
    for character, count in missing[:top]:
        example = "".join(c for c in total.examples[character] if c.isprintable())
        shown.add_row(character, f"U+{ord(character):04X}", f"{count:,}", example)
    console.out().print()
    console.out().print(shown)
    if len(missing) > top:
        console.out().print(f"... and {counted(len(missing) - top, 'more character')} (--top N)")
    console.out().print()


# --- extend -------------------------------------------------------------------------------------


def _run_extend(args: argparse.Namespace) -> int:
    from zhbert import options
    from zhbert.console import print_json
    from zhbert.surgery.extend_vocabulary import extend_vocabulary

    quiet = args.quiet or args.json
    from_text = None
    if args.from_text:
        reading = options.reading_of(args)
        from_text = options.Texts(args.from_text, reading, quiet=quiet, option="--from-text")
    result = extend_vocabulary(
        args.model,
        args.out,
        source=args.source,
        from_text=from_text,
        at_most=args.at_most,
        min_frequency=args.min_frequency,
        overwrite=args.overwrite,
        quiet=quiet,
    )
    if args.json:
        print_json(result)
    else:
        _print_extended(result, args.quiet)
    return 0


def _print_extended(result: dict[str, Any], quiet: bool) -> None:
    from zhbert.console import err, out, print_coverage

    console = out()
    if not quiet:
        for line in _remarks(result):
            err().print(line)
        _print_added(result["added"])
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


def _print_added(added: list[dict[str, Any]]) -> None:
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
