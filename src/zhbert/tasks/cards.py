"""Task cards: a TOML file says where a task's examples are, how they are scored, what is published.

A card is named by the stem of a file that ships with the package (``lcqmc``) or by a path.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zhbert.config import named_file
from zhbert.data.sources import check_encoding
from zhbert.errors import ZhbertError
from zhbert.files import read_text, read_toml
from zhbert.schema import build, suggest
from zhbert.tasks.schemes import SchemeError, scheme_of, tags_of_types
from zhbert.wording import counted, listed, nearest, shortly, show

CARDS_FOLDER = Path(__file__).with_name("cards")

METRICS_OF_KIND = {
    "classify": ("accuracy", "f1", "matthews", "f1_micro", "f1_macro", "f1_weighted"),
    "multi_label": ("f1_micro", "f1_macro", "f1_weighted", "exact_match"),
    "regress": ("pearson", "spearman"),
    "tag": ("f1", "accuracy"),
    "span": ("f1", "em"),
}
KINDS = tuple(METRICS_OF_KIND)
FORMATS_OF_KIND = {
    "classify": ("tsv", "csv", "jsonl", "parquet"),
    "multi_label": ("tsv", "csv", "jsonl", "parquet"),
    "regress": ("tsv", "csv", "jsonl", "parquet"),
    "tag": ("bio", "jsonl"),
    "span": ("squad",),
}
# Keys of [data] that mean something to some kinds, or in some formats, alone.
_ROWS, _TABLES = ("classify", "multi_label", "regress"), ("tsv", "csv")
_KEYS_FOR = {
    **dict.fromkeys(("text_pair", "id", "where", "split_column"), _ROWS),
    **dict.fromkeys(("text", "label"), (*_ROWS, "bio")),
    **dict.fromkeys(("header", "quoting", "skip_broken_rows"), _TABLES),
    **dict.fromkeys(("labels", "labels_file", "label_names"), ("classify", "multi_label", "tag")),
    "rename_labels": ("classify", "multi_label"),
    "drop_labels": ("classify",),
    **dict.fromkeys(("label_delimiter", "threshold"), ("multi_label",)),
    "label_range": ("regress",),
    **dict.fromkeys(("scheme", "drop_word_places"), ("tag",)),
    **dict.fromkeys(("scorer", "yes_no", "no_answer"), ("span",)),
}
SCORERS = ("cmrc2018", "cjrc", "squad1.1", "squad2.0")
SCORERS_OF_NO_ANSWER = ("cjrc", "squad2.0")
SPLITS = ("train", "dev", "test")
FAMILIES = ("bert", "ernie", "small")
# Fields of TaskCard that are no keys of its file.
_NO_KEYS = ("name", "path", "families", "written")

Column = tuple[str | int, ...]
"""A column's possible names, tried in order; a number counts columns from 0."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where the examples are and how they are written."""

    format: str
    """tsv, csv, jsonl or parquet; squad (its JSON and CMRC's, DRCD's, CJRC's); bio: a character
    and its tag a line, a blank line between sentences. To tag, jsonl: spans of texts, as CLUENER,
    Doccano and Label Studio write them."""
    encoding: str = ""
    """What the files are encoded in, where it is not UTF-8: gb18030, big5, utf-16, …"""
    train: tuple[str, ...] = ()
    """Names of the training file, tried in order inside the folder of the data."""
    dev: tuple[str, ...] = ()
    """Names of the file that decides between checkpoints and settings."""
    test: tuple[str, ...] = ()
    """Names of the file to score once, at the end, with ``zhbert evaluate``: training leaves it
    alone."""
    more: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Further splits by name, for example CMRC 2018's challenge set."""
    scored_with_dev: tuple[str, ...] = ()
    """Splits of ``more`` that are scored whenever dev is, where their files are there."""
    folder: str = ""
    """The name of the task's own folder in a collection of tasks, beside the card's name."""
    text: Column = ()
    """The column of the text, or of the first text of a pair; bio: of the character, from 0."""
    text_pair: Column = ()
    """The column of a pair's second text; unset: single texts."""
    label: Column = ()
    """The column of the label or, to regress, of the number; bio: of the tag, from 0. Of several
    labels: of their list, or of a text with ``label_delimiter`` between them; unset: each label has
    a column, 0 or 1."""
    id: Column = ()
    """The column of the example's id; unset: the row's number, from 0."""
    header: bool = True
    """tsv and csv: the first line holds the columns' names."""
    quoting: bool | None = None
    """Quotes hold a field together; unset: in csv they do, in tsv they are text."""
    labels: tuple[str, ...] = ()
    """The labels, in the order of their ids; to tag: the tags, or the types of entities alone."""
    labels_file: str = ""
    """A file beside the card with a label a line, instead of ``labels``."""
    label_names: tuple[str, ...] = ()
    """What to call the labels in print, in the same order; unset: as they are."""
    rename_labels: dict[str, str] = field(default_factory=dict)
    """Other spellings of a label in the files."""
    drop_labels: tuple[str, ...] = ()
    """Rows with these labels are left out, and counted."""
    label_delimiter: str = ","
    """Several labels: what stands between them where they are one text."""
    threshold: float = 0.5
    """Several labels: a label is predicted from this probability on."""
    label_range: tuple[float, ...] = ()
    """To regress: the lowest and the highest number."""
    where: dict[str, str] = field(default_factory=dict)
    """Only rows with this value in that column; a file without the column is read whole."""
    split_column: str = ""
    """Where one file holds all splits: only rows with the split's name in this column."""
    skip_broken_rows: bool = False
    """Rows with too many or too few columns are left out, and counted; unset: an error."""
    scheme: str = ""
    """To tag: one of `zhbert.tasks.schemes.SCHEMES`; unset: told from the labels."""
    drop_word_places: bool = False
    """To tag: a character is followed by its place in its word (``科0``), which is dropped."""
    scorer: str = ""
    """Spans: whose official rules decide, cmrc2018, cjrc, squad1.1 or squad2.0."""
    yes_no: bool = False
    """Spans: the answers YES and NO are judgements, not parts of the text."""
    no_answer: bool = False
    """Spans: a question may have no answer."""

    @property
    def splits(self) -> dict[str, tuple[str, ...]]:
        """Every split's file names: train, dev, test and ``more``, where the card names them."""
        named = {split: getattr(self, split) for split in SPLITS}
        return {split: names for split, names in {**named, **self.more}.items() if names}

    def known_label(self, text: str) -> str | None:
        """The label that is spelled so, or renamed from it, or the same number; else None.

        >>> data = load_card("lcqmc").data
        >>> data.known_label("1"), data.known_label("1.0"), data.known_label("2")
        ('1', '1', None)
        """
        if text in self.labels:
            return text
        spelled = {**self.rename_labels, **{label: label for label in self.labels}}
        if text in spelled or (number := finite_number(text)) is None:
            return spelled.get(text)
        return next((spelled[one] for one in spelled if finite_number(one) == number), None)

    def not_a_label(self, text: Any, what: str = "label") -> str:
        """What to say of a label that the card does not have."""
        if text == "":
            return f"the {what} is empty; the card's labels: {listed(self.labels)}"
        hint = nearest(text, self.labels, "the card's labels")
        return f"the {what} {shortly(text)} is not in the card{hint}"

    @property
    def shown_labels(self) -> dict[str, str]:
        """What people call the labels: the labels and, beside them, ``label_names``."""
        names = self.label_names or self.labels
        pairs = zip(self.labels, names, strict=True)
        return {label: label if name == label else f"{label} {name}" for label, name in pairs}

    @property
    def quoted(self) -> bool:
        """Whether quotes hold the fields of a row together."""
        return self.format == "csv" if self.quoting is None else self.quoting

    @property
    def pairs(self) -> bool:
        """Whether an example is a pair of texts."""
        return bool(self.text_pair)


