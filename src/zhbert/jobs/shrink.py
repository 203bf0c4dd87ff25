"""Make a small model from a large one: fewer layers, fewer pieces, shorter rows.

zhbert shrink chinese-roberta-wwm-ext --layers 0,1,2 --out models/start
zhbert shrink MODEL --vocab vocab.txt --corpus law.txt --out models/law
zhbert shrink MODEL --vocab-from law.txt --vocab-size 8000 --out models/law
zhbert shrink MODEL --positions 256 --out models/short

The published small models begin as the first layers of a large one: RBT3, RBT4
and RBT6 as layers 0-2, 0-3 and 0-5 of RoBERTa-wwm-ext, RBTL3 as layers 0-2 of
RoBERTa-wwm-ext-large. They were trained on then, and a cut model needs that:
zhbert pretrain rbt3 --corpus CORPUS --out RUN initial_model=models/start

What is kept is kept bit for bit, heads included. A smaller vocabulary keeps the
rows of its pieces: text made of these gives the same outputs as before. So does
text of no more pieces than --positions. ('zhbert extend' makes longer models.)
MODEL is a folder, an archive or a name ('zhbert models').
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhbert.errors import ZhbertError
from zhbert.model.folder import ModelFolder, check_out, open_model_folder, train_on
from zhbert.wording import counted, without_secrets

if TYPE_CHECKING:
    from zhbert.data.read_options import ReadOptions
    from zhbert.text.tokenizer import Tokenizer

# Lost pieces in the table; --json has them all.
_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    from zhbert import options

    parser.add_argument("model", metavar="MODEL", help="a folder, an archive or a name")
    parser.add_argument("--out", required=True, metavar="DIR", help="the model folder to write")
    parser.add_argument(
        "--layers", metavar="LIST",
        help="what to keep, counted from 0 and in this order: 0,1,2 or 0-2; -1 is the last "
        "(--layers=-1); without it, all",
    )  # fmt: skip
    vocabulary = parser.add_mutually_exclusive_group()
    vocabulary.add_argument(
        "--vocab", metavar="NEW", help="a vocab.txt of pieces of the model: keep these rows"
    )
    vocabulary.add_argument(
        "--vocab-from", nargs="+", metavar="FILE",
        help="text: keep the pieces that it uses most, special tokens and ASCII characters",
    )  # fmt: skip
    parser.add_argument(
        "--vocab-size", type=int, metavar="N",
        help="with --vocab-from: keep N pieces (without it, all that the text uses)",
    )  # fmt: skip
    parser.add_argument(
        "--positions", type=int, metavar="N", help="keep the first N positions: the longest row"
    )
    parser.add_argument(
        "--corpus", nargs="+", metavar="FILE",
        help="text: report what it loses by the smaller vocabulary",
    )  # fmt: skip
    options.add_reading_arguments(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace a model in DIR")


def run(args: argparse.Namespace) -> int:
    """Shrink, and print the parameters before and after."""
    from zhbert.console import print_json

    result = shrink(
        args.model,
        args.out,
        layers=args.layers,
        vocab=args.vocab,
        vocab_from=args.vocab_from or (),
        vocab_size=args.vocab_size,
        positions=args.positions,
        corpus=args.corpus or (),
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


def shrink(
    model: str | Path,
    out: str | Path,
    *,
    layers: str | Sequence[int] | None = None,
    vocab: str | Path | None = None,
    vocab_from: Sequence[str | Path] = (),
    vocab_size: int | None = None,
    positions: int | None = None,
    corpus: Sequence[str | Path] = (),
    field: str | None = None,
    encoding: str | None = None,
    overwrite: bool = False,
    quiet: bool = True,
) -> dict[str, Any]:
    """Write the smaller model to ``out``; return its figures. Options as on the command line.

    Raises:
        ZhbertError: nothing to do, no such layer, a vocabulary that is not part of the model's.
    """
    from zhbert.data.read_options import ReadOptions
    from zhbert.surgery.entries import keep_layers, resize_positions, select_rows
    from zhbert.text.extend_vocab import with_pieces

    reading = ReadOptions(field=field, encoding=encoding)
    if layers is None and positions is None and vocab is None and not vocab_from:
        raise ZhbertError(
            "nothing to take away: give --layers, --vocab, --vocab-from or --positions"
        )
    if corpus and vocab is None and not vocab_from:
        raise ZhbertError("--corpus reports on a smaller vocabulary: give --vocab too")
    if vocab_size is not None and not vocab_from:
        raise ZhbertError("--vocab-size goes with --vocab-from, which names the text to count on")
    if "-" in map(str, vocab_from):
        raise ZhbertError("--vocab-from reads its text twice: write stdin to a file first")
    out = check_out(out, model, overwrite=overwrite)
    opened = open_model_folder(model, quiet=quiet)
    had = opened.config.num_hidden_layers
    numbers = range(had) if layers is None else layers
    kept = parse_layers(numbers, had) if isinstance(numbers, str) else list(numbers)
    entries = opened.entries
    if kept != list(range(had)):
        entries = keep_layers(entries, kept)
    if positions is not None:
        _check_positions(positions, opened.config.max_position_embeddings, str(model))
        entries = resize_positions(entries, positions)
    rows: list[int] | None = None
    if vocab is not None:
        rows = _rows_of(opened, Path(vocab))
    elif vocab_from:
        rows = _most_used(opened.tokenizer, vocab_from, vocab_size, reading, quiet)
    tokenizer = opened.tokenizer
    loss = None
    if rows is not None:
        entries = select_rows(entries, rows)
        tokenizer = with_pieces(tokenizer, [tokenizer.vocabulary[row] for row in rows])
        if texts := corpus or vocab_from:
            loss = _loss(opened.tokenizer, tokenizer, texts, reading, quiet)
    small = opened.changed(entries, tokenizer=tokenizer, num_layers=len(kept))
    small.write(out, overwrite=overwrite)
    result = {
        "model": without_secrets(str(model)),
        "out": str(out),
        "layers": kept,
        "layers_before": had,
        **_before_and_after(opened, small),
    }
    return result if loss is None else {**result, "corpus": loss}


def _before_and_after(before: ModelFolder, after: ModelFolder) -> dict[str, Any]:
    """The figures of the small model, and as many of the large one, whose names end in _before."""
    from zhbert.surgery.entries import parameters_by_part

    figures: dict[str, Any] = {}
    for end, model in (("", after), ("_before", before)):
        parameters = parameters_by_part(model.entries)
        figures |= {
            f"pieces{end}": len(model.tokenizer),
            f"positions{end}": model.config.max_position_embeddings,
            f"rows{end}": model.rows,
            f"parameters{end}": parameters,
            f"total{end}": sum(parameters.values()),
            f"bytes{end}": sum(entry.size for entry in model.entries.values()),
        }
    return figures


def parse_layers(text: str, layers: int) -> list[int]:
    """The numbers of ``0,1,2``, ``0-2`` or ``0,-1`` for a model of so many ``layers``.

    >>> parse_layers("0-2,-1", 12)
    [0, 1, 2, 11]
    """
    found: list[int] = []
    for item in text.split(","):
        match = re.fullmatch(r"\s*(?:(\d+)\s*-\s*(\d+)|(-?\d+))\s*", item, re.ASCII)
        if match is None:
            raise ZhbertError(f"--layers {text}: '{item}' is no layer; write 0,1,2 or 0-2")
        first, last = int(match[1] or match[3]), int(match[2] or match[3])
        if first > last:
            raise ZhbertError(f"--layers {text}: '{item}' runs backwards; name each: 2,1,0")
        if not (-layers <= first and last < layers):
            raise ZhbertError(
                f"--layers {text}: the model has {layers} layers, 0 to {layers - 1} (or -1 for the "
                f"last); there is no {item.strip()}"
            )
        found += [number % layers for number in range(first, last + 1)]
    if twice := [layer for layer in found if found.count(layer) > 1]:
        raise ZhbertError(f"--layers {text}: layer {twice[0]} is named twice; it is kept once")
    return found


def _check_positions(positions: int, had: int, model: str) -> None:
    # [CLS], a piece, [SEP]: a shorter row holds nothing.
    if positions < 3:
        raise ZhbertError(f"--positions {positions}: must be 3 or more")
    if positions > had:
        raise ZhbertError(
            f"--positions {positions:,}: the model has {had:,}; 'zhbert extend {model} --positions "
            f"{positions} --out DIR' makes more"
        )


# --- which pieces -------------------------------------------------------------------------------


def _rows_of(model: ModelFolder, path: Path) -> list[int]:
    """The model's ids of the pieces in a vocab.txt, in its order."""
    from zhbert.text.tokenizer import read_vocabulary

    if path.is_dir():
        path = path / "vocab.txt"
    pieces = read_vocabulary(path)
    seen: dict[str, int] = {}
    for number, piece in enumerate(pieces, 1):
        if not piece:
            raise ZhbertError(f"{path}: line {number} is empty; every line is a piece")
        if seen.setdefault(piece, number) != number:
            raise ZhbertError(f"{path}: {piece!r} stands on line {seen[piece]} and line {number}")
    tokenizer = model.tokenizer
    if gone := [one.content for one in tokenizer.added_tokens if one.content not in seen]:
        raise ZhbertError(
            f"{path}: lacks {' '.join(gone)}; the model's special and added tokens must remain"
        )
    ids = [tokenizer.id_of(piece) for piece in pieces]
    if strange := [piece for piece, row in zip(pieces, ids, strict=True) if row is None]:
        raise ZhbertError(
            f"{path}: {len(strange):,} of its {len(pieces):,} pieces are none of the model's, "
            f"{' '.join(strange[:3])} first; leave them out, or give the model rows for them "
            "before: zhbert vocab extend MODEL --with FILE"
        )
    return [row for row in ids if row is not None]


