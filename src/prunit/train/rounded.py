"""Training under the rounding of int8: a short one, for models that lose too much when they are quantised as they are.

Weights and activations are rounded in the forward pass to the values that int8 has; gradients pass as if nothing were
rounded (Jacob et al. 2018; Krishnamoorthi 2018). What is learnt are the float weights of the same model: it is
exported and quantised afterwards as any other. Rounded is what ONNX Runtime's static quantisation rounds, on the same
grids: weights with a step for each output channel, -127 to 127 around zero; inputs of convolutions and matrix products,
and the terms of sums, with one step for the tensor, 0 to 255 over a range that holds zero.

Batch norms keep the statistics that they have. An export folds them into the weights before these are rounded. Here
they stay apart, and what comes out is the same: they multiply a channel's weights and its step alike.

Why not torchao's `prepare_qat_pt2e` (0.18.0, with torch 2.13.0): it divides by the scale of every batch norm, so that a
single channel whose scale is 0 makes all outputs NaN, and it computes all batch norms with an epsilon of 1e-5, whatever
the model has (`findings/qat-of-batch-norm.sh`).
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from prunit.batches import Dataset
from prunit.cut.surgery import copied
from prunit.train.accuracy import check_model, check_split, evaluating
from prunit.train.defaults import Fitted
from prunit.train.loop import train
from prunit.train.processes import OnStep

LR_SHARE: Final = 0.05
"""Of the highest rate of the training before."""
_FIRST_IMAGES: Final = 256
"""The first ranges of activations are those of so many."""
_NEW_SHARE: Final = 0.01
"""Of each batch's range in the moving average of ranges."""
_SMALLEST: Final = 1e-12
"""Step of what is zero everywhere."""

_WEIGHTED: Final[Mapping[Any, int]] = {
    torch.conv1d: 0,
    torch.conv2d: 0,
    torch.conv3d: 0,
    torch.conv_transpose1d: 1,
    torch.conv_transpose2d: 1,
    torch.conv_transpose3d: 1,
    functional.linear: 0,
}
"""Functions of an activation and a weight, with the weight's dimension of output channels."""
_OF_TWO: Final = frozenset(
    [torch.matmul, torch.bmm, Tensor.matmul, Tensor.bmm, torch.add, Tensor.add, Tensor.add_]
)  # x @ y and x + y are Tensor.matmul and Tensor.add
"""Functions of two activations."""


def int8_settings(settings: Fitted, *, epochs: int = 1) -> Fitted:
    """Settings for `tuned_for_int8` of a model that was trained with `settings`: a low rate, falling along a cosine.

    Decay, label smoothing and augmentation stay; there is no average of weights and no teacher.
    """
    changes = {
        "epochs": epochs,
        "lr": settings.lr * LR_SHARE,
        "schedule": "cosine",
        "warmup_epochs": 0.0,
        "weight_decay": settings.decay,  # what None means depends on the schedule
        "label_smoothing": settings.smoothing,
        "ema": 0.0,
        "distill": 0.0,
    }
    return settings.model_copy(update=changes)


def tuned_for_int8(
    model: nn.Module,
    dataset: Dataset,
    settings: Fitted,
    *,
    on_step: OnStep | None = None,
    checkpoint: Path | None = None,
) -> nn.Module:
    """A copy of the model, trained for `settings.epochs` with weights and activations rounded as int8 does.

    It is of the same class, with the same names and shapes of tensors, in float32, on the CPU and in evaluation mode;
    `model` stays as it is. `int8_settings` gives the settings; the precision is float32 whatever they say, and with
    `distill` above 0 the teacher is `model` itself. `on_step` and `checkpoint` are those of `train`, whose errors it
    raises, too; `SurgeryError` for a model that cannot be copied. Deterministic as `train` is.
    """
    check_split(dataset, "train")
    check_model(model, dataset)
    rounded = Rounded(copied(model), dataset.normalise(dataset.train.x_BCHW[:_FIRST_IMAGES]))
    # bfloat16 has 8 significant bits: it would round the rounded values again.
    settings = settings.model_copy(update={"precision": "32-true"})
    teacher = model if settings.distill else None
    for _ in train(rounded, dataset, settings, on_step=on_step, checkpoint=checkpoint, teacher=teacher):
        pass
    return rounded.released()