@dataclass(frozen=True, kw_only=True)
class CardSettings:
    """How the task is fine-tuned unless ``key=value`` says otherwise."""

    epochs: int = 3
    """Passes over the training examples."""
    sequence_length: int = 128
    """The longest row in pieces, [CLS] and [SEP] included."""
    batch_size: int = 32
    """Rows in one optimiser step."""
    learning_rate: float = 3e-5
    """The peak, reached at the end of the warm-up."""
    warmup_share: float = 0.1
    """Share of the steps over which the learning rate rises."""
    doc_stride: int = 128
    """Spans: pieces that neighbouring windows of a long text share."""
    source: str = ""
    """Who published these values, or why they were chosen."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """One figure that somebody printed."""

    source: str
    """Where it stands: the project that printed it."""
    model: str
    """The model's name there."""
    split: str
    """The split that was scored, by the card's names."""
    metric: str
    """The metric by our names, or ``unstated``."""
    max: float
    """The best of the seeds, or the only figure there is, in per cent."""
    mean: float | None = None
    """The mean of the seeds, in per cent; unset: not printed."""
    note: str = ""
    """What is presumed or differs."""


@dataclass(frozen=True, kw_only=True)
class TaskCard:
    """Everything that makes a task, but the examples themselves."""

    title: str
    """One line: the data set and its question."""
    kind: str
    """classify, multi_label, regress, tag or span."""
    metrics: tuple[str, ...]
    """The first decides which checkpoint and which setting is best."""
    data: Data
    """Where the examples are."""
    language: str = "zh"
    """zh or en."""
    licence: str = ""
    """As its owner states it; unset: none stated."""
    note: str = ""
    """What differs from the papers' protocol, what to know."""
    settings: CardSettings = field(default_factory=CardSettings)
    """The settings for models of every family that ``families`` does not name."""
    families: dict[str, CardSettings] = field(default_factory=dict)
    """Other settings for a family of models, for example ``ernie``."""
    official: dict[str, int] = field(default_factory=dict)
    """Examples in each split of the official distribution, for those that are known."""
    published: tuple[Published, ...] = ()
    """Results that were printed, as they were printed."""
    written: frozenset[str] = frozenset()
    """The keys that its [settings] writes; the others have their defaults."""
    name: str = ""
    """The stem of the card's file."""
    path: Path = Path()
    """The card's file."""

    @property
    def ships(self) -> bool:
        """Whether this is one of the package's own cards."""
        return self.path.parent == CARDS_FOLDER

    def settings_for(self, family: str | None = None) -> CardSettings:
        """The settings for a family of models ("ernie"), else the card's."""
        return self.families.get(family or "", self.settings)


