"""What all BERTs have in common: weights, padded inputs, reading and writing; and BertModel.

Shapes: T = pieces of all rows together, H = hidden size, V = vocabulary size.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zhbert.config import CHOICES
from zhbert.errors import ZhbertError
from zhbert.model.arguments import Loading, LoadingArguments, dtype_named, refuse
from zhbert.model.attention import Attention, RowLayout
from zhbert.model.checkpoint import open_checkpoint
from zhbert.model.config import BertConfig
from zhbert.model.dropout import DropoutKey, dropout_keys, dropout_table, seed_cuda
from zhbert.model.encoder import Encoder
from zhbert.model.entry import entries_of
from zhbert.model.formats.safetensors import write_safetensors
from zhbert.model.heads import MaskedLMHead, NextSentenceHead, Pooler
from zhbert.model.layers import BERT_LAYERS, Block, Embeddings, FeedForward, Layers
from zhbert.model.loading import (
    LoadingReport,
    check_architecture,
    read_parameters,
    set_layers,
    warnings_of,
    without_head,
)
from zhbert.model.methods import PreTrainedMethods
from zhbert.model.names import to_hugging_face
from zhbert.model.outputs import ForwardOptions, ModelOutput, check_options, option
from zhbert.model.padded import Encoded, check_numbers, without_padding
from zhbert.model.recording import Recording, recording
from zhbert.zoo import locate
from zhbert.zoo.upload import Pushable

# The modules of a model that is a plain BERT.
_BERT_PARTS = {
    Attention, Block, Embeddings, Encoder, FeedForward, MaskedLMHead, Pooler, NextSentenceHead,
    nn.Embedding, nn.LayerNorm, nn.Linear, nn.ModuleList,
}  # fmt: skip


class Bert(PreTrainedMethods, Pushable):
    """The base of all models: weights, dropout seeds, padded inputs, reading and writing."""

    _architecture: ClassVar[str] = ""
    """The class of transformers that opens a saved model; "": the one of this class's name."""
    _unneeded: ClassVar[tuple[str, ...]] = ()
    """Beginnings of Hugging Face's names of parts that may be missing without a warning."""

    def __init__(self, config: BertConfig, seed: int = 0, *, layers: Layers = BERT_LAYERS) -> None:
        """Make a model with fresh weights.

        Args:
            config: its configuration.
            seed: the seed of the weights and of dropout.
            layers: functions that make its attention and norms, if they are not BERT's.
        """
        super().__init__()
        self.config = config
        self.encoder = Encoder(config, layers)
        self.loading = LoadingReport()
        self._add_heads(config, layers)
        self.set_dropout_seed(seed)
        if self.encoder.embeddings.words.weight.device.type != "meta":
            self.initialize(seed)

    def _add_heads(self, config: BertConfig, layers: Layers) -> None:
        raise NotImplementedError

    @torch.no_grad()
    def initialize(self, seed: int) -> None:
        """Set fresh weights: normal with initializer_range, zero biases, unit norms."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            self._initialize_one(name, parameter, generator)

    def _initialize_one(self, name: str, parameter: Tensor, generator: torch.Generator) -> None:
        if name.endswith("bias"):
            parameter.zero_()
        elif "norm" in name.rpartition(".")[0]:
            parameter.fill_(1.0)
        else:
            fresh = torch.empty(parameter.shape).normal_(
                0.0, self.config.initializer_range, generator=generator
            )
            parameter.copy_(fresh)
        if name == "encoder.embeddings.words.weight":
            parameter[self.config.pad_token_id] = 0.0

    @torch.no_grad()
    def scale_initial_weights(self, counts: NDArray[np.int64]) -> None:
        """Scale fresh linear maps to a spread of 1 / sqrt(inputs), and set the decoder's bias.

        BERT's initialiser has one spread for all widths, so that the outputs of a narrow model's
        layers are close to zero at first. The bias is set to the log frequency of each piece,
        which otherwise takes hundreds of steps to learn.

        Args:
            counts: (V,) the count of each piece in the text.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                # Not drawn again, since the same seed would repeat the embeddings' numbers.
                module.weight.mul_(module.in_features**-0.5 / self.config.initializer_range)
            elif isinstance(module, MaskedLMHead):
                # Half an occurrence is added to each count, so that all logs are finite.
                smoothed = torch.from_numpy(counts).double() + 0.5
                module.bias.copy_((smoothed / smoothed.sum()).log())

    def hidden_matrices(self) -> dict[str, int]:
        """Return the names of weights between hidden states, and how many maps each one fuses.

        These are the weights that Muon orthogonalises. Embeddings and the last layers of heads are
        not included.
        """
        inner = ("encoder.", "pooler.", "mlm_head.")
        return {
            f"{name}.weight": 3 if name.endswith(".qkv") else 1
            for name, module in self.named_modules()
            if isinstance(module, nn.Linear) and name.startswith(inner)
        }

    def set_dropout_seed(self, seed: int, first_row: int = 0) -> None:
        """Set the seed that determines the dropout of the next forward in training mode.

        A row's dropout depends on its number, counted from ``first_row``. So it is the same if a
        batch is divided into several forwards with the same seed and the numbers of their first
        rows. (On CUDA, attention uses PyTorch's dropout, which does depend on the division.)
        Later forwards drop other elements, even without a new seed.
        """
        self.dropout_seed, self._first_row = seed, first_row
        self._dropout_calls = 0
        self._dropout_table: Tensor | None = None

    @property
    def dropout_sites(self) -> int:
        """Number of dropout sites: the encoder's, and the one before a fine-tuned head."""
        return self.encoder.dropout_sites + 1

    def set_dropout_table(self, table: Tensor) -> None:
        """Set the words of the next forwards' dropout, instead of a seed.

        On CUDA the dropout inside of attention is drawn from CUDA's generator besides, which the
        caller seeds (`zhbert.model.dropout.seed_cuda`).

        Args:
            table: `dropout_table` of the model's ``dropout_sites`` and of the batch's rows, on the
                model's device. A CUDA graph reads it anew at each replay.
        """
        self._dropout_table = table

    def _keys(self, layout: RowLayout) -> tuple[DropoutKey, ...] | None:
        """Return the key of each dropout site for this forward; None: no dropout."""
        config = self.config
        if not self.training:
            return None
        rates = (config.hidden_dropout_prob, config.attention_probs_dropout_prob)
        if not any((*rates, config.other.get("classifier_dropout"))):
            return None
        rows = len(layout.cu_seqlens) - 1
        table = self._dropout_table
        if table is None:
            table = self._next_table(rows, layout.cu_seqlens.device)
        return dropout_keys(table, *layout.places(), rows=rows, width=config.hidden_size)

    def _next_table(self, rows: int, device: torch.device) -> Tensor:
        """Make the words of the next forward from the seed."""
        seed = self.dropout_seed + (self._dropout_calls << 40)
        self._dropout_calls += 1
        table = dropout_table(seed, self.dropout_sites, rows, self._first_row)
        if device.type != "cuda":
            return table.to(device)
        seed_cuda(seed, self._first_row)
        # From pinned memory, since a copy from other memory waits for the GPU.
        return table.pin_memory().to(device, non_blocking=True)

    def _encode(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        options: ForwardOptions,
    ) -> Encoded:
        """Remove the padding of a (batch, length) input and encode it."""
        check_options(options)
        packed, grid = without_padding(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds
        )
        length, most = grid.there.shape[1], self.config.max_position_embeddings
        if length > most:
            raise ZhbertError(
                f"a row of {length} pieces: the model takes at most {most}; cut the text"
            )
        layout = RowLayout.of_batch(packed)
        keys = self._keys(layout)
        try:
            with self._recording(options) as kept:
                hidden = self.encoder(packed, layout, keys)
        except IndexError:
            # A failed look-up on a CPU; to ask before it would make a GPU wait.
            check_numbers(packed, self.encoder.embeddings)
            raise
        more: dict[str, Any] = {}
        if kept.hidden:
            more["hidden_states"] = tuple(map(grid.padded, kept.states.values()))
        if kept.attention:
            heads = self.config.num_attention_heads
            qkv = kept.qkv.values()
            more["attentions"] = tuple(grid.attention_weights(x, heads) for x in qkv)
        as_tuple = not option(options, "return_dict", self.config)
        return Encoded(hidden, grid, keys[-1] if keys else None, more, as_tuple)

    def _recording(self, options: ForwardOptions) -> AbstractContextManager[Recording]:
        """Keep the states and the attention of all layers that a ``forward`` is asked for."""
        attentions = option(options, "output_attentions", self.config)
        if attentions and not all(hasattr(x.attention, "qkv") for x in self.encoder.layers):
            raise ZhbertError("output_attentions: only BERT's own attention has them")
        last = len(self.encoder.layers)
        hidden = range(last + 1) if option(options, "output_hidden_states", self.config) else ()
        attention = range(1, last + 1) if attentions else ()
        if hidden or attention:
            return recording(self.encoder, hidden, attention)
        return nullcontext(Recording(()))

    @property
    def base_model(self) -> BertModel:
        """A BertModel of this model's own encoder and pooler."""
        if isinstance(self, BertModel):
            return self
        with torch.device("meta"):
            model = BertModel(replace(self.config, num_hidden_layers=1), add_pooling_layer=False)
        model.config, model.encoder = self.config, self.encoder
        model.pooler = getattr(self, "pooler", None)
        return model.train(self.training)

    bert = base_model

    def compile_layers(self) -> None:
        """Train with torch.compile from now on; evaluation and parts with hooks stay eager.

        The first step compiles once for all layers and for any number and length of rows. That
        takes under a minute on two cores, and 15 s from the second run on, since PyTorch caches
        the result on disk. A C++ compiler is required.
        """
        self.encoder.compile_layers()
        for part in self.children():
            if isinstance(part, MaskedLMHead):
                part.compile_loss()

    # -- folders -----------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        num_hidden_layers: int | None = None,
        labels: Sequence[str] | None = None,
        seed: int = 0,
        quiet: bool = False,
        **arguments: Unpack[LoadingArguments],
    ) -> Self:
        """Open a model by its folder, archive or name, in float32, in evaluation mode.

        ``loading`` is a report on the checkpoint. Parts that were never trained cause a warning.

        >>> model = BertModel.from_pretrained("mini")
        >>> model.config.num_hidden_layers, model.loading.masked_words_head
        (4, 'trained')

        Args:
            name: a folder with config.json and weights (safetensors, pytorch_model.bin, shards of
                either, or a TensorFlow checkpoint, which TensorFlow reads), an archive of one, a
                name of the catalogue (``zhbert models``), a hub id, or a URL.
            num_hidden_layers: use only this many of the first layers, as in RBT3.
            labels: labels of a new head, instead of the folder's.
            seed: the seed of parameters that the folder lacks.
            quiet: show no progress of a download.
            arguments: further arguments of transformers (`LoadingArguments`; docs/transformers.md
                has a table), and attributes of the configuration, instead of the folder's.

        Raises:
            ZhbertError: the folder cannot be opened as this model, or an argument is refused.
        """
        given = Loading.of(arguments)
        folder = locate(name, quiet=quiet, hub=given.hub)
        config = given.config or BertConfig.from_pretrained(folder)
        checkpoint = open_checkpoint(folder)
        before = config.labels
        config.update(given.changes)
        if labels is not None:
            config = config.with_labels(labels)
        # A head with other ``labels``, even with as many, is a new one.
        if len(config.labels) != len(before) or (labels is not None and config.labels != before):
            checkpoint = without_head(checkpoint)
        check_architecture(checkpoint, config)
        remarks = [*set_layers(checkpoint, config, num_hidden_layers)]
        with torch.device("meta"):
            model = cls(config, **given.model)
        parameters = dict(model.named_parameters())
        found, model.loading = read_parameters(checkpoint, parameters, config)
        said = config.other.get("dtype", config.other.get("torch_dtype"))
        model._take(found, seed, given.dtype or dtype_named(said))
        model._read_beside(folder)
        model.name_or_path = str(name)
        if given.device is not None:
            model.hf_device_map = {"": given.device}
            model.to(given.device)
        has_mlm_head = hasattr(model, "mlm_head")
        needed = replace(model.loading, missing=model.missing_parts)
        remarks += warnings_of(checkpoint, config, needed, has_mlm_head=has_mlm_head)
        for remark in remarks:
            warnings.warn(remark, stacklevel=2)
        return model.eval()

    def _read_beside(self, folder: Path) -> None:
        """Read what a folder has besides its BERT."""

    @property
    def missing_parts(self) -> tuple[str, ...]:
        """Hugging Face's names of what the checkpoint lacked, without parts that are not needed."""
        return tuple(n for n in self.loading.missing if not n.startswith(self._unneeded))

    @torch.no_grad()
    def _take(self, found: Mapping[str, Tensor], seed: int, dtype: torch.dtype | None) -> None:
        """Replace all parameters with those that were found, or with fresh ones."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in dict(self.named_parameters()).items():
            if name in found:
                tensor = found[name].contiguous()
            else:
                tensor = torch.empty(parameter.shape)
                self._initialize_one(name, tensor, generator)
            module, leaf = name.rsplit(".", 1)
            setattr(self.get_submodule(module), leaf, nn.Parameter(tensor.to(dtype)))

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        save_function: object = None,
        safe_serialization: bool = True,
        **refused: Any,
    ) -> None:
        """Write config.json and model.safetensors, with Hugging Face's names, each atomically.

        Args:
            folder: where to write.
            is_main_process: False: write nothing, since another process does.
            state_dict: weights to write instead of the model's, by its own names.
            save_function: has no effect.
            safe_serialization: always true.
            refused: further arguments of transformers, each with the reason.

        Raises:
            ZhbertError: a part of the model is not BERT's (another attention, norm or activation,
                an adapter), so that other programs could not open it correctly.
        """
        refuse("save_pretrained", refused)
        if not safe_serialization:
            raise ZhbertError(
                f"{folder}: not written: 'zhbert convert --to pytorch' writes pickles"
            )
        if (part := self._foreign_part()) is not None:
            raise ZhbertError(
                f"{folder}: not written: {part}, which transformers' BERT cannot hold; keep it by "
                "torch.save(model.state_dict(), file), or put BERT's own part in its place first"
            )
        if not is_main_process:
            return
        folder = Path(folder)
        tensors = {
            name: tensor.detach()
            for name, tensor in (state_dict or dict(self.named_parameters())).items()
            if not name.startswith(self._parts_beside())
        }
        self.config.other["architectures"] = [self._architecture or type(self).__name__]
        self.config.other.pop("torch_dtype", None)
        self.config.other["dtype"] = str(self.dtype).removeprefix("torch.")
        self.config.save_pretrained(folder)
        write_safetensors(folder, entries_of(to_hugging_face(tensors)))

    def add_matching(self, module: nn.Module) -> None:
        """Add what only distillation trains, between this model's layers and a teacher's.

        It is trained and stored in checkpoints with the model, and never written to its folder.
        """
        self.matching = module

    def _parts_beside(self) -> tuple[str, ...]:
        """Return the parts that do not belong into Hugging Face's BERT, and are not written."""
        return ("matching",)

    def _foreign_part(self) -> str | None:
        """Return the first part that Hugging Face's BERT does not have; None if there is none."""
        for name, part in self.named_modules():
            if name.startswith(self._parts_beside()):
                continue
            if name and type(part) not in _BERT_PARTS:
                return f"{name} is a {type(part).__module__}.{type(part).__qualname__}"
        act = self.config.hidden_act
        return None if act in CHOICES["model.hidden_act"] else f"hidden_act is {act}"


class BertModel(Bert):
    """The encoder with its pooler."""

    pooler: Pooler | None

    def __init__(
        self,
        config: BertConfig,
        seed: int = 0,
        *,
        layers: Layers = BERT_LAYERS,
        add_pooling_layer: bool = True,
    ) -> None:
        """Make a model with fresh weights.

        Args:
            config: its configuration.
            seed: the seed of the weights and of dropout.
            layers: functions that make its attention and norms, if they are not BERT's.
            add_pooling_layer: False: ``pooler`` is None.
        """
        super().__init__(config, seed, layers=layers)
        if not add_pooling_layer:
            self.pooler = None

    def _add_heads(self, config: BertConfig, layers: Layers) -> None:
        self.pooler = Pooler(config)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **options: Unpack[ForwardOptions],
    ) -> ModelOutput | tuple[Any, ...]:
        """Encode (batch, length) ids (mask: 1 for pieces) -> last_hidden_state, pooler_output."""
        encoded = self._encode(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, options
        )
        pooled = None if self.pooler is None else self.pooler(encoded.first())
        last = encoded.padded(encoded.hidden)
        return encoded.output(last_hidden_state=last, pooler_output=pooled)
