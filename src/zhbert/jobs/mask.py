"""Show a text, its words, and its masks by characters and by whole words.

zhbert mask 使用语言模型来预测下一个词的probability。
zhbert mask - < lines.txt          (one text a line)
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from zhbert import options
from zhbert.errors import ZhbertError
from zhbert.masking_strategies import STRATEGIES, by_similar_words

if TYPE_CHECKING:
    from rich.text import Text

    from zhbert.data.mask_text import MaskedText, Masks
    from zhbert.text.tokenizer import Tokenizer

# The Chinese and English label of each strategy's row, as in Chinese-BERT-wwm.
_NAMES = {
    "char": ("字掩码", "character masking"),
    "wwm": ("全词掩码", "whole word masking"),
    "wwm-unbiased": ("无偏全词掩码", "unbiased wwm"),
    "ngram": ("N元掩码", "n-gram masking"),
    "mac": ("近义替换", "MacBERT masking"),
}
_STYLES = {
    "mask": "bold red",
    "random": "bold yellow",
    "replaced": "bold yellow",
    "kept": "bold green",
}
# In narrower terminals, labels are printed above the texts instead of beside them.
_NARROW = 72
# The maximum row length of published models, in pieces, without [CLS] and [SEP].
_LONGEST = 510


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "text", metavar="TEXT", help="the text; - reads one text per line from stdin"
    )
    parser.add_argument(
        "--strategy",
        default="wwm",
        metavar="NAME",
        help=f"{', '.join(STRATEGIES)} (default wwm); char is always shown as well",
    )
    parser.add_argument(
        "--similar-words", default="", metavar="FILE",
        help="for mac: the similar words, which 'zhbert similar-words' makes",
    )  # fmt: skip
    options.add_segmenter_arguments(parser)
    parser.add_argument(
        "--vocab", metavar="VOCAB", help="model folder or vocab.txt (default: this package's)"
    )
    parser.add_argument(
        "--rate", type=float, default=0.15, help="the share of pieces to predict (default 0.15)"
    )
    parser.add_argument("--seed", type=int, default=0, help="the seed of the masks (default 0)")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="replace pieces as in training: 80 %% [MASK], 10 %% a random piece, 10 %% kept",
    )
    options.add_reading_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Mask the text or the lines of stdin and print the tables."""
    from zhbert.console import err, out, print_json
    from zhbert.text.tokenizer import Tokenizer
    from zhbert.text.vocab import default_vocabulary

    tokenizer = Tokenizer.from_pretrained(args.vocab or default_vocabulary())
    from_stdin = args.text == "-"
    results = _masked_texts(args, tokenizer)
    if args.json:
        settings = {name: getattr(args, name) for name in ("segmenter", "rate", "seed", "replace")}
        found = [asdict(result) | settings for result in results]
        print_json(found if from_stdin else found[0])
        return 0
    remarks: list[str] = []
    for number, result in enumerate(results):
        if number:
            sys.stdout.write("\n")
        print_table(result)
        if not from_stdin:
            remarks += _remarks(result, tokenizer.special_tokens.values())
    if not args.quiet:
        remarks.append(_legend(args, out().color_system is not None))
        err().print("\n" + " ".join(remarks), style="dim")
    return 0


def _masked_texts(args: argparse.Namespace, tokenizer: Tokenizer) -> Iterator[MaskedText]:
    from zhbert.console import err
    from zhbert.data.mask_text import mask_text
    from zhbert.data.masking import MaskingVocabulary
    from zhbert.text.segmenters import load_segmenter

    segmenter = load_segmenter(
        args.segmenter, user_words=args.user_words, model=args.segmenter_model
    )
    for remark in () if args.quiet else segmenter.remarks:
        err().print(remark, style="dim")
    texts: Iterable[tuple[str, str]] = [("", args.text)]
    if args.text == "-":
        texts = options.lines_of_stdin(options.reading_of(args))
    vocabulary = MaskingVocabulary(tokenizer.vocabulary, similar_words=args.similar_words)
    for where, text in texts:
        try:
            yield mask_text(
                text,
                tokenizer,
                segmenter,
                strategies=list(dict.fromkeys(["char", args.strategy])),
                rate=args.rate,
                seed=args.seed,
                replace=args.replace,
                vocabulary=vocabulary,
                similar_words=args.similar_words,
            )
        except ZhbertError as error:
            raise ZhbertError(f"{where}{error}") from None


def print_table(result: MaskedText) -> None:
    """Print the four rows beside their labels, or below them in a narrow terminal."""
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    from zhbert.console import out
    from zhbert.data.mask_text import without_controls

    rows = [
        ("原文", "original", Text(without_controls(result.text))),
        ("分词", "segmented", Text(" ".join(result.words))),
        *(
            (*_NAMES.get(strategy, (strategy, "masking")), _coloured(masks))
            for strategy, masks in result.masks.items()
        ),
    ]
    console = out()
    if console.is_terminal and console.width < _NARROW:
        for chinese, english, text in rows:
            console.print(Text(f"{chinese} {english}", style="dim"))
            console.print(text)
        return
    chinese_width = max(cell_len(chinese) for chinese, _, _ in rows)
    english_width = max(len(english) for _, english, _ in rows)
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for chinese, english, text in rows:
        padding = " " * (chinese_width - cell_len(chinese))
        label = f"{chinese}{padding} {english:<{english_width}}"
        if console.is_terminal:
            table.add_row(Text(label, style="dim"), text)
        else:  # one row, one line: for grep, a file or a pager
            console.print(f"{label}  ", text, sep="")
    if console.is_terminal:
        console.print(table)


def _coloured(masks: Masks) -> Text:
    from rich.text import Text

    from zhbert.data.mask_text import without_controls

    styles = dict(zip(masks.predicted, masks.actions, strict=True))
    text = Text()
    for position, piece in enumerate(masks.pieces):
        action = styles.get(position)
        text.append(f"{' ' if position else ''}")
        text.append(without_controls(piece), style=_STYLES[action] if action else "")
    return text


def _remarks(result: MaskedText, special_tokens: Collection[str]) -> Iterator[str]:
    """Yield explanations of one table."""
    counts = ", ".join(
        f"{len(masks.predicted)} ({strategy})" for strategy, masks in result.masks.items()
    )
    yield f"Pieces: {len(result.pieces):,}; quota: {result.quota:,}; predicted: {counts}."
    if not all(masks.predicted for masks in result.masks.values()):
        yield (
            "Nothing is predicted if no word fits the quota or none was drawn: try a higher "
            "--rate or another --seed."
        )
    literal = [token for token in special_tokens if token in result.text]
    if literal:
        yield f"The text's own {', '.join(literal)} is plain text, as in prepare."
    if len(result.pieces) > _LONGEST:
        yield "In training, a text this long would be put in several rows."


def _legend(args: argparse.Namespace, colours: bool) -> str:
    similar = by_similar_words(args.strategy)
    if not args.replace:
        instead = f"{', of mac a similar word' if similar else ''}; --replace"
        return f"Every predicted piece is shown as [MASK]{instead} shows what training sees."
    text = "Of the predicted pieces 80 % become [MASK], 10 % a random one, 10 % stay."
    if similar:
        text += " Of mac's words 80 % become a similar one."
    return text + (" Red: [MASK]; yellow: random; green: kept." if colours else "")
