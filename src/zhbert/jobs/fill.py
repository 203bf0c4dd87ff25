"""Fill the [MASK]s of a text.

zhbert fill "今天天气很[MASK]。"          (by zhbert-mini, the model in this package)
zhbert fill MODEL "使用语言[MASK][MASK]来预测"
zhbert fill MODEL - < lines.txt          (one text a line)
"""

from __future__ import annotations

import argparse
import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhbert.errors import ZhbertError
from zhbert.model.folder import check_vocabulary
from zhbert.wording import without_secrets
from zhbert.zoo.packaged import DEFAULT

if TYPE_CHECKING:
    from torch import Tensor

    from zhbert.model.pretrained import BertForMaskedLM, BertForPreTraining
    from zhbert.text.tokenizer import Encoding, Tokenizer

# Texts that go through the model together when lines are read.
_BATCH = 32
# Masks side by side in a table: six fit into 80 columns.
_COLUMNS = 6


@dataclass(frozen=True)
class Candidate:
    """A piece that may stand at a mask; probability 0 to 1."""

    piece: str
    id: int
    probability: float


@dataclass(frozen=True)
class Mask:
    """One [MASK]: where it starts in the text, in characters, and its candidates, best first."""

    position: int
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Filled:
    """A text, the same with the best piece at each mask, and all candidates."""

    text: str
    filled: str
    masks: tuple[Mask, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model, the text and the number of candidates."""
    from zhbert import options

    parser.add_argument(
        "model", nargs="?", metavar="MODEL",
        help=f"model folder, archive, name or hub id (default: {DEFAULT})",
    )  # fmt: skip
    parser.add_argument("text", metavar="TEXT", help="text with [MASK]s; - reads lines from stdin")
    parser.add_argument(
        "--top-k", type=int, default=5, metavar="K", help="candidates for each mask (default 5)"
    )
    options.add_reading_arguments(parser)
    options.take_positionals_anywhere(parser)


def fill(
    model: BertForMaskedLM | BertForPreTraining,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    top_k: int = 5,
) -> list[Filled]:
    """Fill the masks of ``texts``, each mask independently of the others.

    Probabilities are over the whole vocabulary. Only the masks reach the vocabulary matrix.

    >>> model, tokenizer = open_model("mini")
    >>> fill(model, tokenizer, ["根据《中华人民[MASK]和国宪法》的规定，制定本法。"])[0].filled
    '根据《中华人民共和国宪法》的规定，制定本法。'

    Raises:
        ZhbertError: a text has no mask, or is longer than the model takes; the scores are no
            finite numbers.
    """
    import numpy as np
    import torch

    from zhbert.packing import pack_rows

    if not texts:
        return []
    encodings = [_encode(model, tokenizer, text) for text in texts]
    rows = [np.array([tokenizer.cls_id, *e.ids, tokenizer.sep_id]) for e in encodings]
    batch = pack_rows(np.concatenate(rows), np.array([len(row) for row in rows]))
    with torch.inference_mode():
        masked = model.encoder(batch)[(batch.input_ids == tokenizer.mask_id).nonzero()[:, 0]]
        logits = model.masked_words(masked, model.encoder.embeddings.words.weight)
        ranked = _likeliest(logits, len(tokenizer), top_k)
    results = []
    for text, encoding in zip(texts, encodings, strict=True):
        spans = encoding.offsets[encoding.ids == tokenizer.mask_id].tolist()
        masks = []
        for start, _ in spans:
            candidates = zip(*next(ranked), strict=True)
            masks.append(
                Mask(start, tuple(Candidate(tokenizer.vocabulary[i], i, p) for p, i in candidates))
            )
        results.append(Filled(text, _put_in(text, spans, masks), tuple(masks)))
    return results


def _likeliest(logits: Tensor, pieces: int, top_k: int) -> Iterator[tuple[list[float], list[int]]]:
    """The probabilities and the ids of the likeliest pieces, for each row of (M, V) logits."""
    # A model may have more rows than the vocabulary has pieces; those have no name to show.
    probabilities = logits.float().softmax(-1)[:, :pieces]
    if not bool(probabilities.isfinite().all()):
        raise ZhbertError(
            "the model's scores are not finite numbers (NaN or infinity), so no mask can be "
            "filled: its weights are damaged or diverged"
        )
    best = probabilities.topk(min(top_k, pieces))
    return zip(best.values.tolist(), best.indices.tolist(), strict=True)


def _encode(
    model: BertForMaskedLM | BertForPreTraining, tokenizer: Tokenizer, text: str, where: str = ""
) -> Encoding:
    """The text's pieces; raises a ZhbertError that begins with ``where`` if it cannot be filled."""
    encoding = tokenizer.encode(text)
    mask = tokenizer.special_tokens["mask_token"]
    if not (encoding.ids == tokenizer.mask_id).any():
        raise _no_mask(text, mask, where)
    longest = model.config.max_position_embeddings
    if len(encoding) + 2 > longest:
        raise ZhbertError(
            f"{where}the text is {len(encoding):,} pieces long; this model takes {longest - 2:,} "
            "(and its [CLS] and [SEP]): cut the text"
        )
    return encoding


def _no_mask(text: str, mask: str, where: str = "") -> ZhbertError:
    shown = text if len(text) <= 30 else text[:30] + "..."
    return ZhbertError(
        f"{where}no {mask} in the text '{shown}'; write {mask}, in capitals, where a piece is "
        "missing"
    )


def _check_alone(text: str) -> None:
    """Refuse what stands without a model and is no text to fill, before a model is opened."""
    from zhbert.zoo import origin_of

    if text == "-" or "[MASK]" in text:
        return
    try:
        origin_of(text)
    except ZhbertError:
        raise _no_mask(text, "[MASK]") from None
    shown = without_secrets(text)
    raise ZhbertError(
        f'{shown}: not a text with [MASK]; of a model: zhbert fill {shown} "今天天气很[MASK]。"; '
        f"of a file with lines of text: zhbert fill - < {shown}"
    )


def _put_in(text: str, spans: Sequence[Sequence[int]], masks: Sequence[Mask]) -> str:
    parts = []
    done = 0
    for (start, end), mask in zip(spans, masks, strict=True):
        parts += [text[done:start], mask.candidates[0].piece.removeprefix("##")]
        done = end
    return "".join([*parts, text[done:]])


def open_model(folder: str | Path, *, quiet: bool = True) -> tuple[BertForMaskedLM, Tokenizer]:
    """The mask-filling model of a folder, an archive or a name, and its tokenizer.

    Raises:
        ZhbertError: not a model folder, or a vocabulary that is not this model's.
    """
    from zhbert.text.tokenizer import Tokenizer
    from zhbert.zoo import locate

    folder = locate(folder, quiet=quiet)  # before the seconds that it takes to import torch

    from zhbert.model.pretrained import BertForMaskedLM

    model = BertForMaskedLM.from_pretrained(folder, quiet=quiet)
    tokenizer = Tokenizer.from_pretrained(folder)
    check_vocabulary(folder, tokenizer, model.config.vocab_size)
    return model, tokenizer


def run(args: argparse.Namespace) -> int:
    """Fill the text or the lines of stdin and print what was found."""
    from zhbert.console import err, print_json
    from zhbert.options import lines_of_stdin, reading_of

    if args.top_k < 1:
        raise ZhbertError(f"--top-k {args.top_k}: must be 1 or more")
    name, quiet = args.model, args.quiet or args.json
    if name is None:
        _check_alone(args.text)
        name = DEFAULT
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, tokenizer = open_model(name, quiet=quiet or args.model is None)
    if args.model is None and not quiet:
        err().print(f"filled by {name}; by another model: zhbert fill MODEL TEXT")
    for warning in caught:
        # Loud on purpose, --quiet or not: an untrained head fills masks with noise.
        err().print(f"WARNING: {warning.message}", style="bold red")
    from_stdin = args.text == "-"
    lines = lines_of_stdin(reading_of(args)) if from_stdin else iter([("", args.text)])
    results = []
    while group := list(islice(lines, _BATCH)):
        for where, text in group:
            _encode(model, tokenizer, text, where)
        filled = fill(model, tokenizer, [text for _, text in group], top_k=args.top_k)
        if args.json:
            results += [_as_dict(one, name, model.loading.masked_words_head) for one in filled]
        else:
            for one in filled:
                _print_result(one, tokenizer.special_tokens["mask_token"], args.quiet)
    if args.json:
        print_json(results if from_stdin else results[0])
    return 0


def _as_dict(result: Filled, model: str, head: str) -> dict[str, Any]:
    return {
        "model": without_secrets(model),
        "mask_filling_head": head,
        **dataclasses.asdict(result),
    }


def _print_result(result: Filled, mask: str, quiet: bool) -> None:
    from zhbert import console

    console.out().print(result.filled)
    if quiet:
        return
    for first in range(0, len(result.masks), _COLUMNS):
        masks = result.masks[first : first + _COLUMNS]
        numbers = range(first + 1, first + len(masks) + 1)
        several = len(result.masks) > 1
        table = console.table(*(f"{mask} {number}" if several else mask for number in numbers))
        for rank in range(len(masks[0].candidates)):
            table.add_row(*(_cell(m.candidates[rank]) for m in masks))
        console.out().print(table)


def _cell(candidate: Candidate) -> str:
    return f"{candidate.piece} {candidate.probability:.1%}"
