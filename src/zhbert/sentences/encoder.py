"""SentenceEncoder: texts to vectors, with the names and results of sentence-transformers.

Shapes: N = number of texts, D = dimension of the vectors, H = hidden size.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from zhbert.errors import ZhbertError
from zhbert.files import atomic_folder
from zhbert.folders import Claim
from zhbert.inference.onnx_model import runs_by_onnx
from zhbert.inference.rows import PieceRows
from zhbert.inference.run_model import device_of, run_model
from zhbert.model.folder import check_vocabulary
from zhbert.model.loading import UntrainedWeightsWarning
from zhbert.packing import PackedBatch
from zhbert.runtime import choose_dtype, device_named
from zhbert.schema import check_choice
from zhbert.sentences.model import SentenceModel
from zhbert.sentences.modules import SentenceConfig, check_prompt_name, is_static
from zhbert.sentences.quantization import PRECISIONS, quantize_embeddings
from zhbert.sentences.similarity import SIMILARITIES, Vectors, similarity, similarity_pairwise
from zhbert.sentences.static import StaticModel, piece_vectors
from zhbert.terminal import progress
from zhbert.text.tokenizer import Tokenizer
from zhbert.wording import shortly
from zhbert.zoo import catalogue, locate
from zhbert.zoo.layout import is_model_alone, sentence_folder
from zhbert.zoo.upload import Pushable

WINDOW = 16_384
"""The number of texts that `SentenceEncoder.encode_stream` keeps in memory at a time."""
# The number of texts after which the progress that is shown moves on.
_SHOWN = 1_024
_PROMPTS = {"query": "", "document": ""}
_OUTPUTS = ("sentence_embedding", "token_embeddings")


class SentenceEncoder(Pushable):
    """A sentence model with its tokenizer and prompts.

    >>> encoder = SentenceEncoder.from_pretrained("mini", quiet=True)
    >>> vectors = encoder.encode(["今天天气很好。", "今天天气不错。", "股票跌了。"])
    >>> vectors.shape
    (3, 256)
    >>> scores = encoder.similarity(vectors, vectors)
    >>> bool(scores[0, 1] > scores[0, 2])
    True
    """

    def __init__(self, model: SentenceModel | StaticModel, tokenizer: Tokenizer) -> None:
        self.model = model
        self.tokenizer = _lower_case(tokenizer) if model.sentence.do_lower_case else tokenizer
        self.dtype = torch.float32
        """The dtype that the BERT computes in: float32, bfloat16 or int8, as for
        `zhbert.inference.run_model.run_model`. Vectors are float32."""

    # -- folders -----------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        device: str | torch.device | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        similarity_fn_name: str | None = None,
        truncate_dim: int | None = None,
        engine: str | None = None,
        precision: str = "fp32",
        quiet: bool = False,
    ) -> Self:
        """Open a sentence-transformers folder, or a plain BERT with mean pooling and a warning.

        Args:
            name: a folder, an archive, a name of the catalogue (``zhbert models``), a hub id, or a
                URL.
            device: where to compute; None: a GPU if there is one.
            prompts: texts to put before a text, by name, in addition to the folder's.
            default_prompt_name: the prompt of ``encode``; None: the folder's.
            similarity_fn_name: cosine, dot, euclidean or manhattan; None: the folder's.
            truncate_dim: the number of dimensions to keep; None: the folder's.
            engine: ``torch``, or ``onnx`` for the folder's ONNX graph; None: torch, unless the
                folder has nothing but a graph.
            precision: ``fp32``, ``bf16`` or ``int8``: what the BERT computes in (see ``dtype``),
                or which ONNX graph is opened (``fp32`` or ``int8``).
            quiet: show no progress of a download, and no warning about a plain BERT.

        Raises:
            ZhbertError: the folder has other modules, or its parts contradict each other.
        """
        _check_opens_here(name)
        check_choice(precision, ("fp32", "bf16", "int8"), "precision")
        folder = locate(name, quiet=quiet)
        model: SentenceModel | StaticModel
        if runs_by_onnx(folder, engine):
            model = SentenceModel.from_onnx(folder, precision=precision)
            size = model.config.vocab_size
        elif is_static(folder):
            model = StaticModel.from_pretrained(folder)
            size = model.vocab_size
        else:
            model = SentenceModel.from_pretrained(folder, quiet=quiet)
            size = model.config.vocab_size
        tokenizer = Tokenizer.from_pretrained(folder)
        check_vocabulary(folder, tokenizer, size)
        if sentence_folder(folder) is None and not quiet:
            warnings.warn(
                UntrainedWeightsWarning(
                    f"{name}: a plain BERT, never trained for similarity: a text's vector is the "
                    "mean of its pieces'; train it first (zhbert finetune, kind embed)"
                ),
                stacklevel=2,
            )
        encoder = cls(model.to(device_named(device)), tokenizer)
        encoder.dtype = choose_dtype(precision, encoder.device)
        if prompts is not None:
            encoder.prompts = {**model.sentence.prompts, **prompts}
        if default_prompt_name is not None:
            encoder.default_prompt_name = default_prompt_name
        if similarity_fn_name is not None:
            encoder.similarity_fn_name = similarity_fn_name
        if truncate_dim is not None:
            encoder.truncate_dim = truncate_dim
        return encoder

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that sentence-transformers opens, and transformers as a BERT.

        A model that stands there is replaced in one step.

        Raises:
            ZhbertError: another folder stands there.
        """
        folder = Path(folder)
        Claim(
            folder=folder, what="a model", is_ours=is_model_alone, overwrite=True, option="folder"
        ).check()
        with atomic_folder(folder) as temporary:
            self.model.save_pretrained(temporary)
            static = isinstance(self.model, StaticModel)
            length = None if static else self.max_seq_length
            self.tokenizer.save_pretrained(temporary, model_max_length=length)

    # -- what it is --------------------------------------------------------------------------

    @property
    def sentence(self) -> SentenceConfig:
        """Pooling, prompts and the like."""
        return self.model.sentence

    @property
    def prompts(self) -> Mapping[str, str]:
        """The prompts by name; always with ``query`` and ``document``."""
        return MappingProxyType({**_PROMPTS, **self.sentence.prompts})

    @prompts.setter
    def prompts(self, value: Mapping[str, str]) -> None:
        self._change(prompts=dict(value))

    @property
    def default_prompt_name(self) -> str | None:
        """The name of the prompt that ``encode`` uses if none is given."""
        return self.sentence.default_prompt_name

    @default_prompt_name.setter
    def default_prompt_name(self, value: str | None) -> None:
        check_prompt_name(value, self.prompts, "default_prompt_name")
        self._change(default_prompt_name=value)

    @property
    def truncate_dim(self) -> int | None:
        """The number of dimensions that are kept; None: all."""
        return self.sentence.truncate_dim

    @truncate_dim.setter
    def truncate_dim(self, value: int | None) -> None:
        if value is not None and value < 1:
            raise ZhbertError(f"truncate_dim = {value}: must be 1 or more")
        self._change(truncate_dim=value)

    @property
    def max_seq_length(self) -> int:
        """The number of pieces to which texts are cut, [CLS] and [SEP] included."""
        return self.model.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        if isinstance(self.model, StaticModel):
            raise ZhbertError("max_seq_length: static vectors have none: texts are read whole")
        most = self.model.config.max_position_embeddings
        if not 2 <= value <= most:
            raise ZhbertError(f"max_seq_length = {value}: must be from 2 to {most}")
        self._change(max_seq_length=value)

    @property
    def similarity_fn_name(self) -> str:
        """The name of the similarity function: cosine, dot, euclidean or manhattan."""
        return self.sentence.similarity_fn_name or "cosine"

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: str) -> None:
        check_choice(value, SIMILARITIES, "similarity_fn_name")
        self._change(similarity_fn_name=value)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return device_of(self.model)

    def get_embedding_dimension(self) -> int:
        """Return the number of dimensions of the vectors."""
        width = self.model.embedding_dimension
        return min(width, self.truncate_dim or width)

    def get_sentence_embedding_dimension(self) -> int:
        """Return the same: the name in sentence-transformers before version 5.4."""
        return self.get_embedding_dimension()

    def _change(self, **changes: Any) -> None:
        self.model.sentence = dataclasses.replace(self.sentence, **changes)

    # -- encoding ----------------------------------------------------------------------------

    def encode(
        self,
        sentences: str | Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        *,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: str = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | torch.device | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> Any:
        """Compute the vectors of texts: (N, D), or (D,) for one text.

        >>> encoder = SentenceEncoder.from_pretrained("mini", quiet=True)
        >>> encoder.encode("今天天气很好。", normalize_embeddings=True).shape
        (256,)

        Args:
            sentences: the texts, or one text. What exceeds ``max_seq_length`` is cut off.
            prompt_name: the name of one of ``prompts``, to put before each text.
            prompt: the prompt itself.
            batch_size: accepted, but without effect: the rows of a batch are chosen by their
                lengths, and are not padded.
            show_progress_bar: show the progress on stderr; None: do not.
            output_value: ``sentence_embedding``; ``token_embeddings``, a list of (pieces, H)
                tensors; or None, a list of dicts with both, and the pieces' ids.
            precision: ``float32``, ``int8``, ``uint8``, ``binary`` or ``ubinary``: see
                `zhbert.sentences.quantization.quantize_embeddings`.
            convert_to_numpy: return one NumPy array; False: a list of tensors.
            convert_to_tensor: return one tensor.
            device: move the model there first.
            normalize_embeddings: scale the vectors to the length 1.
            truncate_dim: the number of dimensions to keep; None: ``self.truncate_dim``.

        Raises:
            ZhbertError: something is no text, there is no such prompt, or the model's numbers are
                not finite.
        """
        if batch_size < 1:
            raise ZhbertError(f"batch_size = {batch_size}: must be 1 or more")
        check_choice(precision, PRECISIONS, "precision")
        if device is not None:
            self.model.to(device)
        prompt = self._prompt(prompt, prompt_name)
        texts = [sentences] if isinstance(sentences, str) else _texts(sentences)
        if output_value != "sentence_embedding":
            check_choice(output_value or _OUTPUTS[0], _OUTPUTS, "output_value")
            features = self._features(texts, prompt)
            if output_value is not None:
                features = [one[output_value] for one in features]
            return features[0] if isinstance(sentences, str) else features
        compute = self._vectors_in_sight if show_progress_bar and texts else self._vectors
        vectors = compute(texts, prompt, normalize_embeddings, truncate_dim)
        if precision != "float32":
            vectors = quantize_embeddings(vectors, precision)
        found: Any = vectors
        if convert_to_tensor:
            found = torch.from_numpy(vectors).to(self.device)
        elif not convert_to_numpy:
            found = list(torch.from_numpy(vectors).to(self.device))
        return found[0] if isinstance(sentences, str) else found

    def encode_query(self, sentences: str | Sequence[str], **options: Any) -> Any:
        """Do the same as `encode`, with the prompt ``query`` if none is given."""
        return self.encode(sentences, **self._with_prompt(options, "query"))

    def encode_document(self, sentences: str | Sequence[str], **options: Any) -> Any:
        """Do the same as `encode`, with the prompt ``document`` if none is given."""
        return self.encode(sentences, **self._with_prompt(options, "document"))

    def encode_stream(
        self,
        texts: Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        window: int = WINDOW,
    ) -> Iterator[NDArray[np.float32]]:
        """Yield the vectors of any number of texts, (window, D) float32 at a time.

        Args:
            texts: read as they are needed.
            prompt_name, prompt, normalize_embeddings, truncate_dim: as for `encode`.
            window: the number of texts that are in memory at a time.
        """
        prompt = self._prompt(prompt, prompt_name)
        texts, first = iter(texts), 0
        while some := list(itertools.islice(texts, window)):
            yield self._vectors(_texts(some, first), prompt, normalize_embeddings, truncate_dim)
            first += len(some)

    def similarity(self, embeddings1: Vectors, embeddings2: Vectors) -> Tensor:
        """Return the similarity of all pairs of vectors: (A, D), (B, D) -> (A, B)."""
        return similarity(embeddings1, embeddings2, self.similarity_fn_name)

    def similarity_pairwise(self, embeddings1: Vectors, embeddings2: Vectors) -> Tensor:
        """Return the similarity of vectors at equal places: (A, D), (A, D) -> (A,)."""
        return similarity_pairwise(embeddings1, embeddings2, self.similarity_fn_name)

    # -- steps of encoding -------------------------------------------------------------------

    def rows(self, texts: Sequence[str], prompt: str = "") -> PieceRows:
        """Tokenize texts to rows ``[CLS] prompt text [SEP]``, cut to ``max_seq_length``."""
        pieces = self.tokenizer.encode_batch([prompt + text for text in texts])
        room = self.max_seq_length - 2
        return PieceRows.of_segments(self.tokenizer, [(ids[:room],) for ids in pieces])

    def prompt_length(self, prompt: str) -> int:
        """Return the number of pieces of a prompt, [CLS] included; 0 for an empty one."""
        return len(self.rows([prompt]).ids) - 1 if prompt else 0

    def _prompt(self, prompt: str | None, name: str | None) -> str:
        if prompt is not None:
            return prompt
        name = self.default_prompt_name if name is None else name
        check_prompt_name(name, self.prompts, "prompt_name")
        return "" if name is None else self.prompts[name]

    def _with_prompt(self, options: dict[str, Any], name: str) -> dict[str, Any]:
        given = options.get("prompt") is not None or options.get("prompt_name") is not None
        return options if given else options | {"prompt_name": name}

    def _vectors_in_sight(self, texts: Sequence[str], *options: Any) -> NDArray[np.float32]:
        """Do the same as `_vectors`, and show the progress on stderr."""
        found = []
        with progress(sys.stderr, quiet=False) as bar:
            task = bar.add_task("encoding", total=len(texts))
            for first in range(0, len(texts), _SHOWN):
                found.append(self._vectors(texts[first : first + _SHOWN], *options))
                bar.update(task, advance=len(found[-1]))
        return np.concatenate(found)

    def _vectors(
        self, texts: Sequence[str], prompt: str, normalize: bool, truncate_dim: int | None
    ) -> NDArray[np.float32]:
        width = truncate_dim if truncate_dim is not None else self.truncate_dim
        if width is not None and width < 1:
            raise ZhbertError(f"truncate_dim = {width}: must be 1 or more")
        if not texts:
            kept = min(width or self.model.embedding_dimension, self.model.embedding_dimension)
            return np.empty((0, kept), np.float32)
        if isinstance(self.model, StaticModel):
            pieces = self.tokenizer.encode_batch([prompt + text for text in texts])
            means = self.model.mean_of(pieces)[:, :width]
            means = functional.normalize(means, dim=-1) if normalize else means
            return np.asarray(means.cpu().numpy())
        length = self.prompt_length(prompt)

        def embed(model: nn.Module, batch: PackedBatch) -> Tensor:
            vectors = cast(SentenceModel, model).embed(batch, prompt_length=length)[:, :width]
            return functional.normalize(vectors, dim=-1) if normalize else vectors

        return run_model(self.model, self.rows(texts, prompt), embed, dtype=self.dtype)

    def _features(self, texts: Sequence[str], prompt: str) -> list[dict[str, Any]]:
        """Return the pieces' ids and vectors, and the sentence vector, of each text."""
        if isinstance(self.model, StaticModel):
            raise ZhbertError('output_value: static vectors have "sentence_embedding" alone')
        if not texts:
            return []
        rows = self.rows(texts, prompt)
        pieces = run_model(self.model, rows, piece_vectors, dtype=self.dtype)
        vectors = self._vectors(texts, prompt, False, None)
        features = []
        for number, (first, end) in enumerate(itertools.pairwise(rows.cu_seqlens.tolist())):
            ids = torch.from_numpy(rows.ids[first:end].astype(np.int64))
            features.append(
                {
                    "input_ids": ids,
                    "token_type_ids": torch.zeros_like(ids),
                    "attention_mask": torch.ones_like(ids),
                    "token_embeddings": torch.from_numpy(pieces[first:end]),
                    "sentence_embedding": torch.from_numpy(vectors[number]),
                }
            )
        return features


def _check_opens_here(name: str | Path) -> None:
    """Raise a ZhbertError for a model of the catalogue that is no BERT, before it is fetched."""
    card = catalogue.find_card(str(name))
    if card is not None and not card.opens_here and not Path(name).exists():
        kind = catalogue.CLASSES[card.architecture][0]
        raise ZhbertError(
            f"{name}: transformers' {kind}, not a BERT: sentence_transformers' "
            f"SentenceTransformer opens the folder that zhbert download {name} --out FOLDER makes"
        )


def _texts(sentences: Iterable[Any], first: int = 0) -> list[str]:
    """Return a list of texts; raise ZhbertError if something is no text."""
    texts = list(sentences)
    for number, text in enumerate(texts, first):
        if not isinstance(text, str):
            raise ZhbertError(f"sentences[{number}] is {shortly(text)}: not a text")
    return texts


def _lower_case(tokenizer: Tokenizer) -> Tokenizer:
    """Return a tokenizer that converts to lower case first, and else does as before."""
    if tokenizer.options.do_lower_case:
        return tokenizer
    settings = tokenizer.settings | {
        "do_lower_case": True,
        "strip_accents": bool(tokenizer.options.strip_accents),
    }
    return Tokenizer(tokenizer.vocabulary[: tokenizer.num_word_pieces], **settings)