def _most_used(
    tokenizer: Tokenizer,
    files: Sequence[str | Path],
    size: int | None,
    reading: ReadOptions,
    quiet: bool,
) -> list[int]:
    """The ids that a text uses most, and those that every text needs; in the model's order."""
    from zhbert.options import all_texts

    used: Counter[int] = Counter()
    for text in all_texts(files, reading, doing="counting", quiet=quiet):
        used.update(tokenizer.encode_batch([text], special_tokens=False)[0].tolist())
    # ASCII spells out any Latin word whose longer pieces go.
    ascii_forms = (form + chr(code) for code in range(33, 127) for form in ("", "##"))
    needed = {row for form in ascii_forms if (row := tokenizer.id_of(form)) is not None}
    needed |= set(tokenizer.added_ids)
    if size is not None and size < len(needed):
        raise ZhbertError(
            f"--vocab-size {size:,}: special tokens and ASCII characters take {len(needed):,}; "
            "give more"
        )
    # The most used first; of equals, the one with the smaller id.
    ranking = sorted(used.keys() - needed, key=lambda row: (-used[row], row))
    room = len(ranking) if size is None else size - len(needed)
    return sorted(needed | set(ranking[:room]))


# --- what a corpus loses ------------------------------------------------------------------------


def _loss(
    old: Tokenizer,
    new: Tokenizer,
    files: Sequence[str | Path],
    reading: ReadOptions,
    quiet: bool,
) -> dict[str, Any]:
    from zhbert.options import all_texts
    from zhbert.text.coverage import Coverage, cover
    from zhbert.text.extend_vocab import ids_of_piece

    before, after = Coverage(), Coverage()
    used: Counter[int] = Counter()
    for text in all_texts(files, reading, doing="comparing", quiet=quiet):
        before += cover(old, [text])
        after += cover(new, [text])
        used.update(old.encode_batch([text], special_tokens=False)[0].tolist())
    gone = [
        (row, times)
        for row, times in sorted(used.items(), key=lambda item: (-item[1], item[0]))
        if new.id_of(old.vocabulary[row]) is None
    ]
    return {
        "characters": before.characters,
        "before": before.figures(),
        "after": after.figures(),
        "lost_pieces": len(gone),
        "lost": [
            {
                "piece": old.vocabulary[row],
                "count": times,
                "becomes": [new.vocabulary[i] for i in ids_of_piece(new, old.vocabulary[row])],
            }
            for row, times in gone
        ],
    }


