"""What a run would take on GPUs that are not here, said before they are rented."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from zhbert.config import Recipe
from zhbert.errors import ZhbertError
from zhbert.train import gpus
from zhbert.train.cost import Hardware, Workload, micro_batch_rows
from zhbert.wording import counted

# pretrain says it too.
NOTHING_TO_DIVIDE = "sharding = full: there are no other processes to divide the weights with"
# How many ways out an error names.
_WAYS_OUT = 4


@dataclass(frozen=True, kw_only=True)
class GpuPlan:
    """The GPUs for a run."""

    gpu: gpus.Gpu
    count: int
    price: float | None
    """Of an hour of one GPU, in any currency."""
    recipe: Recipe
    bytes_per_number: int
    """In products: 2 in bfloat16, 4 in float32."""

    @classmethod
    def of(cls, recipe: Recipe, device: str | None, count: int, price: float | None) -> GpuPlan:
        """Return the plan; raise ZhbertError for one that cannot be."""
        if device is None:
            raise ZhbertError("--gpus and --price need --device, the kind of GPU")
        if count < 1:
            raise ZhbertError(f"--gpus {count}: must be 1 or more")
        if count > recipe.batch_size:
            raise ZhbertError(
                f"--gpus {count:,}: batch_size = {recipe.batch_size} has too few rows to give each "
                "GPU one"
            )
        if price is not None and not 0 <= price < float("inf"):
            raise ZhbertError(f"--price {price:g}: must be the price of an hour of one GPU")
        return cls(
            gpu=gpus.gpu_named(device),
            count=count,
            price=price,
            recipe=recipe,
            bytes_per_number=4 if recipe.precision == "fp32" else 2,
        )

    @property
    def rows(self) -> int:
        """The most rows of one GPU in a step."""
        return -(-self.recipe.batch_size // self.count)

    @property
    def shards(self) -> int:
        """The number of GPUs among which weights and the optimiser's state are divided."""
        return self.count if self.recipe.sharding == "full" else 1

    def micro_batch_rows(self, work: Workload) -> int:
        """Return the rows of one forward and backward pass of one GPU."""
        hardware = Hardware(
            memory=self.gpu.memory_bytes,
            on_gpu=True,
            bytes_per_number=self.bytes_per_number,
            shards=self.shards,
        )
        return min(self.recipe.micro_batch_size, self.rows) or micro_batch_rows(
            self.rows, work, hardware
        )

    def memory_bytes(self, work: Workload, parameters: int, micro_batch: int) -> int:
        """Return the memory that training takes on each GPU."""
        return gpus.memory_bytes(
            parameters,
            work,
            rows=micro_batch,
            bytes_per_number=self.bytes_per_number,
            shards=self.shards,
        )

    def _fits(self, memory: int) -> bool:
        return memory + gpus.CONTEXT_BYTES <= self.gpu.memory_bytes

    def _changes(self) -> Iterator[dict[str, Any]]:
        """Yield what could be changed, by the names of ``check``.

        Settings come first, then more GPUs, then others; of each the fewest changes.
        """
        recipe = self.recipe
        counts = [self.count << doublings for doublings in range(1, 7)]
        larger = sorted((gpu.memory, name) for name, gpu in gpus.GPUS.items())
        # A micro-batch that zhbert chooses by itself can still be too large beside a teacher.
        axes: dict[str, list[Any]] = {
            "micro_batch_size": [0 if recipe.micro_batch_size else 1],
            "activation_checkpointing": [] if recipe.activation_checkpointing else [True],
            "sharding": [] if recipe.sharding == "full" else ["full"],
            "--gpus": [count for count in counts if count <= recipe.batch_size],
            "--device": [name for memory, name in larger if memory > self.gpu.memory],
        }
        every = product(*([{}, *({name: value} for value in axes[name])] for name in axes))
        merged = [{key: one[key] for one in several for key in one} for several in every]
        yield from sorted(merged, key=lambda one: ("--device" in one, "--gpus" in one, len(one)))

    def _with(self, changes: dict[str, Any]) -> GpuPlan:
        keys = {key: value for key, value in changes.items() if not key.startswith("--")}
        return replace(
            self,
            recipe=replace(self.recipe, **keys),
            count=changes.get("--gpus", self.count),
            gpu=gpus.GPUS.get(changes.get("--device", ""), self.gpu),
        )

    def _ways_out(self, work: Workload, parameters: int, besides: int) -> str:
        """Say which changes make the run fit, by the same estimate; none of them is superfluous.

        Args:
            work: the model and its rows.
            parameters: of the model.
            besides: the memory of teachers.
        """
        ways: dict[frozenset[str], str] = {}
        for changes in self._changes():
            if any(fewer <= changes.keys() for fewer in ways):
                continue
            plan = self._with(changes)
            again = replace(work, checkpointing=plan.recipe.activation_checkpointing)
            needed = plan.memory_bytes(again, parameters, plan.micro_batch_rows(again))
            if plan._fits(needed + besides):
                ways[frozenset(changes)] = " ".join(
                    f"{key} {value}" if key.startswith("--") else f"{key}={value}".lower()
                    for key, value in changes.items()
                )
        if not ways:
            return "no setting and no GPU of the table would help: train a smaller model"
        return "it would fit with " + "; or with ".join(list(ways.values())[:_WAYS_OUT])

    def notes(self, work: Workload, costs: dict[str, Any]) -> Iterator[str]:
        """Yield remarks on a run that fits."""
        if self.recipe.sharding == "full" and self.count == 1:
            yield NOTHING_TO_DIVIDE
        recipe = self.recipe
        recorded = not recipe.activation_checkpointing and recipe.sharding == "none"
        layers = self.memory_bytes(work, 0, costs["micro_batch_size"])
        room = self.gpu.memory_bytes - (costs["memory_bytes"] - layers)
        # By itself zhbert takes a third: `zhbert.train.cost.Hardware.pieces_at_once`.
        by_hand = recorded and recipe.micro_batch_size > 0
        if by_hand and 2 * layers > room:
            yield (
                f"micro_batch_size = {recipe.micro_batch_size} fills more than half of the "
                "memory left for it: recorded steps keep memory beside what is counted "
                "here, so training may run out of it; micro_batch_size = 0 chooses a safe number"
            )

    def outcome(self, work: Workload, costs: dict[str, Any], where: str) -> dict[str, Any]:
        """Say what the run takes, teachers included; raise ZhbertError if it does not fit."""
        micro_batch, needed = costs["micro_batch_size"], costs["memory_bytes"]
        if not self._fits(needed):
            besides = needed - self.memory_bytes(work, costs["parameters"], micro_batch)
            raise ZhbertError(
                f"{where}: micro-batches of {counted(micro_batch, 'row')} need about "
                f"{needed / 1e9:,.1f} GB on each GPU, and {self.gpu.name} has {self.gpu.memory:g}: "
                f"{self._ways_out(work, costs['parameters'], besides)}"
            )
        seconds = gpus.step_seconds(
            work,
            self.gpu,
            rows=self.rows,
            micro_batches=-(-self.rows // micro_batch),
            gpus=self.count,
            sharded=self.shards > 1,
            bytes_per_number=self.bytes_per_number,
        )
        student = work.operations() * costs["pieces_per_step"]
        seconds *= costs["operations_per_step"] / student
        hours = seconds * self.recipe.steps / 3600
        peak = self.gpu.tflops * 1e12 * self.count
        return {
            **asdict(self.gpu),
            "gpus": self.count,
            "seconds_per_step": seconds,
            "pieces_per_second": costs["pieces_per_step"] / seconds,
            "share_of_peak": costs["operations_per_step"] / seconds / peak,
            "hours": hours,
            "price": self.price,
            "cost": None if self.price is None else hours * self.count * self.price,
            "error": gpus.error(),
            "measured_steps": len(gpus.MEASURED_STEPS),
            "measured_on": sorted({gpus.GPUS[step.gpu].name for step in gpus.MEASURED_STEPS}),
        }
