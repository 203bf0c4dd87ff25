"""What transformers' users, its Trainer, accelerate and peft call on a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zhbert.model.config import BertConfig
from zhbert.model.encoder import Encoder
from zhbert.model.entry import entries_of
from zhbert.model.heads import MaskedLMHead
from zhbert.model.names import from_hugging_face, holds_bert, modern_names


class PreTrainedMethods(nn.Module):
    """Methods and attributes of transformers' PreTrainedModel."""

    config: BertConfig
    encoder: Encoder
    name_or_path: str = ""
    """What ``from_pretrained`` was given."""
    base_model_prefix: ClassVar[str] = "bert"
    main_input_name: ClassVar[str] = "input_ids"
    accepts_loss_kwargs: ClassVar[bool] = True
    """Whether ``forward`` divides the loss by ``num_items_in_batch``."""
    _keys_to_ignore_on_save: ClassVar[None] = None

    hf_device_map: dict[str, torch.device]
    """Where ``from_pretrained`` was asked to put the model; missing if it was not."""

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self.get_input_embeddings().weight.dtype

    @property
    def num_labels(self) -> int:
        """The number of labels in the configuration."""
        return self.config.num_labels

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Count the parameters; shared ones count once."""
        return sum(
            parameter.numel()
            for name, parameter in self.named_parameters()
            if (parameter.requires_grad or not only_trainable)
            and not (exclude_embeddings and name.startswith("encoder.embeddings."))
        )

    def floating_point_ops(
        self, inputs: Mapping[str, Tensor], exclude_embeddings: bool = True
    ) -> int:
        """Estimate the operations of a step: six for each parameter and piece."""
        parameters = self.num_parameters(exclude_embeddings=exclude_embeddings)
        return 6 * inputs[self.main_input_name].numel() * parameters

    def get_memory_footprint(self) -> int:
        """Return the size of the weights in bytes."""
        return sum(parameter.nbytes for parameter in self.parameters())

    @classmethod
    def can_generate(cls) -> bool:
        """Return False: an encoder does not write texts."""
        return False

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load a state dict of this model or of transformers' BERT, whose names are translated."""
        if holds_bert(state_dict):
            theirs = modern_names(state_dict)
            entries = entries_of({theirs[name]: tensor for name, tensor in state_dict.items()})
            wanted = [name for name, _ in self.named_parameters()]
            state_dict, _ = from_hugging_face(entries, wanted)
        return super().load_state_dict(state_dict, strict, assign)

    # -- embeddings --------------------------------------------------------------------------

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the word embeddings."""
        return self.encoder.embeddings.words

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the word embeddings, which are the masked-word head's matrix, too."""
        self.encoder.embeddings.words = value

    def get_output_embeddings(self) -> nn.Linear | None:
        """Return the masked-word head's last map, made of the shared matrix and the bias."""
        head = self._mlm_head()
        if head is None:
            return None
        rows, width = self.get_input_embeddings().weight.shape
        decoder = nn.Linear(width, rows, device="meta")
        decoder.weight, decoder.bias = self.get_input_embeddings().weight, head.bias
        return decoder

    def _mlm_head(self) -> MaskedLMHead | None:
        head = getattr(self, "mlm_head", None)
        return head if isinstance(head, MaskedLMHead) else None

    def tie_weights(self, *args: Any, **options: Any) -> None:
        """Do nothing: there is one matrix of word embeddings."""

    @torch.no_grad()
    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> nn.Embedding:
        """Cut the vocabulary at its end, or extend it; new pieces get the mean of all embeddings.

        Args:
            new_num_tokens: the new size; None: the present one.
            pad_to_multiple_of: round the size up to a multiple.
            mean_resizing: False: draw the new embeddings with ``initializer_range`` instead.
        """
        old = self.get_input_embeddings().weight
        size = len(old) if new_num_tokens is None else new_num_tokens
        if pad_to_multiple_of:
            size += -size % pad_to_multiple_of
        more = max(size - len(old), 0)
        if mean_resizing:
            rows = old.mean(0).expand(more, -1)
        else:
            rows = old.new_empty(more, old.shape[1]).normal_(0.0, self.config.initializer_range)
        self.encoder.embeddings.words.weight = _like(old, torch.cat((old[:size], rows)))
        self.encoder.embeddings.words.num_embeddings = size
        if (head := self._mlm_head()) is not None:
            bias = torch.cat((head.bias[:size], head.bias.new_zeros(more)))
            head.bias = _like(head.bias, bias)
        self.config.vocab_size = size
        return self.get_input_embeddings()

    def enable_input_require_grads(self) -> None:
        """Let gradients flow from the embeddings' output, for adapters and checkpointing."""
        self._embeddings_hook = self.get_input_embeddings().register_forward_hook(
            lambda module, inputs, output: output.requires_grad_(True)
        )

    def disable_input_require_grads(self) -> None:
        """Undo `enable_input_require_grads`."""
        self._embeddings_hook.remove()

    # -- gradient checkpointing --------------------------------------------------------------

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether training computes the layers again instead of keeping what is inside them."""
        return self.encoder.checkpointing

    is_activation_checkpointing = is_gradient_checkpointing

    def gradient_checkpointing_enable(self, *args: Any, **options: Any) -> None:
        """Save memory in training: compute every layer again in the backward pass.

        The gradients are the same, dropout included. Options of transformers have no effect.
        """
        self.encoder.checkpointing = True

    def gradient_checkpointing_disable(self) -> None:
        """Keep what layers compute for the backward pass, as usual."""
        self.encoder.checkpointing = False

    # The names in transformers 5.
    activation_checkpointing_enable = gradient_checkpointing_enable
    activation_checkpointing_disable = gradient_checkpointing_disable


def _like(old: Tensor, new: Tensor) -> nn.Parameter:
    return nn.Parameter(new, requires_grad=old.requires_grad)
