"""The loss of detectors without anchors, after FCOS (Tian et al., 2019): which points stand for which box, how well.

Classes by focal loss (Lin et al., 2017), boxes by generalised IoU (Rezatofighi et al., 2019). The last logit learns the
IoU of the box that was said instead of the centre-ness of its point: by it boxes are ranked, and it is known for every
point (as in Wu et al., 2020, IoU-aware detection).
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

ALPHA: Final = 0.25
GAMMA: Final = 2.0
"""Of focal loss, as in its paper."""
RADIUS: Final = 1.5
"""Points within so many strides of a box's centre stand for it (FCOS's centre sampling)."""
SPAN: Final = 8.0
"""A map is for boxes of which no side is further from the point than so many of its strides, and not less than half."""
SCALE: Final = 2.0
"""By which all is multiplied: so that learning rates of `TrainConfig`, made for classifiers, suit detectors."""
AT_ONCE: Final = 4_000_000
"""Pairs of a point and a box in a table."""
BACKGROUND: Final = -1
IGNORED: Final = -2


@dataclass(frozen=True, eq=False)
class Assigned:
    """What each point of each image stands for."""

    label_BN: Tensor
    """A class, `BACKGROUND` or `IGNORED` (int64)."""
    box_BN4: Tensor
    """The box of a point with a class, in pixels."""
    share_BN: Tensor
    """One divided by how many points stand for the same box, 0 for those that stand for none."""


def detection_loss(raw_BNC: Tensor, points_N3: Tensor, targets_BM6: Tensor) -> Tensor:
    """The loss of a batch, one number: what `FCOS` of the zoo gives in training mode beside boxes (B, M, 6).

    raw_BNC holds a logit for each class, four distances in strides and the logit of the fit; points_N3 x, y and stride
    in pixels. Boxes weigh the same, however many points stand for them, else small ones are learned last; what points
    of the background add is divided by how many points stand for a box.
    """
    raw_BNC, points_N3 = raw_BNC.float(), points_N3.float()
    classes = raw_BNC.shape[2] - 5
    assigned = assign(points_N3, targets_BM6)
    logits_BNK, sides_BN4, fit_BN = raw_BNC[..., :classes], raw_BNC[..., classes:-1], raw_BNC[..., -1]
    found_BN = assigned.label_BN >= 0
    truth_BNK = one_hot(assigned.label_BN.clamp(min=0), classes).float() * found_BN[..., None]
    of_box_BN = assigned.share_BN / assigned.share_BN.sum().clamp(min=1)
    weight_BN = of_box_BN + (assigned.label_BN == BACKGROUND) / found_BN.sum().clamp(min=1)
    by_class = (focal(logits_BNK, truth_BNK).sum(2) * weight_BN).sum()
    # Not by a mask: with none found the gradient would not reach these layers, and several devices wait for it.
    iou_BN, giou_BN = overlaps(boxes_at(points_N3, sides_BN4), assigned.box_BN4)
    by_box = ((1 - giou_BN) * of_box_BN).sum()
    by_fit = (binary_cross_entropy_with_logits(fit_BN, iou_BN.detach(), reduction="none") * of_box_BN).sum()
    return SCALE * (by_class + by_box + by_fit)


def assign(points_N3: Tensor, targets_BM6: Tensor) -> Assigned:
    """For each point the smallest of the boxes that it lies in, near whose centre it is, and whose size suits its map.

    A box that no point stands for, being smaller than the points are apart, gets the nearest point of the finest map.
    Points in ignored boxes that stand for no other count neither way. A few images are done at a time, so that tables
    of all points beside all boxes stay small.
    """
    images = max(1, AT_ONCE // max(1, targets_BM6.shape[1] * len(points_N3)))
    parts = [_assigned(points_N3, some_BM6) for some_BM6 in targets_BM6.split(images)]
    return Assigned(
        torch.cat([part.label_BN for part in parts]),
        torch.cat([part.box_BN4 for part in parts]),
        torch.cat([part.share_BN for part in parts]),
    )


def _assigned(points_N3: Tensor, targets_BM6: Tensor) -> Assigned:
    boxes_BM4, label_BM = targets_BM6[..., :4].float(), targets_BM6[..., 4].long()
    real_BM = (label_BM >= 0) & (targets_BM6[..., 5] == 0)
    ignored_BM = (label_BM >= 0) & (targets_BM6[..., 5] != 0)
    at_N2, stride_N = points_N3[:, :2], points_N3[:, 2]
    sides_BMN4 = torch.cat([at_N2 - boxes_BM4[:, :, None, :2], boxes_BM4[:, :, None, 2:] - at_N2], 3)
    inside_BMN = sides_BMN4.amin(3) > 0
    centre_BM2 = (boxes_BM4[..., :2] + boxes_BM4[..., 2:]) / 2
    away_BMN = (at_N2 - centre_BM2[:, :, None]).abs().amax(3) / stride_N
    suits_BMN = _suits(sides_BMN4.amax(3), stride_N)
    stands_BMN = inside_BMN & (away_BMN < RADIUS) & suits_BMN
    # In pixels of the finest map's strides, so that ties between maps go to it.
    nearest_BM1 = (away_BMN * stride_N + stride_N * 1e3).argmin(2, keepdim=True)
    alone_BM1 = ~stands_BMN.any(2, keepdim=True)
    stands_BMN = stands_BMN.scatter(2, nearest_BM1, alone_BM1 | stands_BMN.gather(2, nearest_BM1))
    stands_BMN = stands_BMN & real_BM[..., None]
    area_BM = (boxes_BM4[..., 2] - boxes_BM4[..., 0]) * (boxes_BM4[..., 3] - boxes_BM4[..., 1])
    area_BMN = torch.where(stands_BMN, area_BM[..., None], torch.inf)
    least_BN, which_BN = area_BMN.min(1)
    found_BN = least_BN.isfinite()
    points_BM = torch.zeros_like(area_BM).scatter_add(1, which_BN, found_BN.to(area_BM.dtype))
    share_BN = found_BN / points_BM.gather(1, which_BN).clamp(min=1)
    label_BN = torch.where(found_BN, label_BM.gather(1, which_BN), BACKGROUND)
    unsure_BN = (inside_BMN & ignored_BM[..., None]).any(1) & (label_BN == BACKGROUND)
    label_BN = torch.where(unsure_BN, IGNORED, label_BN)
    return Assigned(label_BN, boxes_BM4.gather(1, which_BN[..., None].expand(-1, -1, 4)), share_BN)


def _suits(reach_BMN: Tensor, stride_N: Tensor) -> Tensor:
    """Whether a box that reaches so far from a point is one for its map; the finest and the coarsest take the rest."""
    least = torch.where(stride_N == stride_N.min(), 0.0, SPAN / 2 * stride_N)
    most = torch.where(stride_N == stride_N.max(), torch.inf, SPAN * stride_N)
    return (reach_BMN >= least) & (reach_BMN < most)


def boxes_at(points_N3: Tensor, sides_BN4: Tensor) -> Tensor:
    """x1, y1, x2, y2 in pixels, (B, N, 4), from the distances to the sides in strides."""
    reach_BN4 = sides_BN4 * points_N3[:, 2:]
    return torch.cat([points_N3[:, :2] - reach_BN4[..., :2], points_N3[:, :2] + reach_BN4[..., 2:]], 2)


def focal(logits: Tensor, truth: Tensor) -> Tensor:
    """Focal loss of each logit (Lin et al., 2017): cross-entropy, less where the answer is already right."""
    share = logits.sigmoid()
    right = share * truth + (1 - share) * (1 - truth)
    weight = (ALPHA * truth + (1 - ALPHA) * (1 - truth)) * (1 - right) ** GAMMA
    return weight * binary_cross_entropy_with_logits(logits, truth, reduction="none")


def overlaps(a_4: Tensor, b_4: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (Rezatofighi et al., 2019) of pairs of boxes (…, 4): x1, y1, x2, y2."""
    area_a, area_b = ((box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (a_4, b_4))
    first, last = torch.maximum(a_4[..., :2], b_4[..., :2]), torch.minimum(a_4[..., 2:], b_4[..., 2:])
    both = (last - first).clamp(min=0).prod(-1)
    either = (area_a + area_b - both).clamp(min=1e-7)
    outer = (torch.maximum(a_4[..., 2:], b_4[..., 2:]) - torch.minimum(a_4[..., :2], b_4[..., :2])).prod(-1)
    outer = outer.clamp(min=1e-7)
    iou = both / either
    return iou, iou - (outer - either) / outer