# --- printing -----------------------------------------------------------------------------------


def _print(result: dict[str, Any], quiet: bool) -> None:
    from zhbert.console import out, table

    console = out()
    parts = table("=part", ">before", ">after")
    for part, number in result["parameters_before"].items():
        parts.add_row(part, f"{number:,}", f"{result['parameters'][part]:,}")
    parts.add_row("all parameters", f"{result['total_before']:,}", f"{result['total']:,}")
    megabytes = (f"{result[name] / 1e6:,.1f} MB" for name in ("bytes_before", "bytes"))
    parts.add_row("on disk", *megabytes)
    if not quiet:
        console.print(parts)
        console.print()
    if (loss := result.get("corpus")) is not None:
        _print_loss(loss)
    kept = result["layers"]
    in_a_row = len(kept) > 3 and kept == list(range(kept[0], kept[-1] + 1))
    shown = f"{kept[0]}-{kept[-1]}" if in_a_row else ",".join(map(str, kept))
    what = [f"layers {shown} of {result['layers_before']}"]
    if result["pieces"] != result["pieces_before"]:
        what.append(f"{result['pieces']:,} of {result['pieces_before']:,} pieces")
    if result["positions"] != result["positions_before"]:
        what.append(f"{result['positions']:,} of {result['positions_before']:,} positions")
    console.print(f"{result['out']}: {', '.join(what)}")
    if quiet:
        return
    if len(result["layers"]) < result["layers_before"]:
        console.print(train_on(result["out"]))


def _print_loss(loss: dict[str, Any]) -> None:
    from zhbert.console import out, table

    console = out()
    print_coverage(loss)
    if not loss["lost"]:
        console.print("The text uses none of the pieces that go.\n")
        return
    lost = table("=lost piece", ">times", "becomes")
    for one in loss["lost"][:_SHOWN]:
        lost.add_row(one["piece"], f"{one['count']:,}", " ".join(one["becomes"]))
    console.print(lost)
    if (more := loss["lost_pieces"] - _SHOWN) > 0:
        console.print(f"... and {more:,} more of the text's pieces (--json has them)")
    console.print()


def print_coverage(found: dict[str, Any]) -> None:
    """A text's pieces and [UNK] before and after the vocabulary changed."""
    from zhbert import console

    text = f"the text, {counted(found['characters'], 'character')}"
    table = console.table(f"={text}", ">before", ">after")
    for label, key, form in (
        ("pieces", "pieces", ","),
        ("pieces for a character", "pieces_per_character", ".3f"),
        ("[UNK]", "unknown", ","),
        ("share of [UNK]", "unknown_share", ".4%"),
    ):
        table.add_row(label, *(format(found[side][key], form) for side in ("before", "after")))
    console.out().print(table)
    console.out().print()
