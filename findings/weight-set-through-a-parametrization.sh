#!/usr/bin/env bash
# torch 2.13.0, numpy 2.3.5. Seen on 28 November 2026.
#
# Guess: `student.weight = teacher.weight.detach()` on a layer with torch.nn.utils.parametrizations.weight_norm copies the
# values, as it goes through the inverse of the parametrization and ends in other tensors (gains and directions).
#
# The directions then lie in the memory of the tensor that was assigned. What later happens to that tensor in place (a step
# of the teacher's optimiser, zero_) happens to the student's directions, but not to its gains, which were computed. So the
# student's filters follow those of the teacher, at the length that they had; as parameters the two are different objects,
# so that nothing counts them as tied. Spectral norm's original lies in that memory likewise. A clone on the right side
# does not. (`student.weight = teacher.weight`, a parameter, is refused with "attribute 'weight' already exists", and
# `student.weight.copy_(…)` writes to a temporary tensor and changes nothing.)
#
# Output seen:
#   same memory: True; the student moved by 142% when the teacher was set to noise, its lengths stayed: True
#   spectral norm: same memory True
#   a clone assigned: same memory False
#   copy_ to the weight: changed nothing
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 numpy==2.3.5
cat > "$folder/check.py" <<'PY'
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

torch.manual_seed(0)
teacher, student = nn.Conv2d(4, 8, 3), weight_norm(nn.Conv2d(4, 8, 3))
student.weight = teacher.weight.detach()
same = student.parametrizations.weight.original1.data_ptr() == teacher.weight.data_ptr()
before = student.weight.detach().clone()
with torch.no_grad():
    teacher.weight.normal_()
after = student.weight.detach()
moved = ((after - before).norm() / before.norm()).item()
lengths = torch.allclose(after.flatten(1).norm(dim=1), before.flatten(1).norm(dim=1), rtol=1e-4)
print(f"same memory: {same}; the student moved by {moved:.0%} when the teacher was set to noise, its lengths stayed: {lengths}")
assert same and moved > 0.5 and lengths

other = spectral_norm(nn.Conv2d(4, 8, 3))
other.weight = teacher.weight.detach()
same = other.parametrizations.weight.original.data_ptr() == teacher.weight.data_ptr()
print(f"spectral norm: same memory {same}")
assert same

student.weight = teacher.weight.detach().clone()
same = student.parametrizations.weight.original1.data_ptr() == teacher.weight.data_ptr()
print(f"a clone assigned: same memory {same}")
assert not same

before = student.weight.detach().clone()
with torch.no_grad():
    student.weight.copy_(torch.zeros_like(before))
assert torch.equal(student.weight, before)
print("copy_ to the weight: changed nothing")
PY
"$folder/env/bin/python" "$folder/check.py"
