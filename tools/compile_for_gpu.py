"""Compiles a model's layers for an H100 (sm_90) on a machine without a GPU, and counts launches.

    PYTHONPATH=src python tools/compile_for_gpu.py
    PYTHONPATH=src python tools/compile_for_gpu.py --hidden 768 --dropout 0.1 --keep FOLDER

The branches for GPUs are traced on the CPU (a graph break is an error), Inductor lowers the graphs
for a GPU that is only described to it, and Triton compiles every kernel. So nothing is measured,
but what would fail at the first step on a GPU fails here. Needs PyTorch's CUDA build with its
Triton (tried with 2.11); what is replaced below is PyTorch's own, and changes with its version.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib.util
import re
import tempfile
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch._dynamo.device_interface as interfaces
import torch._dynamo.utils
import torch._inductor.async_compile
import torch._inductor.config
import torch._inductor.graph
import torch._inductor.runtime.triton_helpers as helpers
import torch._inductor.runtime.triton_heuristics as heuristics
import torch._inductor.scheduler
import torch._subclasses.fake_tensor as fakes
import torch.utils._triton
import triton
from functorch.compile import make_boxed_func, min_cut_rematerialization_partition
from torch._dynamo.backends.common import aot_autograd
from torch._inductor.compile_fx import compile_fx_inner
from torch._inductor.decomposition import select_decomp_table
from torch.fx.passes.fake_tensor_prop import FakeTensorProp
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.driver import driver

from zhbert.model import encoder, flash, layers
from zhbert.model.config import BertConfig
from zhbert.model.loss import vocabulary_cross_entropy, walk_block
from zhbert.model.pretrained import BertForPreTraining
from zhbert.packing import PackedBatch

TARGET = GPUTarget("cuda", 90, 32)
H100 = types.SimpleNamespace(
    name="NVIDIA H100 80GB HBM3", major=9, minor=0, multi_processor_count=132,
    total_memory=80 << 30, max_threads_per_multi_processor=2048, max_threads_per_block=1024,
    regs_per_multiprocessor=65536, warp_size=32, shared_memory_per_block=49152,
    shared_memory_per_block_optin=232448, shared_memory_per_multiprocessor=233472,
    L2_cache_size=50 << 20, gcnArchName="", is_integrated=0,
)  # fmt: skip


# What Triton asks a GPU's driver.
DRIVER = types.SimpleNamespace(
    get_current_target=lambda: TARGET,
    get_current_device=lambda: 0,
    get_active_torch_device=lambda: torch.device("cuda", 0),
    get_current_stream=lambda *_: 0,
)


def _returns(value: Any) -> Any:
    return staticmethod(lambda *_, **__: value)


@contextlib.contextmanager
def described_gpu(kernels: list[tuple[str, str]]) -> Iterator[None]:
    """Let PyTorch believe in an H100, and collect the sources of kernels instead of compiling."""

    def collect(_: Any, name: str, source: str, *__: Any, **___: Any) -> Any:
        kernels.append((name, source))
        return types.SimpleNamespace(run=None)

    cuda: Any = torch.cuda
    replaced: list[tuple[Any, str, Any]] = [
        *((cuda, name, _returns(value).__func__) for name, value in {
            "is_available": True, "device_count": 1, "current_device": 0, "_lazy_init": None,
            "get_device_properties": H100, "get_device_capability": (9, 0), "synchronize": None,
            "get_device_name": H100.name, "get_rng_state": torch.zeros(16, dtype=torch.uint8),
            "set_rng_state": None, "_exchange_device": 0, "_maybe_exchange_device": 0,
        }.items()),
        *((interfaces.CudaInterface.Worker, name, _returns(value)) for name, value in {
            "get_device_properties": H100, "current_device": 0, "set_device": None,
        }.items()),
        *((interfaces.CudaInterface, name, _returns(value)) for name, value in {
            "is_available": True, "device_count": 1, "current_device": 0, "synchronize": None,
            "get_compute_capability": 90, "get_device_properties": H100,
            "is_triton_capable": True, "raise_if_triton_unavailable": None,
        }.items()),
        (torch._inductor.scheduler, "has_triton", lambda *_: True),
        (torch.utils._triton, "has_triton", lambda *_: True),
        (fakes, "init_gpu_context", lambda *_: None),
        (torch._dynamo.utils, "preserve_rng_state", contextlib.nullcontext),
        (torch._inductor.async_compile.AsyncCompile, "triton", collect),
        (torch._inductor.config, "shape_padding", False),
        (torch._inductor.config, "compile_threads", 1),
        (torch._inductor.config, "force_disable_caches", True),
    ]  # fmt: skip
    before = [(one, name, vars(one).get(name, getattr(one, name))) for one, name, _ in replaced]
    for one, name, value in replaced:
        setattr(one, name, value)
    try:
        yield
    finally:
        for one, name, value in before:
            setattr(one, name, value)


def lower(graph: torch.fx.GraphModule, inputs: Any, backward: bool, kernels: Any) -> str:
    """Lower a graph traced on the CPU for the GPU; return the Python that would launch it."""
    graph, codes = copy.deepcopy(graph), []
    for node in graph.graph.nodes:
        if "device" in node.kwargs:
            node.kwargs = {**node.kwargs, "device": torch.device("cuda", 0)}
    mode = next(x.fake_mode for x in inputs if isinstance(x, fakes.FakeTensor))
    codegen = torch._inductor.graph.GraphLowering.codegen

    def kept(self: Any, *arguments: Any) -> Any:
        found = codegen(self, *arguments)
        codes.append(found[0].value)
        return found

    torch._inductor.graph.GraphLowering.codegen = kept  # type: ignore[method-assign]
    try:
        with described_gpu(kernels):
            with mode:
                moved = [
                    torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cuda:0")
                    if isinstance(x, torch.Tensor)
                    else x
                    for x in inputs
                ]
            FakeTensorProp(graph, mode).propagate_dont_convert_inputs(*moved)
            compile_fx_inner(graph, moved, is_backward=backward)
    finally:
        torch._inductor.graph.GraphLowering.codegen = codegen  # type: ignore[method-assign]
    return str(codes[-1])


def on_cpu() -> torch.library.Library:
    """Give flash attention's operations a form for the CPU that computes nothing."""

    def forward(query: Any, *_: Any, **__: Any) -> Any:
        like = torch.zeros(query.shape, dtype=query.dtype)
        empty = torch.zeros((), dtype=torch.uint64), query.new_empty(0)
        state = torch.zeros(2, dtype=torch.uint64)
        return like, torch.zeros(query.shape[1], query.shape[0]), state, *empty

    def backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> Any:
        return tuple(torch.zeros(x.shape, dtype=x.dtype) for x in (query, key, value))

    library = torch.library.Library("aten", "IMPL")
    library.impl("_flash_attention_forward", forward, "CPU")
    library.impl("_flash_attention_backward", backward, "CPU")
    flash.available = lambda device: True
    layers.states_dtype = lambda x: torch.bfloat16
    layers.chooses_rows = lambda table: True
    return library


