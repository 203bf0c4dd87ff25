"""Search: the texts of a corpus that are most similar to queries."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from zhbert.errors import ZhbertError
from zhbert.files import read_json_if_sound, write_json
from zhbert.folders import locked
from zhbert.retrieval.embed import Progress
from zhbert.retrieval.index import WORTHWHILE, ApproximateIndex, check_usearch
from zhbert.retrieval.store import VectorStore
from zhbert.retrieval.texts import read_texts
from zhbert.sentences.nearest import nearest
from zhbert.tasks.sources import named_source
from zhbert.zoo import locate

if TYPE_CHECKING:
    from zhbert.sentences.encoder import SentenceEncoder

Remark = Callable[[str], None]


@dataclass(frozen=True)
class Hit:
    """A text that was found."""

    rank: int
    """From 1."""
    score: float
    """The similarity to the query."""
    id: str
    """The text's id in the corpus, or the number of its row from 0."""
    text: str


class Search:
    """An open corpus, to be asked again and again.

    Args:
        encoder: the sentence model.
        store: the corpus's texts and vectors.
        approximate: the graph over the vectors; None: all vectors are compared.
    """

    def __init__(
        self, encoder: SentenceEncoder, store: VectorStore, approximate: ApproximateIndex | None
    ) -> None:
        self._encoder, self._store, self._approximate = encoder, store, approximate

    @property
    def texts(self) -> int:
        """The number of texts in the corpus."""
        return self._store.count

    def answer(self, queries: Sequence[str], top_k: int = 10) -> list[list[Hit]]:
        """Return the texts that are most similar to each query, the most similar first.

        Raises:
            ZhbertError: a query is empty, or ``top_k`` is less than 1.
        """
        for number, query in enumerate(queries, start=1):
            if not query.strip():
                raise ZhbertError(f"query {number} is empty; give a text")
        cosine = ranks_by_cosine(self._encoder)
        asked = np.asarray(self._encoder.encode_query(queries, normalize_embeddings=cosine))
        # The vectors have the length 1 if their cosine is wanted.
        if self._approximate is not None:
            scores, indices = self._approximate.search(asked, top_k)
        else:
            scores, indices = nearest(asked, self._store.vectors, top_k, similarity="dot")
        return [
            [
                Hit(rank, float(score), *self._store.text(int(index)))
                for rank, (score, index) in enumerate(zip(*row, strict=True), start=1)
                if index >= 0
            ]
            for row in zip(scores, indices, strict=True)
        ]


def ranks_by_cosine(encoder: SentenceEncoder) -> bool:
    """Return whether texts are ranked by the cosine, and not by the inner product."""
    return encoder.similarity_fn_name != "dot"


