#!/usr/bin/env bash
# torch 2.13.0, numpy 2.3.5. Seen on 28 November 2026.
#
# Guess: a layer on which torch.nn.utils.spectral_norm was just put has a largest singular value of about 1.
#
# In evaluation mode, before any forward pass in training mode, the older form divides by u'Wv with u and v as drawn: the
# weight's largest singular value is tens to hundreds, and where u'Wv is negative all weights have the other sign. So a
# model that is evaluated, scored or compared "at initialisation" is another one than the model that trains. The newer
# form, torch.nn.utils.parametrizations.spectral_norm, does 15 power iterations when it is put on, and is within 5 %.
#
# Output seen (20 layers, 64 channels, 3 x 3):
#   older form: largest singular value 14.3 to 464.7, sign turned in 6 of 20
#   newer form: largest singular value 1.006 to 1.039, sign turned in 0 of 20
#   older form after 50 passes in training mode: 1.000 to 1.013
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 numpy==2.3.5
cat > "$folder/check.py" <<'PY'
import torch
from torch import nn


def look(put, passes):
    sizes, turned = [], 0
    for seed in range(20):
        torch.manual_seed(seed)
        plain = nn.Conv2d(64, 64, 3)
        first = plain.weight.detach().clone()
        layer, x = put(plain), torch.randn(1, 64, 5, 5)
        with torch.no_grad():
            for _ in range(passes):
                layer.train()(x)
            layer.eval()(x)
            sizes.append(torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item())
            turned += bool((layer.weight * first).sum() < 0)
    return min(sizes), max(sizes), turned


old, new = nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm
low, high, turned = look(old, 0)
print(f"older form: largest singular value {low:.1f} to {high:.1f}, sign turned in {turned} of 20")
assert low > 3 and high > 30 and 0 < turned < 20
low, high, turned = look(new, 0)
print(f"newer form: largest singular value {low:.3f} to {high:.3f}, sign turned in {turned} of 20")
assert 0.99 < low and high < 1.2 and turned == 0
low, high, turned = look(old, 50)
print(f"older form after 50 passes in training mode: {low:.3f} to {high:.3f}")
assert 0.99 < low and high < 1.2 and turned == 0
PY
"$folder/env/bin/python" "$folder/check.py"