def card_names() -> list[str]:
    """The names of the cards that ship with the package."""
    return sorted(path.name.removesuffix(".toml") for path in CARDS_FOLDER.glob("*.toml"))


def card_path(name: str | os.PathLike[str]) -> Path:
    """The file of a card named by its stem (``lcqmc``) or by a path (``my/task.toml``).

    Raises ZhbertError where there is none, naming the cards that there are.
    """
    text = os.fspath(name)
    # Its own name in any case; a path as it stands.
    own = text.lower() if text.lower() in card_names() else text
    path = named_file(own, CARDS_FOLDER, "task")
    if path is None:
        names = suggest(text.lower(), card_names())
        raise ZhbertError(f"no task '{text}'; a card of your own ends in .toml{names}")
    return path


def load_card(name: str | os.PathLike[str]) -> TaskCard:
    """Read and check a card; raises ZhbertError in one line that names key, value and choices.

    >>> card = load_card("lcqmc")
    >>> card.kind, card.metrics, card.data.labels, card.settings_for("ernie").learning_rate
    ('classify', ('accuracy',), ('0', '1'), 3e-05)
    """
    path = card_path(name)
    return parse_card(read_toml(path, "a task's card"), path)


def parse_card(table: Mapping[str, Any], path: Path) -> TaskCard:
    """Turn a TOML table into a checked TaskCard; ``path`` names it and its files.

    >>> parse_card({"title": "t", "kind": "clasify", "metrics": [], "data": {}}, Path("my.toml"))
    Traceback (most recent call last):
    zhbert.errors.ZhbertError: my.toml: kind = "clasify": not a choice; did you mean 'classify'?
    """
    where = path.name
    table = dict(table)
    if "kind" in table:
        # Before the rest: what else must be there depends on it.
        _choice(table["kind"], KINDS, f"{where}: kind")
    for key in _NO_KEYS:
        if key in table:
            raise ZhbertError(f"{where}: unknown key '{key}'; the card's name is its file's")
    section = table.pop("settings", {})
    settings, families = _settings(section, where)
    published = table.pop("published", [])
    if not isinstance(published, list) or not all(isinstance(one, Mapping) for one in published):
        raise ZhbertError(f"{where}: published must be sections, [[published]]")
    data = table.get("data")
    if isinstance(data, Mapping):
        table["data"] = {key: _listed(key, value) for key, value in data.items()}
    card = build(TaskCard, table, "", where, _known_keys)
    data = card.data
    _check_keys(card.kind, data, table["data"], where)
    if data.labels_file:
        if data.labels:
            raise ZhbertError(f"{where}: data.labels and data.labels_file: remove one of them")
        labels = _read_labels(path.parent / data.labels_file, f"{where}: data.labels_file")
        data = dataclasses.replace(data, labels=labels)
    if card.kind == "tag":
        data = dataclasses.replace(data, labels=tags_of_types(data.labels, data.scheme))
    card = dataclasses.replace(
        card,
        name=where.removesuffix(".toml"),
        path=path,
        data=data,
        settings=settings,
        families=families,
        written=frozenset(k for k, v in section.items() if not isinstance(v, Mapping)),
        published=tuple(
            build(Published, one, f"published[{place}].", where)
            for place, one in enumerate(published)
        ),
    )
    check_card(card)
    return card


