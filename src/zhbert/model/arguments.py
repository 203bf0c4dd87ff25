"""The arguments of transformers' functions: what each one means here, or why it is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import torch

from zhbert.errors import ZhbertError
from zhbert.model.config import BertConfig
from zhbert.runtime import device_named
from zhbert.wording import shortly
from zhbert.zoo.origin import HubOptions


class LoadingArguments(TypedDict, total=False):
    """Arguments of transformers' ``from_pretrained``, besides attributes of the configuration."""

    config: Any
    """the configuration, instead of the folder's: a BertConfig (transformers', too), or a path"""
    dtype: str | torch.dtype | None
    """of the weights: "float32" (the default), "bfloat16", "float16", or "auto": the folder's"""
    torch_dtype: str | torch.dtype | None
    """the former name of ``dtype``"""
    device_map: Any
    """the device of the whole model: "cpu", "cuda:1", 1, {"": "cuda"}; or "auto": the GPU if there
    is one"""
    cache_dir: str | Path | None
    """the folder of the hub's files"""
    revision: str | None
    """a branch, tag or commit of the hub"""
    token: str | bool | None
    """for private models of the hub; False: send none"""
    local_files_only: bool
    """take the hub's files from the cache alone"""
    force_download: bool
    """fetch the hub's files again"""
    num_labels: int | None
    """the number of labels; a head with another number is replaced by a new one"""
    id2label: Mapping[int, str] | None
    """names of the labels; as many as in the folder are new names for its head"""
    label2id: Mapping[str, int] | None
    """the inverse of ``id2label``"""
    problem_type: str | None
    """of a sequence classification, in transformers' terms"""
    attn_implementation: str | None
    """"eager" and "sdpa" are accepted: attention is always computed in the fastest way"""
    add_pooling_layer: bool
    """False: a BertModel without pooler"""
    output_attentions: bool
    """return attentions from every forward"""
    output_hidden_states: bool
    """return hidden states from every forward"""
    hidden_dropout_prob: float
    """as every other attribute of the configuration, instead of the folder's"""
    attention_probs_dropout_prob: float
    classifier_dropout: float | None


_NO_CODE = "every format is read without running code"
WITHOUT_EFFECT = {
    "ignore_mismatched_sizes": "a head of another size is always replaced, with a warning",
    "low_cpu_mem_usage": "one tensor is read at a time, always",
    "trust_remote_code": "no code of a model folder is ever run",
    "use_safetensors": f"{_NO_CODE}, safetensors first",
    "weights_only": _NO_CODE,
    "disable_mmap": "files are read, never mapped",
}
"""Arguments of ``from_pretrained`` that are accepted, and why they change nothing."""
_ONE_DEVICE = "a BERT fits on one device: device_map='cuda', or 'auto'"
_IN_8_BITS = "'zhbert predict --precision int8' computes in 8 bits"
_OWN_KERNELS = "leave it out: zhbert has its own"
_PACKED = "give padded rows: padding is removed before anything is computed"
_NO_DECODER = "these models are encoders; a decoder is transformers' BertLMHeadModel"
REFUSED = {
    "from_pretrained": {
        "output_loading_info": "read model.loading, which is always there",
        "state_dict": "make the model by its class and call load_state_dict",
        "quantization_config": _IN_8_BITS,
        "load_in_8bit": _IN_8_BITS,
        "load_in_4bit": _IN_8_BITS,
        "gguf_file": "take the model's safetensors",
        "from_tf": "leave it out: TensorFlow's checkpoints are recognised",
        "from_flax": "have transformers 4 write it as PyTorch's first",
        "max_memory": _ONE_DEVICE,
        "offload_folder": _ONE_DEVICE,
        "offload_buffers": _ONE_DEVICE,
        "offload_state_dict": _ONE_DEVICE,
        "tp_plan": _ONE_DEVICE,
        "tp_size": _ONE_DEVICE,
        "device_mesh": _ONE_DEVICE,
        "distributed_config": _ONE_DEVICE,
        "key_mapping": "names of other programs are recognised; rename the rest in the file",
        "subfolder": "give the folder itself; of a hub model, fetch it first",
        "variant": "give the weights' file itself",
        "proxies": "set HTTPS_PROXY",
        "mirror": "set HF_ENDPOINT",
        "tqdm_class": "quiet=True hides the progress",
        "use_auth_token": "its name is token",
        "resume_download": "leave it out: downloads are always resumed",
        "adapter_kwargs": "put PeftModel.from_pretrained around the model",
        "adapter_name": "put PeftModel.from_pretrained around the model",
        "generation_config": "a BERT does not generate",
        "use_kernels": _OWN_KERNELS,
        "kernel_config": _OWN_KERNELS,
        "allow_all_kernels": _OWN_KERNELS,
        "fusion_config": "leave it out: what can be fused is fused",
        "experts_implementation": "a BERT has no experts",
    },
    "forward": {
        "encoder_hidden_states": _NO_DECODER,
        "encoder_attention_mask": _NO_DECODER,
        "past_key_values": _NO_DECODER,
        "use_cache": _NO_DECODER,
        "is_causal": _NO_DECODER,
        "head_mask": "leave it out, as in transformers 5",
        "output_router_logits": "a BERT has no experts",
        "cu_seq_lens_q": _PACKED,
        "cu_seq_lens_k": _PACKED,
        "max_length_q": _PACKED,
        "max_length_k": _PACKED,
        "seq_idx": _PACKED,
    },
    "save_pretrained": {
        "push_to_hub": "call model.push_to_hub('OWNER/MODEL')",
        "max_shard_size": "'zhbert convert --max-shard-size' cuts a model into files",
        "distributed_checkpoint": "one process writes: is_main_process=...",
        "variant": "rename the file",
        "save_original_format": "leave it out: names are Hugging Face's",
        "save_peft_format": "call save_pretrained of the PeftModel",
        "token": "give it to model.push_to_hub",
    },
}
"""For each function, arguments that are refused (unless None, False or "") and what to do then."""
_HUB = ("cache_dir", "revision", "token", "local_files_only", "force_download")