def traced(hidden: int, dropout: float) -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """Trace a training step; return the code and the kernels of each function, both ways."""
    torch.compiler.reset()
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}

    def compiled(call: Callable[..., Any]) -> Callable[..., Any]:
        def keep(way: str) -> Callable[..., Any]:
            def take(graph: torch.fx.GraphModule, inputs: Any) -> Any:
                kernels: list[tuple[str, str]] = []
                name = f"{call.__name__.strip('_')} {way}"
                assert name not in found, f"{name} is compiled twice"
                found[name] = lower(graph, inputs, way == "backward", kernels), kernels
                return make_boxed_func(graph.forward)

            return take

        backend = aot_autograd(
            fw_compiler=keep("forward"),
            bw_compiler=keep("backward"),
            partition_fn=min_cut_rematerialization_partition,
            decompositions=select_decomp_table(),
        )
        return torch.compile(call, dynamic=True, fullgraph=True, backend=backend)

    config = BertConfig(
        vocab_size=500, num_hidden_layers=4, hidden_size=hidden, num_attention_heads=hidden // 64,
        intermediate_size=4 * hidden, hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )  # fmt: skip
    model = BertForPreTraining(config).train()
    model.encoder._compiled = encoder.Calls(*map(compiled, encoder.EAGER))
    for rows, length in ((8, 64), (6, 48)):
        pieces = torch.arange(rows * length)
        batch = PackedBatch(
            input_ids=pieces % 490,
            token_type_ids=pieces % 2,
            position_ids=pieces % length,
            cu_seqlens=torch.arange(0, len(pieces) + 1, length, dtype=torch.int32),
            max_length=length,
        )
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model.pretraining_loss(
                batch, pieces[1::8], pieces[1::8] % 490, pieces[:rows] % 2
            )
        (loss.masked_lm_loss_sum + loss.next_sentence_loss_sum).backward()
    states, walk = torch.randn(96, hidden, requires_grad=True), compiled(walk_block)
    words, bias = model.encoder.embeddings.words.weight, model.mlm_head.bias
    with torch.autocast("cpu", dtype=torch.bfloat16):
        vocabulary_cross_entropy(states, words, bias, torch.arange(96), walk=walk)
    return found