def check_card(card: TaskCard) -> None:
    """Refuse values out of range, and values that contradict each other."""
    where, data = card.path.name, card.data
    _choice(card.kind, KINDS, f"{where}: kind")
    if not card.metrics:
        known = ", ".join(METRICS_OF_KIND[card.kind])
        raise ZhbertError(f"{where}: metrics = []: name one or more of {known}")
    for metric in card.metrics:
        _choice(metric, METRICS_OF_KIND[card.kind], f"{where}: metrics")
    _choice(card.language, ("zh", "en"), f"{where}: language")
    if data.encoding:
        check_encoding(data.encoding, f"{where}: data.encoding =")
    _check_splits(data, where)
    for of, check in _CHECKS:
        if card.kind in of or data.format in of:
            check(card, where)
    for family, settings in {"": card.settings, **card.families}.items():
        _check_settings(settings, f"{where}: settings." + (f"{family}." if family else ""))
    for one in card.published:
        _choice(one.metric, (*card.metrics, *METRICS_OF_KIND[card.kind], "unstated"),
                f"{where}: published: {one.model}: metric")  # fmt: skip
        _choice(one.split, tuple(data.splits) or SPLITS, f"{where}: published: {one.model}: split")
    for split in card.official:
        _choice(split, tuple(data.splits), f"{where}: official")


def with_encoding(card: TaskCard, encoding: str | None) -> TaskCard:
    """A card whose files are encoded otherwise (--encoding); None: as the card says."""
    if encoding is None:
        return card
    if encoding:
        check_encoding(encoding)
    return dataclasses.replace(card, data=dataclasses.replace(card.data, encoding=encoding))


def is_official_split(card: TaskCard, split: str, examples: int) -> bool | None:
    """Whether a split of so many examples can be the official one; None where that is not known.

    One in a thousand may be missing: distributions drop a few broken rows differently.

    >>> is_official_split(load_card("lcqmc"), "dev", 8802)
    True
    >>> is_official_split(load_card("lcqmc"), "dev", 1000)
    False
    """
    official = card.official.get(split)
    return None if official is None else abs(examples - official) <= official / 1000


def split_of(card: TaskCard, path: Path, named: str | None = None) -> str:
    """The split that somebody named; else the one that the card knows this file's name for; dev.

    Raises ZhbertError where the card has no split of that name.
    """
    splits = card.data.splits
    if named is not None and named not in splits:
        raise ZhbertError(f"--split {named}: not in {card.name}{suggest(named, splits)}")
    # A name may hold folders.
    theirs = [
        split
        for split, names in splits.items()
        if any(path.parts[-len(Path(name).parts) :] == Path(name).parts for name in names)
    ]
    return named or (theirs[0] if theirs and "dev" not in theirs else "dev")


def split_remark(card: TaskCard, split: str, examples: int) -> str:
    """Where a split is a cut of the official one: a sentence that says so; else nothing."""
    if is_official_split(card, split, examples) is not False:
        return ""
    return (
        f"{card.name}: {split} has {counted(examples, 'example')} here, the official {split} "
        f"{card.official[split]:,}: scores on it are not the papers' protocol"
    )


def _settings(table: Any, where: str) -> tuple[CardSettings, dict[str, CardSettings]]:
    """The values at the top of [settings] are everyone's; a section in it is one family's."""
    if not isinstance(table, Mapping):
        raise ZhbertError(f"{where}: settings = {show(table)}: must be a section, [settings]")
    common = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    for family, values in table.items():
        if isinstance(values, Mapping):
            _choice(family.lower(), FAMILIES, f"{where}: a section of settings")
    families = {
        family.lower(): build(CardSettings, {**common, **values}, f"settings.{family}.", where)
        for family, values in table.items()
        if isinstance(values, Mapping)
    }
    return build(CardSettings, common, "settings.", where), families


