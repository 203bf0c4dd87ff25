"""The account of a prepared corpus: what was read, kept and left out; warnings and remarks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from zhbert.data.block_worker import MOST_PLACES
from zhbert.data.read_options import ReadOptions
from zhbert.data.remarks import on_text
from zhbert.data.sources import TEXT, Sources
from zhbert.text.normalize import DROPPED, describe_dropped
from zhbert.text.segmenters.protocol import describe_unaligned
from zhbert.text.words import AlignmentReport
from zhbert.wording import counted

# Reasons why a document could not be read.
_SKIPPED = ("broken_utf8", "bad_json", "missing_field", "wrong_type", "too_long")
# Reasons why a document or a line that was read is in neither split.
_NO_DOCUMENT = ("empty", "without_pieces", "duplicates_only")
_NO_LINE = ("blank", "without_pieces", "duplicate", "broken_utf8")


def account(
    counts: Counter[str], totals: Mapping[str, Mapping[str, int]], sources: Sources
) -> dict[str, Any]:
    """Account for everything that was read.

    For documents, lines and pieces, the number found is the sum of all the other numbers.

    Args:
        counts: the sums of the blocks' counts.
        totals: the number of documents, lines and pieces in the shards of each split.
        sources: the files that were read.
    """
    return {
        "documents": _part("documents", _NO_DOCUMENT, counts, totals)
        | {"skipped": {what: counts[f"documents.{what}"] for what in _SKIPPED}},
        "lines": _part("lines", _NO_LINE, counts, totals),
        "pieces": {
            "encoded": counts["pieces.encoded"],
            "train": totals["train"]["pieces"],
            "held_out": totals["held_out"]["pieces"],
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
        "characters": _characters(counts),
        "special_token_strings": _under("special_tokens.", counts),
    }


def _part(
    of: str,
    others: Sequence[str],
    counts: Counter[str],
    totals: Mapping[str, Mapping[str, int]],
) -> dict[str, Any]:
    found = {
        "found": counts[f"{of}.found"],
        "train": totals["train"][of],
        "held_out": totals["held_out"][of],
    }
    return found | {what: counts[f"{of}.{what}"] for what in others}


def _characters(counts: Counter[str]) -> dict[str, int]:
    """Return the counts of non-text characters, by kind."""
    lone = counts["characters.lone_surrogates"]
    return {kind: counts[f"characters.{kind}"] for kind in DROPPED} | {
        # Half a surrogate pair has become a U+FFFD; it must be counted once only.
        "replacement": counts["characters.replacement"] - lone,
        "lone_surrogates": lone,
    }


def _under(prefix: str, counts: Counter[str]) -> dict[str, int]:
    return {
        key.removeprefix(prefix): n for key, n in sorted(counts.items()) if key.startswith(prefix)
    }


# A larger lost share of the input deserves a warning.
_MUCH = 0.05
# A larger mean number of lines per document means books, or lines that are separate documents.
_LONG = 5_000


def warnings(read: Mapping[str, Any], reading: ReadOptions) -> list[str]:
    """Return warnings if much of the input was left out.

    Args:
        read: the result of ``account``.
        reading: the options used to read the input.
    """
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


def _why(documents: Mapping[str, Any]) -> str:
    reasons = (f"{n:,} {what.replace('_', ' ')}" for what, n in documents["skipped"].items() if n)
    return f" ({', '.join(reasons)})"


def remarks(info: Mapping[str, Any], counts: Counter[str]) -> list[str]:
    """Return remarks on a corpus from which little can be learnt.

    Args:
        info: the content of corpus.json.
        counts: the sums of the blocks' counts.
    """
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


def describe(report: Mapping[str, Any]) -> str:
    """Format the result of ``prepare`` as lines of text: the account of a corpus."""
    lines = [
        f"{report['folder']}: {counted(len(report['shards']['train']), 'shard')} for training, "
        f"{len(report['shards']['held_out'])} held out",
        *([report["left_out"]] if report.get("left_out") else []),
        *_sums(report["read"]),
        AlignmentReport.from_dict(report["alignment"]).describe(),
        *_notes(report["read"], report["segmenter"]["name"]),
        *report.get("remarks", []),
    ]
    if report["places"]:
        lines.append(f"where (the first {MOST_PLACES} places at most):")
        lines += [f"  {place}" for place in report["places"]]
    if report["reused_blocks"]:
        lines.append(
            f"{counted(report['reused_blocks'], 'block', 'was/were')} finished before and not "
            "made again"
        )
    if "seconds" in report:
        speed = report["bytes"] / 1e6 / max(report["seconds"], 1e-9)
        lines.append(
            f"{report['bytes'] / 1e6:,.1f} MB of files in {report['seconds']:.1f} s: "
            f"{speed:.1f} MB/s; a worker's peak memory: {report['peak_memory'] / 1e6:.0f} MB"
        )
    return "\n".join(lines) + "\n"


def _sums(read: Mapping[str, Any]) -> list[str]:
    """Return lines that add up what was read, kept and left out."""

    def splits(part: Mapping[str, int]) -> str:
        return f"{part['train']:,} training + {part['held_out']:,} held out"

    def others(part: Mapping[str, int], names: Sequence[str]) -> str:
        return "".join(
            f" + {part[name]:,} {name.replace('_', ' ')}" for name in names if part[name]
        )

    documents, lines, pieces = read["documents"], read["lines"], read["pieces"]
    skipped = sum(documents["skipped"].values())
    return [
        f"documents  {documents['found']:,} read = {splits(documents)}"
        + others(documents, _NO_DOCUMENT)
        + (f" + {skipped:,} skipped{_why(documents)}" if skipped else ""),
        f"lines      {lines['found']:,} read = {splits(lines)}" + others(lines, _NO_LINE),
        f"pieces     {pieces['encoded']:,} made = {splits(pieces)}",
    ]


def _notes(read: Mapping[str, Any], segmenter: str) -> list[str]:
    """Return notes on other observations while reading."""
    notes = []
    if split := ", ".join(f"{n:,} {what}" for what, n in read["split"].items() if n):
        notes.append(f"split because too long: {split}; nothing of them is lost")
    if by_character := read["sentences_cut_by_character"]:
        notes.append(describe_unaligned(segmenter, by_character))
    files = read["files"]
    if files["empty"] or files["damaged"]:
        notes.append(
            f"files      {files['read']:,} read, {files['empty']:,} of them empty, "
            f"{files['damaged']:,} damaged"
        )
    for what, n in files["read_as"].items():
        notes.append(f"read as {what}: {counted(n, 'file')}")
    if any(read["characters"].values()):
        notes.append(describe_dropped(read["characters"]))
    if tokens := ", ".join(f"{token} {n:,}" for token, n in read["special_token_strings"].items()):
        notes.append(f"strings like special tokens, kept as plain text: {tokens}")
    return notes