@contextmanager
def opened_search(
    model: str | os.PathLike[str],
    corpus: str | os.PathLike[str] | None = None,
    *,
    index: str | os.PathLike[str] | None = None,
    field: str | None = None,
    encoding: str | None = None,
    precision: str = "fp32",
    exact: bool = False,
    overwrite: bool = False,
    quiet: bool = True,
    remark: Remark = lambda line: None,
    progress: Progress = lambda doing, done, total: None,
) -> Iterator[Search]:
    """Open a corpus for search; compute the vectors of its texts unless ``index`` has them.

    >>> from zhbert.files import write_text
    >>> with TemporaryDirectory() as folder:
    ...     write_text(f"{folder}/corpus.txt", "猫在睡觉。\\n股票跌了。\\n")
    ...     with opened_search("mini", f"{folder}/corpus.txt") as search:
    ...         search.answer(["股价下跌"], top_k=1)[0][0].text
    '股票跌了。'

    Args:
        model: what `SentenceEncoder.from_pretrained` opens. Its prompts ``document`` and ``query``
            are used, if it has them.
        corpus: a file of texts in a form that `read_texts` takes; None: that of ``index``.
        index: a folder that keeps the texts and vectors. If the corpus has grown since, only the
            new texts are encoded. From 100,000 texts on it also keeps an index of usearch. None: a
            temporary folder.
        field, encoding: as for `read_texts`.
        precision: what the model computes in: ``fp32``, ``bf16`` or ``int8``.
        exact: compare with all vectors, however many.
        overwrite: make ``index`` anew.
        quiet: show no progress of a download, and no warning about a plain BERT.
        remark: called with each remark, one line each.
        progress: called after each group of texts.

    Raises:
        ZhbertError: the model or a file is unusable; ``index`` was made with another model or from
            other texts, or is damaged.
    """
    if corpus is None and index is None:
        raise ZhbertError("give --corpus FILE, or --index DIR that has been made of one")
    if corpus is None and overwrite:
        raise ZhbertError(
            "--overwrite makes the index anew: give --corpus FILE, of which it is made"
        )
    if corpus is None and not (Path(index or "") / _CORPUS).is_file():
        raise ZhbertError(
            f"--index {index}: no finished index there; give --corpus FILE, of which it is made"
        )
    if corpus is not None and os.fspath(corpus) == "-":
        raise ZhbertError("--corpus -: stdin may have queries; write the texts to a file first")
    source = None if corpus is None else named_source(corpus)
    locate(os.fspath(model), quiet=quiet)
    with TemporaryDirectory(prefix="zhbert-search-") as temporary:
        made = _Corpus(Path(index or temporary), source, field, encoding)
        total = made.count(remark)
        keeps_graph = index is not None and not exact
        if keeps_graph and total is not None and total >= WORTHWHILE:
            check_usearch()
        from zhbert.sentences.encoder import SentenceEncoder

        encoder = SentenceEncoder.from_pretrained(
            os.fspath(model), precision=precision, quiet=quiet
        )
        if encoder.similarity_fn_name not in ("cosine", "dot"):
            remark(f"the model's similarity is {encoder.similarity_fn_name}: ranked by the cosine")
        store = made.opened(encoder, overwrite, total, remark, progress)
        graph = None
        if keeps_graph and store.count >= WORTHWHILE:
            graph = ApproximateIndex(store.folder, store.vectors)
            if not graph.open():
                with locked(store.folder, "--index"):
                    graph.build(lambda count: progress("indexing", count, store.count))
            remark(
                f"searching by usearch, which finds {graph.recall:.1%} of the 10 nearest (measured "
                "on texts of the corpus); --exact finds all"
            )
        yield Search(encoder, store, graph)


# How the corpus stood when the index was finished; it is written last.
_CORPUS = "corpus.json"


class _Corpus:
    """A file of texts, and the folder of its vectors."""

    def __init__(self, folder: Path, source: Any, field: str | None, encoding: str | None) -> None:
        self._folder, self._source = folder, source
        self._field, self._encoding = field, encoding
        self._seen = read_json_if_sound(folder / _CORPUS)
        self.unchanged = source is None or self._stamp() == {
            key: self._seen.get(key) for key in self._stamp()
        }
        """Whether the folder has the vectors of all texts, as far as the file's date can tell."""

    def _stamp(self) -> dict[str, Any]:
        found = self._source.stat()
        return {
            "corpus": str(self._source.resolve()),
            "bytes": found.st_size,
            "modified": found.st_mtime_ns,
        }

    def count(self, remark: Remark) -> int | None:
        """Return the number of texts; read all of them, so that a broken row is found early."""
        if self.unchanged:
            return self._seen.get("texts")
        total = sum(1 for _ in self._texts(remark))
        if not total:
            raise ZhbertError(f"{self._source}: no texts in it")
        return total

    def _texts(self, remark: Remark = lambda line: None) -> Iterator[Any]:
        return read_texts(self._source, field=self._field, encoding=self._encoding, remark=remark)

    def opened(
        self,
        encoder: SentenceEncoder,
        overwrite: bool,
        total: int | None,
        remark: Remark,
        progress: Progress,
    ) -> VectorStore:
        """Return the store, with the vectors of all texts."""
        from zhbert.retrieval.identity import identity_of

        options: dict[str, Any] = {"normalize_embeddings": ranks_by_cosine(encoder)}
        identity = {**identity_of(encoder), **options}
        store = VectorStore(
            self._folder,
            encoder.encode_document([], **options).shape[1],
            what="an index",
            option="--index",
            anew="make it anew with --overwrite",
        )
        if self.unchanged and not overwrite:
            store.open(identity)
            return store
        with locked(self._folder, "--index"):
            store.begin(identity, anew=overwrite)
            before = store.count
            store.fill(
                self._texts(),
                lambda texts: np.asarray(encoder.encode_document(texts, **options)),
                lambda count: progress("encoding", count, total),
            )
            if 0 < self._seen.get("texts", 0) == before < store.count:
                remark(f"{self._source} has changed: {store.count - before:,} texts more, added")
            write_json(self._folder / _CORPUS, {**self._stamp(), "texts": store.count})
        return store