def _check_settings(settings: CardSettings, label: str) -> None:
    for key in ("epochs", "batch_size", "learning_rate", "doc_stride"):
        if not getattr(settings, key) > 0:
            raise ZhbertError(f"{label}{key} = {show(getattr(settings, key))}: must be above 0")
    if settings.sequence_length < 8:
        raise ZhbertError(f"{label}sequence_length = {settings.sequence_length}: must be 8 or more")
    if not 0 <= settings.warmup_share <= 1:
        raise ZhbertError(f"{label}warmup_share = {settings.warmup_share}: must be from 0 to 1")


def _check_keys(kind: str, data: Data, written: Iterable[str], where: str) -> None:
    """A key that says nothing of this kind is a mistake: it would be passed over in silence."""
    _choice(data.format, FORMATS_OF_KIND[kind], f"{where}: data.format")
    for key in written:
        of = _KEYS_FOR.get(key, KINDS)
        if kind not in of and data.format not in of:
            this = f"format {data.format}" if of == _TABLES else f"kind {kind}"
            raise ZhbertError(f"{where}: data.{key}: is for {' and '.join(of)}, not for {this}")


def _check_splits(data: Data, where: str) -> None:
    if not data.train and not data.dev:
        raise ZhbertError(f"{where}: data: neither train nor dev names a file")
    for split in data.scored_with_dev:
        _choice(split, tuple(data.more), f"{where}: data.scored_with_dev")
    for split in data.more:
        if split in SPLITS:
            raise ZhbertError(f"{where}: data.more.{split}: {split} is a key of [data] itself")
        if not re.fullmatch("[A-Za-z0-9_-]+", split):
            raise ZhbertError(
                f"{where}: data.more: {show(split)}: a split's name is made of letters, digits, "
                "'_' and '-'"
            )
    # Scores are named by their splits, dev_hard's and hard's alike.
    short = [split.removeprefix("dev_") for split in data.scored_with_dev]
    if twice := next((name for name in short if short.count(name) > 1), None):
        raise ZhbertError(
            f"{where}: data.scored_with_dev: the scores of two splits would be named {twice}"
        )


def _check_columns(card: TaskCard, where: str) -> None:
    data = card.data
    for key in ("text", "label"):
        # Several labels may have a column each.
        if not getattr(data, key) and (key, card.kind) != ("label", "multi_label"):
            raise ZhbertError(f"{where}: data: '{key}' is missing: the column of the {key}")
    tabular = data.format in ("tsv", "csv")
    for key in ("where", "split_column"):
        if getattr(data, key) and tabular and not data.header:
            raise ZhbertError(
                f"{where}: data.{key}: without a header (header = false) no column has a name"
            )
    for key in ("text", "text_pair", "label", "id"):
        for name in getattr(data, key):
            if isinstance(name, int) and (name < 0 or not tabular):
                hint = "0 or more" if tabular else f"a name: {data.format} has no numbered columns"
                raise ZhbertError(f"{where}: data.{key} = {name}: must be {hint}")
            if isinstance(name, str) and tabular and not data.header:
                raise ZhbertError(
                    f"{where}: data.{key} = {show(name)}: without a header (header = false) a "
                    "column is a number, from 0"
                )


def _check_labels(card: TaskCard, where: str) -> None:
    labels = card.data.labels
    if len(labels) < 2:
        raise ZhbertError(
            f"{where}: data.labels = {show(labels)}: name two or more, in the order of their ids, "
            "or name a labels_file"
        )
    data = card.data
    for key in ("labels", "rename_labels", "drop_labels"):
        for label in getattr(data, key):
            # Files' labels are read without what stands around them.
            if label != label.strip() or re.search(r"[\t\r\n]", label):
                raise ZhbertError(
                    f"{where}: data.{key}: {show(label)}: no tab or line end in a label, and no "
                    "space around it"
                )
    for place, label in enumerate(labels):
        if label in labels[:place]:
            raise ZhbertError(f"{where}: data.labels: {show(label)} stands there twice")
    if card.data.label_names and len(card.data.label_names) != len(labels):
        raise ZhbertError(
            f"{where}: data.label_names: {len(card.data.label_names)} names for {len(labels)} "
            "labels"
        )
    for other, label in card.data.rename_labels.items():
        _choice(label, labels, f"{where}: data.rename_labels.{other}")
    if "f1" in card.metrics and card.kind == "classify" and len(labels) != 2:
        raise ZhbertError(
            f"{where}: metrics: f1 needs two labels, the second the positive one; there are "
            f"{len(labels)}"
        )


def _place_of(card: TaskCard, value: str) -> str:
    """The file and line in which a label of the card is written, as far as they are found."""
    path, written = card.path, [show(value), f"'{value}'"]
    if card.data.labels_file:
        path, written = path.parent / card.data.labels_file, [value]
    if path.is_file():
        for number, line in enumerate(read_text(path).split("\n"), start=1):
            if any(one in line for one in written):
                return f"{path.name}:{number}"
    return path.name