def refuse(function: str, arguments: Mapping[str, Any]) -> None:
    """Raise a ZhbertError that says what to do instead, if one of the arguments is set."""
    for name, value in arguments.items():
        reason = REFUSED[function].get(name)
        if reason is None:
            raise ZhbertError(f"{function}: unknown argument {shortly(name)}")
        is_empty = isinstance(value, str) and not value
        if value is not None and value is not False and not is_empty:
            raise ZhbertError(f"{function}: {name}: {reason}")


@dataclass(frozen=True)
class Loading:
    """The arguments of a call, sorted."""

    config: BertConfig | None
    changes: dict[str, Any]
    """attributes of the configuration"""
    hub: HubOptions
    dtype: torch.dtype | None
    """None: the folder's"""
    device: torch.device | None
    model: dict[str, Any] = field(default_factory=dict)
    """arguments of the model's class"""

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Loading:
        """Sort the arguments of a call.

        Raises:
            ZhbertError: one is refused, or has an impossible value.
        """
        given = {name: value for name, value in arguments.items() if name not in WITHOUT_EFFECT}
        refused = REFUSED["from_pretrained"].keys() & given.keys()
        refuse("from_pretrained", {name: given.pop(name) for name in sorted(refused)})
        attention = given.pop("attn_implementation", None)
        if attention not in (None, "eager", "sdpa"):
            raise ZhbertError(
                f"from_pretrained: attn_implementation = {shortly(attention)}: leave it out: "
                "attention is computed in the fastest way, in half precision on a GPU by PyTorch's "
                "flash attention"
            )
        dtype, former = given.pop("dtype", None), given.pop("torch_dtype", None)
        hub = {name: given.pop(name) for name in _HUB if name in given}
        model = {name: given.pop(name) for name in ("add_pooling_layer",) if name in given}
        return cls(
            config=_config_of(given.pop("config", None)),
            device=device_of_map(given.pop("device_map", None)),
            changes=given,
            hub=HubOptions(**hub),
            dtype=dtype_named(dtype if dtype is not None else former),
            model=model,
        )


def _config_of(config: Any) -> BertConfig | None:
    """Return a copy of a configuration, ours or transformers', or read it from a path."""
    if config is None:
        return None
    if isinstance(config, (str, Path)):
        return BertConfig.from_pretrained(config)
    if not hasattr(config, "to_dict"):
        raise ZhbertError(
            f"from_pretrained: config = {shortly(config)}: must be a BertConfig or a path"
        )
    return BertConfig.from_dict(config.to_dict(), "config")


def dtype_named(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """Return the dtype of weights from its name; float32 for None, and None for "auto".

    >>> dtype_named("bfloat16"), dtype_named("torch.float16"), dtype_named("auto")
    (torch.bfloat16, torch.float16, None)
    """
    if dtype == "auto":
        return None
    found = torch.float32 if dtype is None else dtype
    if isinstance(found, str):
        found = getattr(torch, found.removeprefix("torch."), None) or found
    if found not in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        raise ZhbertError(
            f"dtype = {shortly(str(dtype))}: must be float32, bfloat16, float16, float64 or auto"
        )
    assert isinstance(found, torch.dtype)
    return found


def device_of_map(device_map: Any) -> torch.device | None:
    """Return the one device that a device map names; None if there is no map.

    >>> device_of_map("cpu"), device_of_map({"": "cpu"}), device_of_map(None)
    (device(type='cpu'), device(type='cpu'), None)
    """
    if isinstance(device_map, Mapping):
        devices = set(device_map.values())
        if len(devices) != 1:
            raise ZhbertError(f"device_map names {len(devices)} devices: {_ONE_DEVICE}")
        (device_map,) = devices
    if device_map is None:
        return None
    if device_map in ("auto", "balanced", "balanced_low_0", "sequential"):
        device_map = "cuda" if torch.cuda.is_available() else "cpu"
    if isinstance(device_map, int):
        device_map = f"cuda:{device_map}"
    return device_named(device_map)
