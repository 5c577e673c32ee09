#!/usr/bin/env bash
# torchao 0.18.0, torch 2.13.0, numpy 2.3.5. Seen on 29 November 2026.
#
# Guess: a model prepared for quantisation-aware training with torchao's prepare_qat_pt2e, observers and rounding switched
# off, computes what it computed before.
#
# It does for batch norms with the default epsilon whose scales are not zero. An epsilon of another value (1e-3 in
# MobileNets and EfficientNets) becomes 1e-5, and the momentum of the running statistics 0.1, without a word: with small
# weights outputs are off by 40 % of the largest. And the convolution's output is divided by the scale of its batch norm,
# so that a single channel whose scale is 0 (zero-initialised residual branches, pruned channels) makes outputs NaN that
# were finite, in all images.
#
# Output seen:
#   eps 1e-05, momentum 0.10: outputs off by 0.0%, running variance after a step by 0.0%
#   eps 1e-03, momentum 0.10: outputs off by 40.7%, running variance after a step by 0.0%
#   eps 1e-05, momentum 0.01: outputs off by 0.0%, running variance after a step by 8.7%
#   one scale of 0: finite before True, after False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 numpy==2.3.5 torchao==0.18.0
cat > "$folder/check.py" <<'PY'
import copy

import torch
import torchao.quantization.pt2e as pt2e
from torch import nn
from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
    X86InductorQuantizer,
    get_default_x86_inductor_quantization_config,
)


def prepared(model, x):
    quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config(is_qat=True))
    batch = torch.export.Dim("batch", min=2)
    model = prepare_qat_pt2e(torch.export.export(model, (x,), dynamic_shapes=({0: batch},)).module(), quantizer)
    model.apply(pt2e.disable_fake_quant)
    model.apply(pt2e.disable_observer)
    return model


def off(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


torch.manual_seed(0)
x = torch.randn(16, 3, 8, 8)
seen = {}
for eps, momentum in ((1e-5, 0.1), (1e-3, 0.1), (1e-5, 0.01)):
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8, eps=eps, momentum=momentum), nn.ReLU())
    with torch.no_grad():
        model[0].weight.mul_(0.05)
        for _ in range(200):
            model(x)
        other = prepared(copy.deepcopy(model), x)
        pt2e.move_exported_model_to_eval(other)
        outputs = off(other(x), copy.deepcopy(model).eval()(x))
        other = prepared(copy.deepcopy(model), x)
        other(3 * x + 1)
        model(3 * x + 1)
        variance = off(dict(other.named_buffers())["1.running_var"], model[1].running_var)
    print(f"eps {eps:.0e}, momentum {momentum:.2f}: outputs off by {outputs:.1%}, running variance after a step by {variance:.1%}")
    seen[eps, momentum] = outputs, variance
assert max(seen[1e-5, 0.1]) < 1e-4
assert seen[1e-3, 0.1][0] > 0.3
assert seen[1e-5, 0.01][1] > 0.03

model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
with torch.no_grad():
    model[1].weight[2] = 0
    before, after = model(x), prepared(model, x)(x)
print(f"one scale of 0: finite before {bool(before.isfinite().all())}, after {bool(after.isfinite().all())}")
assert before.isfinite().all() and not after.isfinite().any()
PY
"$folder/env/bin/python" "$folder/check.py"