def _check_several_labels(card: TaskCard, where: str) -> None:
    data = card.data
    if not 0 < data.threshold < 1:
        raise ZhbertError(
            f"{where}: data.threshold = {show(data.threshold)}: must be above 0 and below 1"
        )
    if not data.label_delimiter:
        raise ZhbertError(f'{where}: data.label_delimiter = "": must be a text, for example ","')
    for label in data.labels if data.label else ():
        if data.label_delimiter in label:
            raise ZhbertError(
                f"{where}: data.labels: {show(label)} holds label_delimiter, "
                f"{show(data.label_delimiter)}; choose another one"
            )
    if not data.label and data.format in _TABLES and not data.header:
        raise ZhbertError(
            f"{where}: data: 'label' is missing: without a header (header = false) no column has a "
            "label's name"
        )


def _check_numbered_columns(card: TaskCard, where: str) -> None:
    for key in ("text", "label"):
        for number in getattr(card.data, key):
            if not isinstance(number, int) or number < 0:
                raise ZhbertError(f"{where}: data.{key} = {show(number)}: must be a number, from 0")


def _check_range(card: TaskCard, where: str) -> None:
    ends = card.data.label_range
    if len(ends) != 2 or not all(map(math.isfinite, ends)) or ends[0] >= ends[1]:
        raise ZhbertError(
            f"{where}: data.label_range = {show(ends)}: must be the lowest and the highest number, "
            "for example [0, 5]"
        )


def _check_scheme(card: TaskCard, where: str) -> None:
    try:
        scheme_of(card.data.labels, card.data.scheme)
    except SchemeError as error:
        raise ZhbertError(f"{_place_of(card, error.label)}: data: {error}") from None


def _check_scorer(card: TaskCard, where: str) -> None:
    scorer = card.data.scorer
    _required_choice("scorer", scorer, SCORERS, where)
    if card.data.no_answer and scorer not in SCORERS_OF_NO_ANSWER:
        raise ZhbertError(
            f"{where}: data.no_answer = true: {scorer} has no score for a question without an "
            f"answer; the scorer must be {' or '.join(SCORERS_OF_NO_ANSWER)}"
        )


# Kinds and formats, and what is checked of them, in this order.
_CHECKS: tuple[tuple[tuple[str, ...], Callable[[TaskCard, str], None]], ...] = (
    (_ROWS, _check_columns),
    (("bio",), _check_numbered_columns),
    (_KEYS_FOR["labels"], _check_labels),
    (("multi_label",), _check_several_labels),
    (("regress",), _check_range),
    (("tag",), _check_scheme),
    (("span",), _check_scorer),
)


def finite_number(text: str) -> float | None:
    """The number that a text spells; None where it spells none, or an infinite one."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _choice(value: Any, choices: tuple[str, ...], label: str) -> None:
    if value not in choices:
        raise ZhbertError(f"{label} = {show(value)}: not a choice{suggest(value, choices)}")


def _required_choice(key: str, value: str, choices: tuple[str, ...], where: str) -> None:
    if not value:
        raise ZhbertError(
            f"{where}: data: '{key}' is missing; write {key} = \"{choices[0]}\""
            + (f", or {', '.join(choices[1:])}" if choices[1:] else "")
        )
    _choice(value, choices, f"{where}: data.{key}")


def _listed(key: str, value: Any) -> Any:
    """A single column or file name stands for a list of one."""
    if key in ("text", "text_pair", "label", "id", "train", "dev", "test"):
        return [value] if type(value) in (str, int) else value
    if key == "more" and isinstance(value, Mapping):
        return {name: [one] if isinstance(one, str) else one for name, one in value.items()}
    return value


def _known_keys(key: str, prefix: str, known: Iterable[str]) -> str:
    """A hint for an unknown key: the near one, the section it belongs to, or the list."""
    if not prefix and key in {item.name for item in dataclasses.fields(Data)}:
        return f"; did you mean '{key}' in [data]?"
    return suggest(key, [name for name in known if name not in _NO_KEYS])


def _read_labels(path: Path, label: str) -> tuple[str, ...]:
    try:
        lines = read_text(path, "a label a line").split("\n")
    except ZhbertError as error:
        raise ZhbertError(f"{label}: {error}") from None
    return tuple(line.strip() for line in lines if line.strip())
