"""Train a vocabulary, measure its coverage of text, or give a model more pieces.

zhbert vocab train FILES... --size 21128 --out vocab.txt
zhbert vocab coverage VOCAB FILES...      (a vocab.txt, a model or 'default')
zhbert vocab extend MODEL --with words.txt --out DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhbert import console, options, terminal
from zhbert.wording import counted

if TYPE_CHECKING:
    from zhbert.text.coverage import Coverage
    from zhbert.text.tokenizer import Tokenizer


_EXTEND = """Give a model more pieces.

zhbert vocab extend MODEL --with words.txt --out DIR
zhbert vocab extend MODEL --with corpus/ --at-most 500 --out DIR
zhbert vocab extend MODEL --from-text law.txt --min-frequency 20 --out DIR

--with takes a list with one word or piece (##ing) a line, all of which are added,
or a corpus folder written by 'zhbert prepare'. --from-text takes running text.
From text and corpora, characters that are [UNK] are added first, then words that
are split into several pieces, beginning with those that save most pieces. A
corpus no longer contains the words that were [UNK] when it was prepared; its
original text does.

A new row is the mean of the rows of the pieces that the word was split into, and
so is its bias in the masked-word head. Trained rows and heads are kept bit for bit:
text without new pieces gives the same outputs and predictions as before. New ids
follow the old ones; if a model has more rows than pieces, the spare rows are used
first.

Words are normalised as by the model's tokenizer (lower case if uncased). A word
of several Han characters cannot be a piece: BERT's tokenizer splits it into its
characters.
"""
# The number of rows in the table of new pieces, and of words in a remark; --json has all.
_SHOWN = 10
_NAMED = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions ``train``, ``coverage`` and ``extend`` with their arguments."""
    verbs = parser.add_subparsers(dest="action", required=True, metavar="{train,coverage,extend}")
    common = argparse.ArgumentParser(add_help=False)
    # Accepted before and after the action; a default here would reset one given before it.
    for option, text in (("--quiet", "print results only"), ("--json", "print results as JSON")):
        common.add_argument(option, action="store_true", default=argparse.SUPPRESS, help=text)
    options.add_reading_arguments(common)
    _add_train(
        verbs.add_parser(
            "train",
            parents=[common],
            help="learn a WordPiece vocabulary from text",
            description="Learn a WordPiece vocabulary from text: lower-cased, every Han character "
            "a piece, word pieces for the rest. The same text gives the same bytes.",
            allow_abbrev=False,
        )
    )
    _add_coverage(
        verbs.add_parser(
            "coverage",
            parents=[common],
            help="measure how much of a text becomes [UNK], and why",
            description="Show the share of a text that becomes [UNK], the characters that cause "
            "it, and advice.",
            allow_abbrev=False,
        )
    )
    _add_extend(
        verbs.add_parser(
            "extend",
            parents=[common],
            help="give a model more pieces; its trained rows stay as they are",
            description=_EXTEND,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
    )


_FILES = f"{options.FILES}, a folder of these, or - for stdin"


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help=_FILES)
    parser.add_argument("--out", required=True, metavar="FILE", help="the vocab.txt to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the file at --out")
    parser.add_argument(
        "--size", type=int, default=21128, help="the number of pieces (default 21128)"
    )
    parser.add_argument(
        "--min-frequency",
        type=int,
        default=2,
        metavar="N",
        help="the minimum frequency of learnt pieces (default 2)",
    )
    parser.add_argument(
        "--characters",
        metavar="SETS",
        help="required characters: quotes, gb2312, big5-1, letters, none, or a UTF-8 file of "
        "characters; several are separated by commas (default: as many of the four sets, in this "
        "order, as leave half of the rows to the text; for 21128 pieces, all)",
    )
    parser.add_argument(
        "--special-tokens",
        default="",
        metavar="TOKENS",
        help="further special tokens, separated by commas, such as '<S>,<T>', with ids from 104 on",
    )


def _add_coverage(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("vocabulary", metavar="VOCAB", help="vocab.txt, model folder or default")
    parser.add_argument("files", nargs="+", metavar="FILE", help=_FILES)
    parser.add_argument(
        "--top",
        type=int,
        default=15,
        metavar="N",
        help="the number of characters to list (default 15)",
    )


def _add_extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a folder, an archive or a name")
    parser.add_argument("--out", required=True, metavar="DIR", help="the model folder to write")
    parser.add_argument(
        "--with", dest="source", metavar="PATH",
        help="a list (a word or piece a line) or a corpus folder",
    )  # fmt: skip
    parser.add_argument(
        "--from-text", nargs="+", metavar="FILE",
        help="text, jsonl or parquet, compressed or not, or a folder of these",
    )  # fmt: skip
    parser.add_argument(
        "--at-most", type=int, metavar="N",
        help="from text or a corpus, add at most N pieces (default 1000)",
    )  # fmt: skip
    parser.add_argument(
        "--min-frequency", type=int, metavar="K",
        help="from text or a corpus, add no word that occurs less often, as it would be trained "
        "too little (default 10)",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace a model in DIR")


def run(args: argparse.Namespace) -> int:
    """Run the action and print its result."""
    actions = {"train": _run_train, "coverage": _run_coverage, "extend": _run_extend}
    return actions[args.action](args)


# --- train --------------------------------------------------------------------------------------


def _run_train(args: argparse.Namespace) -> int:
    from zhbert.data.vocabulary import train_vocabulary

    sources = options.find(args.files)
    with options.progress(sources, "reading", args.quiet or args.json) as advance:
        result = train_vocabulary(
            sources,
            args.out,
            size=args.size,
            min_frequency=args.min_frequency,
            characters=args.characters,
            special_tokens=[token for token in args.special_tokens.split(",") if token],
            reading=options.reading_of(args),
            overwrite=args.overwrite,
            advance=advance,
        )
    if not args.quiet:
        _remark_on_size(args, result)
    if args.json:
        console.print_json(result)
        return 0
    if not args.quiet:
        _print_rows(result["rows"])
    console.out().print(f"{result['size']:>7,}  pieces in {result['vocabulary']}")
    return 0


def _remark_on_size(args: argparse.Namespace, result: dict[str, Any]) -> None:
    from zhbert.text.character_sets import CHARACTER_SETS

    if result["size"] < args.size:
        terminal.say(
            f"note: {counted(result['size'], 'piece')}, not {args.size:,}: the text holds no more "
            f"that occurs {args.min_frequency} times or more; give more text"
            + (", or --min-frequency 1" if args.min_frequency > 1 else ""),
        )
    left_out = [name for name in CHARACTER_SETS if name not in result["required"].split(",")]
    if args.characters is None and left_out:
        terminal.say(
            f"note: {args.size:,} pieces have no room for every character of "
            f"{', '.join(left_out)}; they get rows as far as the text has them (--characters "
            "decides)",
        )


def _print_rows(rows: dict[str, int]) -> None:
    for count, what in (
        (rows["special"], "special tokens"),
        (rows["unused"], "[unusedN], free for symbols of your own"),
        (rows["han"], f"Han characters ({rows['han_from_text']:,} of them only from the text)"),
        (rows["other_characters"], "other characters"),
        (rows["continued_characters"], "of these in their ## form"),
        (rows["word_starts"], "words and beginnings of words"),
        (rows["word_continuations"], "continuations (##...)"),
    ):
        console.out().print(f"{count:>7,}  {what}")


# --- coverage -----------------------------------------------------------------------------------


def _run_coverage(args: argparse.Namespace) -> int:
    from zhbert.data.vocabulary import coverage_of_files
    from zhbert.text.coverage import Coverage, advice, missing_quotes, unreachable_rows

    tokenizer = _open_tokenizer(args.vocabulary)
    sources = options.find(args.files)
    with options.progress(sources, "reading", args.quiet or args.json) as advance:
        by_file = coverage_of_files(
            tokenizer, sources, reading=options.reading_of(args), advance=advance
        )
    total = sum(by_file.values(), Coverage())
    sentences = advice(tokenizer, total)
    if args.json:
        console.print_json(
            {
                "vocabulary": args.vocabulary,
                "size": len(tokenizer),
                "unreachable_rows": unreachable_rows(tokenizer),
                "missing_quotes_and_dashes": missing_quotes(tokenizer),
                "total": total.as_dict(args.top),
                "files": {name: found.as_dict(args.top) for name, found in by_file.items()},
                "advice": sentences,
            }
        )
        return 0
    _print_shares(by_file, total)
    _print_missing(total, args.top)
    for sentence in sentences or ["Nothing to mend: this vocabulary suits this text."]:
        console.out().print(sentence)
    if (rows := unreachable_rows(tokenizer)) and not args.quiet:
        console.out().print(
            f"{rows:,} of the {len(tokenizer):,} rows are ## and a Han character; no text uses "
            "them, as every Han character is a separate word."
        )
    return 0


def _open_tokenizer(vocabulary: str) -> Tokenizer:
    """Open the tokenizer of a file or a folder; ``default`` is the one of this package."""
    from zhbert.text.tokenizer import Tokenizer

    if vocabulary == "default" and not Path("default").exists():
        return Tokenizer.default()
    return Tokenizer.from_pretrained(vocabulary)


def _print_shares(by_file: dict[str, Coverage], total: Coverage) -> None:
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


def _print_missing(total: Coverage, top: int) -> None:
    from zhbert.text.words import ranked

    missing = ranked(total.missing)
    if not missing:
        return
    table = console.table("=character", "=code", ">[UNK]", "for example")
    for character, count in missing[:top]:
        example = "".join(c for c in total.examples[character] if c.isprintable())
        table.add_row(character, f"U+{ord(character):04X}", f"{count:,}", example)
    console.out().print()
    console.out().print(table)
    if len(missing) > top:
        console.out().print(f"... and {counted(len(missing) - top, 'more character')} (--top N)")
    console.out().print()


# --- extend -------------------------------------------------------------------------------------


def _run_extend(args: argparse.Namespace) -> int:
    from zhbert.surgery.extend_vocabulary import extend_vocabulary

    quiet = args.quiet or args.json
    from_text = None
    if args.from_text:
        reading = options.reading_of(args)
        from_text = options.Texts(args.from_text, reading, quiet=quiet, option="--from-text")
    result = options.call(
        extend_vocabulary, args, but=["action", "field"], from_text=from_text, quiet=quiet
    )
    if args.json:
        console.print_json(result)
    else:
        _print_extended(result, args.quiet)
    return 0


def _print_extended(result: dict[str, Any], quiet: bool) -> None:
    from zhbert.model.folder import is_fine_tuned, train_on

    if not quiet:
        for line in _remarks(result):
            terminal.say(line)
        _print_added(result["added"])
        if coverage := result.get("coverage"):
            console.print_coverage(coverage)
    console.out().print(
        f"{result['out']}: {counted(len(result['added']), 'new piece')}, "
        f"{result['pieces']:,} in all ({counted(result['rows'], 'row')}, "
        f"{result['rows_before']:,} before)",
    )
    if quiet:
        return
    folder = result["out"]
    if is_fine_tuned(folder):
        console.out().print(train_on(folder))
        return
    console.out().print(
        "Train it further, so that the new rows become useful:\n"
        f"  zhbert prepare FILES --vocab {folder} --out CORPUS\n"
        f"  zhbert pretrain continue-domain --corpus CORPUS --out RUN initial_model={folder}",
    )


def _remarks(result: dict[str, Any]) -> list[str]:
    lines = []
    if result["known"]:
        lines.append(f"note: {counted(len(result['known']), 'word')} of the list known already")
    for reason, words in result["refused"].items():
        more = " ..." if len(words) > _NAMED else ""
        lines.append(
            f"note: {len(words):,} of the list left out, {reason}: "
            f"{', '.join(words[:_NAMED])}{more}"
        )
    if sum(map(len, result["refused"].values())) > len(result["added"]) + len(result["known"]):
        lines.append("note: most lines are not words; give running text with --from-text FILE")
    if count := result["unknown_before"]:
        lines.append(
            f"note: {counted(count, 'new piece', 'was/were')} [UNK] before: they start with its "
            "row, and carry no meaning until they are trained"
        )
    if forms := result["without_inner_form"]:
        shown = " ".join(f"##{c}" for c in forms[:_NAMED])
        lines.append(
            f"note: {counted(len(forms), 'character')} inside pieces without a ## form: a longer "
            f"word may become [UNK] after a new piece; to be safe, add these too: {shown}"
            + (" ..." if len(forms) > _NAMED else "")
        )
    return lines


def _print_added(added: list[dict[str, Any]]) -> None:
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