class Rounded(nn.Module):
    """A model that computes with rounded weights and activations, in training and in evaluation mode.

    It hooks itself to the modules of `model` until it is `released`, and trains its parameters.
    """

    def __init__(self, model: nn.Module, x_BCHW: Tensor) -> None:
        """The first ranges of activations are those of `x_BCHW`, normalised images; training moves them on."""
        super().__init__()
        self.model = model
        self._ranges: dict[tuple[str, int], str] = {}
        """Names of the buffers of ranges, by the module that began last and the number of the activation since then.

        A plain number from the start would be another one where a model does more in training than in evaluation."""
        self._at = ("", 0)
        self._handles = [
            module.register_forward_pre_hook(partial(self._begin, name)) for name, module in model.named_modules()
        ]
        self._measuring = True
        device = next((parameter.device for parameter in model.parameters()), x_BCHW.device)
        with evaluating(self):
            self(x_BCHW.to(device))
        self._measuring = False

    def released(self) -> nn.Module:
        """The model without hooks of this one."""
        for handle in self._handles:
            handle.remove()
        return self.model

    def train(self, mode: bool = True) -> Self:
        """As of any module, but batch norms stay in evaluation mode: their statistics are those of the export."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def forward(self, x_BCHW: Tensor) -> Any:
        """What the model returns."""
        with _Rounding(self):
            return self.model(x_BCHW)

    def rounded_activation(self, x: Tensor) -> Tensor:
        """`x` (B, …) rounded to 256 values over its range so far, zero among them."""
        name, index = self._at
        self._at = name, index + 1
        place = self._ranges.get((name, index))
        if place is None:
            # One that only training has stays as it is, and so does one that is infinite somewhere (a mask).
            if not self._measuring or not x.isfinite().all():
                return x
            place = self._ranges[name, index] = f"range_{len(self._ranges)}"
            self.register_buffer(place, torch.stack(x.aminmax()).float())
        range_2: Tensor = getattr(self, place)
        if self.training:
            with torch.no_grad():
                range_2.lerp_(torch.stack(x.aminmax()).float(), _NEW_SHARE)
        low, high = range_2.clamp(max=0)[0], range_2.clamp(min=0)[1]
        step = ((high - low) / 255).clamp(min=_SMALLEST)
        return torch.fake_quantize_per_tensor_affine(x, step, (-low / step).round().int(), 0, 255)

    def _begin(self, name: str, module: nn.Module, inputs: Any) -> None:
        self._at = name, 0


def rounded_weight(weight: Tensor, dim: int) -> Tensor:
    """The weight rounded to 255 values around zero, with a step of its own for each index of dimension `dim`."""
    with torch.no_grad():
        steps_O = (weight.abs().amax([d for d in range(weight.ndim) if d != dim]) / 127).clamp(min=_SMALLEST)
    zeros_O = torch.zeros_like(steps_O, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, steps_O, zeros_O, dim, -127, 127)


class _Rounding(TorchFunctionMode):
    """While it is in force, functions of torch that a quantiser computes in int8 get rounded tensors."""

    def __init__(self, rounded: Rounded) -> None:
        super().__init__()
        self._rounded = rounded.rounded_activation

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _WEIGHTED and len(args) > 1:
            args = (self._rounded(args[0]), rounded_weight(args[1], _WEIGHTED[func]), *args[2:])
        elif func in _OF_TWO and len(args) > 1 and all(map(_is_activation, args[:2])):
            first = args[0] if func is Tensor.add_ else self._rounded(args[0])  # add_ writes into it
            args = (first, self._rounded(args[1]), *args[2:])
        return func(*args, **(kwargs or {}))


def _is_activation(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 1
