"""The account of a prepared corpus: where everything that was read has gone, and what to know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from zhbert.data.block_worker import MOST_PLACES
from zhbert.data.read_options import ReadOptions
from zhbert.data.remarks import on_text
from zhbert.data.sources import TEXT, Sources
from zhbert.text.normalize import DROPPED, describe_dropped
from zhbert.text.segmenters.protocol import describe_unaligned
from zhbert.text.words import AlignmentReport
from zhbert.wording import counted

_SKIPPED = ("broken_utf8", "bad_json", "missing_field", "wrong_type", "too_long")


def account(
    counts: Counter[str], totals: dict[str, dict[str, int]], sources: Sources
) -> dict[str, Any]:
    """Where everything that was read has gone; the sums are equalities."""
    train, held_out = totals["train"], totals["held_out"]
    lone_surrogates = counts["characters.lone_surrogates"]

    def part(of: str, *others: str) -> dict[str, Any]:
        found = {"found": counts[f"{of}.found"], "train": train[of], "held_out": held_out[of]}
        return found | {what: counts[f"{of}.{what}"] for what in others}

    skipped = {what: counts[f"documents.{what}"] for what in _SKIPPED}
    return {
        "documents": part("documents", "empty", "without_pieces", "duplicates_only")
        | {"skipped": skipped},
        "lines": part("lines", "blank", "without_pieces", "duplicate", "broken_utf8"),
        "pieces": {
            "encoded": counts["pieces.encoded"],
            "train": train["pieces"],
            "held_out": held_out["pieces"],
        },
        "punctuation": counts["pieces.punctuation"],
        "split": {
            "documents": counts["documents.split"],
            "lines": counts["lines.split"],
            "sentences": counts["sentences.cut"],
        },
        "sentences_cut_by_character": counts["sentences.unaligned"],
        "files": {
            "read": counts["files.read"],
            "empty": counts["files.empty"],
            "damaged": counts["files.damaged"],
            "left_out": len(sources.left_out),
            "read_as": _under("told.", counts),
        },
        # Half a surrogate pair has become a U+FFFD, but is counted once.
        "characters": {kind: counts[f"characters.{kind}"] for kind in DROPPED}
        | {
            "replacement": counts["characters.replacement"] - lone_surrogates,
            "lone_surrogates": lone_surrogates,
        },
        "special_token_strings": _under("special_tokens.", counts),
    }


def _under(prefix: str, counts: Counter[str]) -> dict[str, int]:
    return {
        key.removeprefix(prefix): n for key, n in sorted(counts.items()) if key.startswith(prefix)
    }


# Of what was read, more than this much lost deserves a warning of its own.
_MUCH = 0.05
# Lines of a document, on average: a book, or lines that are documents themselves.
_LONG = 5_000


def warnings(read: dict[str, Any], reading: ReadOptions) -> list[str]:
    """What must not be overlooked: much of the input was left out."""
    found = []
    lines, documents = read["lines"], read["documents"]
    undecoded = f": they are {reading.broken.reason}; {reading.way_out}"
    if (lost := lines["broken_utf8"]) > _MUCH * lines["found"]:
        found.append(f"{lost:,} of {lines['found']:,} lines were left out{undecoded}")
    lost = sum(documents["skipped"].values())
    if lost > _MUCH * documents["found"]:
        why = undecoded if documents["skipped"]["broken_utf8"] == lost else _why(documents)
        found.append(f"{lost:,} of {documents['found']:,} documents were left out{why}")
    if damaged := read["files"]["damaged"]:
        found.append(
            f"{damaged:,} of {counted(read['files']['read'], 'file')} could not be read, or not to "
            "the end"
        )
    return found


def _why(documents: dict[str, Any]) -> str:
    reasons = (f"{n:,} {what.replace('_', ' ')}" for what, n in documents["skipped"].items() if n)
    return f" ({', '.join(reasons)})"


def remarks(info: dict[str, Any], counts: Counter[str]) -> list[str]:
    """What can hardly be learnt from this corpus, and why."""
    found = []
    totals = [info["totals"][split] for split in ("train", "held_out")]
    documents, lines, sentences = (
        sum(total[name] for total in totals) for name in ("documents", "lines", "sentences")
    )
    found_whole = documents - counts["documents.divided"]
    if (
        info["options"]["documents"] == "blank"
        and counts[f"form.{TEXT}"]
        and (found_whole == 1 < lines or lines > _LONG * found_whole)
    ):
        found.append(
            f"{counted(lines, 'line')} in {counted(found_whole, 'document')}: a blank line "
            "separates documents; where each line is one, say --documents line"
        )
    if documents > 1 and sentences == documents:
        found.append(
            "every document is one sentence: no two follow each other, so there are no sentence "
            'pairs to learn from (rows.builder = "pairs")'
        )
    return found + on_text(info)


def describe(report: dict[str, Any]) -> str:
    """The account of a prepared corpus, for people."""
    read = report["read"]
    documents, lines, pieces = read["documents"], read["lines"], read["pieces"]

    def others(part: dict[str, Any], names: Sequence[str]) -> str:
        return "".join(
            f" + {part[name]:,} {name.replace('_', ' ')}" for name in names if part[name]
        )

    skipped = sum(documents["skipped"].values())
    rows = [
        f"{report['folder']}: {counted(len(report['shards']['train']), 'shard')} for training, "
        f"{len(report['shards']['held_out'])} held out",
        *([report["left_out"]] if report.get("left_out") else []),
        f"documents  {documents['found']:,} read = {documents['train']:,} training + "
        f"{documents['held_out']:,} held out"
        + others(documents, ("empty", "without_pieces", "duplicates_only"))
        + (f" + {skipped:,} skipped{_why(documents)}" if skipped else ""),
        f"lines      {lines['found']:,} read = {lines['train']:,} training + "
        f"{lines['held_out']:,} held out"
        + others(lines, ("blank", "without_pieces", "duplicate", "broken_utf8")),
        f"pieces     {pieces['encoded']:,} made = {pieces['train']:,} training + "
        f"{pieces['held_out']:,} held out",
        AlignmentReport.from_dict(report["alignment"]).describe(),
    ]
    split = {what: n for what, n in read["split"].items() if n}
    if split:
        parts = ", ".join(f"{n:,} {what}" for what, n in split.items())
        rows.append(f"split because too long: {parts}; nothing of them is lost")
    by_character = read["sentences_cut_by_character"]
    if by_character:
        rows.append(describe_unaligned(report["segmenter"]["name"], by_character))
    if read["files"]["empty"] or read["files"]["damaged"]:
        rows.append(
            f"files      {read['files']['read']:,} read, {read['files']['empty']:,} of them empty, "
            f"{read['files']['damaged']:,} damaged"
        )
    for what, n in read["files"]["read_as"].items():
        rows.append(f"read as {what}: {counted(n, 'file')}")
    if any(read["characters"].values()):
        rows.append(describe_dropped(read["characters"]))
    tokens = read["special_token_strings"]
    if tokens:
        parts = ", ".join(f"{token} {n:,}" for token, n in tokens.items())
        rows.append(f"strings like special tokens, kept as plain text: {parts}")
    rows += report.get("remarks", [])
    if report["places"]:
        rows.append(f"where (the first {MOST_PLACES} places at most):")
        rows += [f"  {place}" for place in report["places"]]
    if report["reused_blocks"]:
        rows.append(
            f"{counted(report['reused_blocks'], 'block', 'was/were')} finished before and not "
            "made again"
        )
    if "seconds" in report:
        speed = report["bytes"] / 1e6 / max(report["seconds"], 1e-9)
        rows.append(
            f"{report['bytes'] / 1e6:,.1f} MB in {report['seconds']:.1f} s: {speed:.1f} MB/s; "
            f"a worker's peak memory: {report['peak_memory'] / 1e6:.0f} MB"
        )
    return "\n".join(rows) + "\n"
