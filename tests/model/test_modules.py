"""What PyTorch's own tools and adapters do to a module happens, in training and in predicting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.model.conftest import enlarge
from torch import Tensor, nn
from torch.nn.utils import parametrize

from zhbert.errors import ZhbertError
from zhbert.model.config import BertConfig
from zhbert.model.layers import Block
from zhbert.model.names import to_hugging_face
from zhbert.model.pretrained import BertForPreTraining

# 16 dimensions a head: prediction takes the native paths, where there are any.
CONFIG = BertConfig(
    vocab_size=97, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=48
)
LAST = "encoder.layers.2"
EVERY_MAP = ("attention.qkv", "attention.output", "feed_forward.inner", "feed_forward.outer")

Run = Callable[[nn.Module, dict[str, Any]], Tensor]


def trained(model: Any, packed: dict[str, Any]) -> Tensor:
    """The loss of a training step, whose gradients are left in the model."""
    model.train().set_dropout_seed(1)
    loss: Tensor = model.pretraining_loss(**packed).masked_lm_loss_sum
    loss.backward()
    return loss.detach()


def predicted(model: Any, packed: dict[str, Any]) -> Tensor:
    """All states, by the paths of prediction."""
    with torch.inference_mode():
        states: Tensor = model.eval().encoder(packed["batch"])
    return states


def evaluated(model: Any, packed: dict[str, Any]) -> Tensor:
    """The loss without gradients: the last block computes the predicted pieces alone."""
    with torch.inference_mode():
        loss: Tensor = model.eval().pretraining_loss(**packed).masked_lm_loss_sum
    return loss


either_way = pytest.mark.parametrize("run", [trained, predicted, evaluated])


@pytest.fixture
def model() -> BertForPreTraining:
    return BertForPreTraining(CONFIG, seed=1)


@either_way
@pytest.mark.parametrize(
    "name",
    ["encoder", "encoder.embeddings", "encoder.embeddings.norm", "encoder.layers.0", LAST]
    + [f"{LAST}.{part}" for part in ("attention", "attention_norm", *EVERY_MAP)],
)
def test_a_forward_hook_is_called(
    model: BertForPreTraining, packed: dict[str, Any], run: Run, name: str
) -> None:
    seen = []
    model.get_submodule(name).register_forward_hook(lambda *_: seen.append(name))
    run(model, packed)
    assert seen == [name]


@either_way
def test_the_forward_of_a_subclass_is_used(
    model: BertForPreTraining, packed: dict[str, Any], run: Run
) -> None:
    class Shifted(Block):
        def forward(self, *inputs: Any) -> Tensor:
            return super().forward(*inputs) + 1.0

    before = run(model, packed)
    shifted = Shifted(CONFIG)
    shifted.load_state_dict(model.encoder.layers[1].state_dict())
    model.encoder.layers[1] = shifted
    assert not torch.equal(run(model, packed), before)


@either_way
@pytest.mark.parametrize("name", EVERY_MAP)
def test_a_parametrized_map_maps_by_its_new_weight(
    model: BertForPreTraining, packed: dict[str, Any], run: Run, name: str
) -> None:
    class Doubled(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

    layer = model.get_submodule(f"{LAST}.{name}")
    parametrize.register_parametrization(layer, "weight", Doubled())
    found = run(model, packed)
    parametrize.remove_parametrizations(layer, "weight")  # the weight itself is doubled now
    torch.testing.assert_close(found, run(model, packed), rtol=1e-5, atol=1e-5)


# PyTorch's compiler warns of its own insides.
@pytest.mark.filterwarnings("ignore")
def test_blocks_that_are_computed_again_are_compiled_with_it(
    model: BertForPreTraining, packed: dict[str, Any]
) -> None:
    torch.compiler.reset()
    graphs: list[Any] = []
    expected = trained(model, packed)

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    with pytest.MonkeyPatch.context() as patch:
        compile_by = torch.compile
        patch.setattr(torch, "compile", lambda f, dynamic: compile_by(f, backend=backend))
        model.compile_layers()
    model.encoder.checkpointing = True
    assert torch.equal(trained(model, packed), expected)
    names = [[str(node.target) for node in graph.graph.nodes] for graph in graphs]
    assert len(names) == 3  # the embeddings, a block, the last block
    assert all("tag_activation_checkpoint" in each for each in names[1:])


# PyTorch's compiler warns of its own insides.
@pytest.mark.filterwarnings("ignore")
def test_hooks_are_called_beside_compiled_blocks(
    model: BertForPreTraining, packed: dict[str, Any]
) -> None:
    torch.compiler.reset()
    with pytest.MonkeyPatch.context() as patch:
        eager = torch.compile
        patch.setattr(torch, "compile", lambda f, **options: eager(f, backend="eager", **options))
        model.compile_layers()
    expected = trained(model, packed)
    seen = []
    for number in (1, 2):
        layer = model.encoder.layers[number].feed_forward.inner
        layer.register_forward_hook(lambda *_, number=number: seen.append(number))
    torch.testing.assert_close(trained(model, packed), expected)
    assert seen == [1, 2]


def test_lora_trains_its_own_weights_and_changes_what_is_predicted(
    model: BertForPreTraining, packed: dict[str, Any]
) -> None:
    import peft

    before = predicted(model, packed)
    settings = peft.LoraConfig(target_modules=["qkv", "inner"], r=2)
    peft.inject_adapter_in_model(settings, model)
    torch.testing.assert_close(predicted(model, packed), before, rtol=1e-5, atol=1e-5)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        trained(model, packed)
        optimizer.step()
    with_gradients = {name for name, p in model.named_parameters() if p.grad is not None}
    assert len(with_gradients) == 3 * 2 * 2
    assert all(".lora_" in name for name in with_gradients)
    assert not torch.allclose(predicted(model, packed), before, atol=1e-3)


def test_an_adapter_is_saved_after_it_is_merged(
    model: BertForPreTraining, packed: dict[str, Any], tmp_path: Any
) -> None:
    import peft

    settings = peft.LoraConfig(target_modules=["qkv"], r=2, init_lora_weights=False)
    adapted = peft.get_peft_model(enlarge(model), settings)
    expected = predicted(model, packed)
    with pytest.raises(ZhbertError, match=r"layers\.0\.attention\.qkv is a peft\.tuners\.lora"):
        model.save_pretrained(tmp_path)
    assert not any(tmp_path.iterdir())
    adapted.merge_and_unload().save_pretrained(tmp_path)
    again = BertForPreTraining.from_pretrained(tmp_path, quiet=True)
    torch.testing.assert_close(predicted(again, packed), expected, rtol=1e-4, atol=1e-4)


def test_every_name_of_a_state_dict_is_one_of_hugging_faces(model: BertForPreTraining) -> None:
    theirs = to_hugging_face(model.state_dict())
    assert "bert.encoder.layer.2.attention.self.value.bias" in theirs
    assert all(name.startswith(("bert.", "cls.")) for name in theirs)
