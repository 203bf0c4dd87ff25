"""SentenceModel: a BERT whose pieces are pooled to one vector a text.

Sentence-BERT: https://arxiv.org/abs/1908.10084. Shapes: R = rows, T = pieces of all rows together,
H = hidden size, D = dimension of the sentence vectors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from zhbert.errors import ZhbertError
from zhbert.inference.onnx_model import OnnxModel
from zhbert.model.attention import QuerySubset, RowLayout
from zhbert.model.checkpoint import READERS
from zhbert.model.config import BertConfig
from zhbert.model.entry import entries_of, is_finite
from zhbert.model.formats.safetensors import write_safetensors
from zhbert.model.layers import BERT_LAYERS, Layers
from zhbert.model.pretrained import BertModel
from zhbert.packing import PackedBatch
from zhbert.sentences.modules import (
    DenseConfig,
    SentenceConfig,
    activation_named,
    dense_folders,
    read_sentence_config,
    write_sentence_config,
)
from zhbert.sentences.pooling import check_modes, pool
from zhbert.zoo.layout import PYTORCH, SAFETENSORS, weights_format


class Dense(nn.Module):
    """A linear map of sentence vectors, with an activation."""

    def __init__(self, config: DenseConfig) -> None:
        super().__init__()
        wide = config.in_features, config.out_features
        self.linear = nn.Linear(*wide, bias=config.bias)
        self.activation = activation_named(config.activation_function, "Dense")
        self.use_residual = config.use_residual
        if config.use_residual and wide[0] != wide[1]:
            self.residual = nn.Linear(*wide, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """Map sentence vectors: (R, in) -> (R, out)."""
        found: Tensor = self.activation(self.linear(vectors))
        if not self.use_residual:
            return found
        return found + (self.residual(vectors) if hasattr(self, "residual") else vectors)


class Normalize(nn.Module):
    """Scaling of sentence vectors to the length 1."""

    def forward(self, vectors: Tensor) -> Tensor:
        """Scale sentence vectors: (R, D) -> (R, D)."""
        return functional.normalize(vectors, p=2, dim=-1)


class SentenceModel(BertModel):
    """A BERT with a pooling, and possibly further maps, from pieces to one vector a text.

    The pooler, which sentence vectors do not need, is kept as it is, for other programs.
    ``from_pretrained`` opens a folder of sentence-transformers, or a plain BERT, which gets mean
    pooling.

    >>> model = SentenceModel.from_pretrained("mini")
    >>> model.sentence.pooling, model.embedding_dimension
    (('mean',), 256)
    """

    _architecture = "BertModel"
    _unneeded = ("bert.pooler.",)

    def __init__(
        self,
        config: BertConfig,
        seed: int = 0,
        *,
        layers: Layers = BERT_LAYERS,
        sentence: SentenceConfig | None = None,
    ) -> None:
        """Make a model with fresh weights.

        Args:
            config: the BERT's configuration.
            seed: the seed of the weights and of dropout.
            layers: functions that make its attention and norms, if they are not BERT's.
            sentence: pooling, prompts and the like; None: mean pooling alone.
        """
        super().__init__(config, seed, layers=layers)
        self.get_submodule("pooler").requires_grad_(False)
        self.set_sentence_config(sentence or SentenceConfig(), seed)

    def set_sentence_config(self, sentence: SentenceConfig, seed: int = 0) -> None:
        """Pool and project differently from now on; a Dense gets fresh weights.

        Raises:
            ZhbertError: an unknown pooling, or a Dense of the wrong width.
        """
        check_modes(sentence.pooling, "sentence model")
        sentence.check(self.config.hidden_size, "sentence model")
        self.sentence = sentence
        self.projections = nn.ModuleList(
            Dense(one) if isinstance(one, DenseConfig) else Normalize()
            for one in sentence.projections
        )
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.projections.named_parameters():
                if parameter.device.type != "meta":
                    self._initialize_one(f"projections.{name}", parameter, generator)

    @property
    def max_seq_length(self) -> int:
        """The number of pieces to which texts are cut, [CLS] and [SEP] included."""
        most = self.config.max_position_embeddings
        return min(self.sentence.max_seq_length or most, most)

    @property
    def embedding_dimension(self) -> int:
        """The number of dimensions of a sentence vector, before truncation."""
        return self.sentence.embedding_dimension(self.config.hidden_size)

    def embed(self, batch: PackedBatch, *, prompt_length: int = 0) -> Tensor:
        """Compute the sentence vectors of R rows: (R, D) float32.

        Args:
            batch: the rows, prompts included.
            prompt_length: the number of pieces of the prompt, [CLS] included, that every row begins
                with; they are not pooled if the model's ``include_prompt`` is false.
        """
        if self.sentence.include_prompt:
            prompt_length = 0
        modes = self.sentence.pooling
        layout = RowLayout.of_batch(batch)
        # If nothing but first pieces is pooled, the last layer is computed for them alone.
        only_first = set(modes) == {"cls"} and not prompt_length
        subset = QuerySubset.of_first(layout) if only_first else None
        hidden = self.encoder(batch, layout, self._keys(layout), subset=subset)
        if only_first:
            vectors = hidden.float().repeat(1, len(modes))
        else:
            vectors = pool(hidden, batch.cu_seqlens, modes, prompt_length=prompt_length)
        return self.project(vectors)

    def project(self, pooled: Tensor) -> Tensor:
        """Apply the modules behind the pooling: (R, pooled) -> (R, D)."""
        for projection in self.projections:
            pooled = projection(pooled)
        return pooled

    def piece_vectors(self, batch: PackedBatch) -> Tensor:
        """Compute the vectors of T pieces, before pooling: (T, H)."""
        layout = RowLayout.of_batch(batch)
        hidden: Tensor = self.encoder(batch, layout, self._keys(layout))
        return hidden

    # -- folders -----------------------------------------------------------------------------

    @classmethod
    def from_onnx(cls, folder: Path, *, precision: str = "fp32") -> Self:
        """Open the folder of an ONNX graph, which takes the place of the encoder.

        Pooling and what follows it are computed here, from the graph's last_hidden_state, so that
        prompts and other settings have their effect.

        Args:
            folder: as for `OnnxModel.from_pretrained`, with the files of a sentence model if it
                is one.
            precision: which graph, as for `OnnxModel.from_pretrained`.

        Raises:
            ZhbertError: as for `OnnxModel.from_pretrained`, and as `from_pretrained`.
        """
        graph: Any = OnnxModel.from_pretrained(folder, cls._architecture, precision=precision)
        with torch.device("meta"):
            model = cls(graph.config)
        model.encoder = graph
        del model.pooler
        model._read_beside(folder)
        return model.eval()

    def _read_beside(self, folder: Path) -> None:
        sentence = read_sentence_config(folder, self.config.hidden_size)
        if sentence is None:
            return
        with torch.device("meta"):
            self.set_sentence_config(sentence)
        for dense, place in zip(self._dense(), dense_folders(folder), strict=True):
            _read_dense(dense, place)

    def _dense(self) -> Iterator[Dense]:
        return (one for one in self.projections if isinstance(one, Dense))

    def _parts_beside(self) -> tuple[str, ...]:
        without_pooler = any(name.startswith(self._unneeded) for name in self.loading.missing)
        own = ("projections", "pooler") if without_pooler else ("projections",)
        return (*super()._parts_beside(), *own)

    def save_pretrained(
        self, folder: str | Path, *, is_main_process: bool = True, **options: Any
    ) -> None:
        """Write a sentence-transformers folder, which transformers opens as a BERT.

        The tokenizer's files are not written; `SentenceEncoder.save_pretrained` writes all.
        """
        folder = Path(folder)
        if isinstance(self.encoder, OnnxModel):
            raise ZhbertError(
                f"{folder}: not written: the model is an ONNX graph, without weights of its own; "
                f"copy the folder of {self.encoder.graph}"
            )
        super().save_pretrained(folder, is_main_process=is_main_process, **options)
        if is_main_process:
            self.save_sentence_files(folder)

    def save_sentence_files(self, folder: Path) -> None:
        """Write what stands beside the BERT in a sentence-transformers folder."""
        sentence = dataclasses.replace(self.sentence, max_seq_length=self.max_seq_length)
        places = write_sentence_config(folder, sentence, self.config.hidden_size)
        for dense, place in zip(self._dense(), places, strict=True):
            tensors = {name: p.detach().float() for name, p in dense.named_parameters()}
            write_safetensors(place, entries_of(tensors))


def _read_dense(dense: Dense, folder: Path) -> None:
    """Read the weights of a Dense.

    Raises:
        ZhbertError: there are none, they have other names or shapes, or a number is not finite.
    """
    file = next((folder / n for n in (SAFETENSORS[0], PYTORCH[0]) if (folder / n).is_file()), None)
    if file is None:
        raise ZhbertError(f"{folder}: no weights of the Dense in it: no {SAFETENSORS[0]}")
    entries = READERS[weights_format(file)](file)[0]
    wanted = dict(dense.named_parameters())
    if entries.keys() != wanted.keys():
        raise ZhbertError(
            f"{file}: holds {', '.join(entries) or 'nothing'}; its config.json describes a Dense "
            f"with {', '.join(wanted)}"
        )
    for name, parameter in wanted.items():
        if entries[name].shape != tuple(parameter.shape):
            raise ZhbertError(
                f"{file}: {name} has the shape {entries[name].shape}, its config.json says "
                f"{tuple(parameter.shape)}"
            )
        tensor = entries[name].read()
        if not is_finite(tensor):
            raise ZhbertError(f"{file}: {name} holds NaN or infinite numbers; fetch it again")
        layer, leaf = name.split(".")
        setattr(dense.get_submodule(layer), leaf, nn.Parameter(tensor.float()))