def compile_kernel(name: str, source: str, folder: Path) -> None:
    """Compile one kernel; raise Triton's error if that is impossible."""
    path = folder / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module, kept = importlib.util.module_from_spec(spec), []
    kinds = ("pointwise", "reduction", "persistent_reduction", "template", "cooperative_reduction")
    for kind in kinds:

        def decorator(*_: Any, kind: str = kind, **given: Any) -> Callable[[Any], Any]:
            return lambda function: kept.append((kind, function, given))

        setattr(heuristics, kind, decorator)
    spec.loader.exec_module(module)
    kind, function, given = kept[0]
    signature = dict(given["triton_meta"]["signature"])
    constants = dict(given["triton_meta"].get("constants", {}))
    sizes = given.get("size_hints", {})
    blocks = {
        "XBLOCK": min(128, sizes.get("x", 128)) if kind == "pointwise" else 1,
        "YBLOCK": 32,
        "R0_BLOCK": min(1024, sizes.get("r0_", 1024)),
    }
    for block, size in blocks.items():
        if block in function.arg_names:
            signature[block], constants[block] = "constexpr", size
    source_of = ASTSource(
        fn=function,
        signature=signature,
        constexprs={(function.arg_names.index(key),): value for key, value in constants.items()},
        attrs=given["triton_meta"].get("configs", [{}])[0],
    )
    made = triton.compile(source_of, target=TARGET, options={"num_warps": 4, "num_stages": 1})
    assert made.asm["cubin"]


def launches(code: str) -> tuple[int, int, int]:
    """Count the launches of Triton's kernels, of others, and of attention."""
    attention = len(re.findall(r"torch\.ops\.zhbert\.\w+\.default\(", code))
    others = len(re.findall(r"extern_kernels\.\w+\(|= torch\.ops\.aten\.\w+\.\w+\(", code))
    return len(re.findall(r"\.run\(", code)), others, attention


def main() -> None:
    """Print a table of all shapes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 768, 1024])
    parser.add_argument("--dropout", type=float, nargs="+", default=[0.0, 0.1])
    parser.add_argument("--keep", type=Path, help="write the generated code into this folder")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    driver.set_active(DRIVER)
    helpers.set_driver_to_gpu = lambda: None
    library = on_cpu()
    print("| hidden | dropout | function | Triton | other launches | attention | compiled |")
    print("|---:|---:|---|---:|---:|---:|---:|")
    failed = 0
    for hidden in arguments.hidden:
        for dropout in arguments.dropout:
            for function, (code, kernels) in traced(hidden, dropout).items():
                good = 0
                with tempfile.TemporaryDirectory() as folder:
                    for name, source in kernels:
                        try:
                            compile_kernel(name, source, Path(folder))
                            good += 1
                        except Exception as error:
                            said = getattr(error, "error_message", None) or error
                            print(f"{name}: {type(error).__name__}: {str(said)[-400:]}")
                failed += len(kernels) - good
                counts = " | ".join(map(str, launches(code)))
                ratio = f"{good} of {len(kernels)}"
                print(f"| {hidden} | {dropout} | {function} | {counts} | {ratio} |", flush=True)
                if arguments.keep is not None:
                    arguments.keep.mkdir(parents=True, exist_ok=True)
                    name = f"{hidden}-{dropout}-{function.replace(' ', '-')}.py"
                    (arguments.keep / name).write_text(code, encoding="utf-8")
    library._destroy()
    if failed:
        raise SystemExit(f"{failed} kernels do not compile")


if __name__ == "__main__":
    main()
