"""What `auto` comes to for a training: float32, or mixed precision where the device has it and a step is faster in it.

Why these rules: docs/adr/030-bf16-in-training.md.
"""

from collections.abc import Callable
from functools import cache
from typing import Final, cast

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from prunit.batches import Dataset
from prunit.cut.surgery import copied
from prunit.train.accuracy import evaluating
from prunit.train.checkpoint import State
from prunit.train.config import Chosen, TrainConfig
from prunit.train.defaults import Fitted, fitted_to
from prunit.train.place import check_place, seeded
from prunit.train.run import Job, check_trainable, start
from prunit.train.turns import times_of_steps

FASTER: Final = 1.15
"""So many times faster than in float32 a step in bfloat16 must be: less may be noise."""
SMALL: Final = 10**9
"""Multiply-adds of a batch, forward, below which steps are not timed: float32, the same in every run."""
_SECONDS: Final = 0.5


def resolved_precision(model: nn.Module, dataset: Dataset, config: TrainConfig) -> Chosen:
    """The precision in which `train` trains the model here; `config.precision` unless that is 'auto'.

    On a CPU that has instructions for it, bfloat16 autocast is taken if a few steps in turns with float32 are at least
    1.15 times as fast, on copies of the model; where a step is small, or cannot be made in it, it is float32. To train
    several models alike, ask for the largest and give the answer to all as `precision`. Raises what `train` raises.
    """
    if config.precision != "auto":
        return config.precision
    device = check_place(config)
    if device.type == "cuda":
        # Emulated bfloat16 is slower than float32; tensor cores for float16 came with compute capability 7.
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16-mixed"
        return "16-mixed" if torch.cuda.get_device_capability(device)[0] >= 7 else "32-true"
    if not cpu_has_bf16():
        return "32-true"
    alone = fitted_to(config, dataset).on_one_device()
    check_trainable(model, dataset, alone)
    batch = min(alone.batch_size, len(dataset.train))
    if batch * macs_of(model, dataset) < SMALL:
        return "32-true"
    return _faster(model, dataset, alone)


def precision_of(job: Job, state: State | None) -> Chosen:
    """The precision of a training: the one that it ran in until `state`, where the device is of the same kind."""
    if job.config.precision == "auto" and state is not None:
        kind = check_place(job.config).type
        before, precision = state.place
        if not precision and kind == "cpu":  # before prunit knew bfloat16 on CPUs
            return "32-true"
        if before == kind and (precision != "bf16-mixed" or kind == "cuda" or cpu_has_bf16()):
            return cast("Chosen", precision)
    return resolved_precision(job.model, job.dataset, job.config)


@cache
def cpu_has_bf16() -> bool:
    """This CPU multiplies matrices of bfloat16 by instructions of its own: AMX or AVX512-BF16.

    Other CPUs emulate it, which is slower than float32.
    """
    if hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        return bool(found.get("amx_bf16") or found.get("avx512_bf16"))
    asked = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(cast("Callable[[], bool]", getattr(torch.cpu, name, bool))() for name in asked)


def macs_of(model: nn.Module, dataset: Dataset) -> int:
    """Multiply-adds of convolutions and matrix products for an image."""
    tensor = next(model.parameters())
    with FlopCounterMode(display=False) as counter, evaluating(model):
        model(dataset.normalise(dataset.test.x_BCHW[:1].to(tensor.device)))
    return counter.get_total_flops() // 2


def _faster(model: nn.Module, dataset: Dataset, config: Fitted) -> Chosen:
    candidates: tuple[Chosen, Chosen] = ("32-true", "bf16-mixed")
    try:
        with seeded(config.seed, 0, 0, torch.device("cpu")):
            jobs = [Job(copied(model), dataset, config, None, precision=precision) for precision in candidates]
            full_s, half_s = times_of_steps([start(job) for job in jobs], seconds=_SECONDS)
    except Exception:  # a model that cannot be copied, or has an operation without bfloat16: it trains as ever
        return "32-true"
    return "bf16-mixed" if full_s >= FASTER * half_s else "32-true"
