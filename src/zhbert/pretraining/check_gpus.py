"""What a run would take on GPUs that are not here, said before they are rented."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from zhbert.config import Recipe
from zhbert.errors import ZhbertError
from zhbert.train import gpus
from zhbert.train.cost import Hardware, Workload, micro_batch_rows
from zhbert.wording import counted


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

    def _way_out(self, micro_batch: int) -> str:
        ways = [
            "set a smaller micro_batch_size" if micro_batch > 1 else "",
            "" if self.recipe.activation_checkpointing else "set activation_checkpointing = true",
            'set sharding = "full"' if self.count > self.shards else "",
            "take a larger GPU",
        ]
        return ", or ".join(way for way in ways if way)

    def outcome(self, work: Workload, costs: dict[str, Any], where: str) -> dict[str, Any]:
        """Say what the run takes, teachers included; raise ZhbertError if it does not fit."""
        micro_batch, needed = costs["micro_batch_size"], costs["memory_bytes"]
        if needed + gpus.CONTEXT_BYTES > self.gpu.memory_bytes:
            raise ZhbertError(
                f"{where}: micro-batches of {counted(micro_batch, 'row')} need about "
                f"{needed / 1e9:.3g} GB on each GPU, and {self.gpu.name} has {self.gpu.memory:g}: "
                f"{self._way_out(micro_batch)}"
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
            "cost": None if self.price is None else hours * self.count * self.price,
            "error": gpus.error(),
            "measured_steps": len(gpus.MEASURED_STEPS),
            "measured_on": sorted({gpus.GPUS[step.gpu].name for step in gpus.MEASURED_STEPS}),
        }
