#!/usr/bin/env bash
# hotcoco 1.3.0, numpy 2.3.5. Seen on 29 November 2026.
#
# Guess: the "bootstrap confidence intervals" of hotcoco.compare on the difference of two detectors are as wide as those
# of a bootstrap, in which an image that is drawn twice counts twice.
#
# An image that is drawn several times counts once: each resample holds about 63 % of the images, all of them different.
# How much such subsamples differ depends on how many images are left out, and the intervals come out about three
# quarters as wide (the root of 0.37 / 0.63), as those of 1.7 times as many images would. A difference is called one
# that other images may well not show.
#
# Output seen (width of the 95 % interval of the difference in AP50, 300 images, 600 resamples):
#   compare 0.1686, images counted as often as drawn 0.2221: 0.76 of it
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet hotcoco==1.3.0 numpy==2.3.5
cat > "$folder/check.py" <<'PY'
import contextlib
import io

import numpy as np
from hotcoco import COCO, COCOeval, compare

IMAGES, RESAMPLES = 300, 600
random = np.random.default_rng(0)
found = {"a": random.random(IMAGES) < 0.8, "b": random.random(IMAGES) < 0.7}
scores = {name: random.random(IMAGES) for name in found}


def evaluated(model, images):
    """Each image has one object; a detector says one box, on the object or beside it. Images that come again are others."""
    boxes = [
        {"image_id": i, "category_id": 1, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0, "id": i}
        for i in range(1, len(images) + 1)
    ]
    truth = {
        "images": [{"id": i, "width": 64, "height": 64} for i in range(1, len(images) + 1)],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": boxes,
    }
    said = [
        {
            "image_id": i,
            "category_id": 1,
            "bbox": [0, 0, 10, 10] if found[model][image] else [40, 40, 10, 10],
            "score": float(scores[model][image]),
        }
        for i, image in enumerate(images, start=1)
    ]
    ground = COCO(truth)
    evaluator = COCOeval(ground, ground.load_res(said), "bbox")
    evaluator.evaluate()
    return evaluator


def ap50(evaluator):
    evaluator.accumulate()
    precision = np.asarray(evaluator.eval["precision"])[0, :, 0, 0, -1]
    return float(precision[precision > -1].mean())


with contextlib.redirect_stdout(io.StringIO()):
    whole = [evaluated(name, range(IMAGES)) for name in ("a", "b")]
    ends = compare(*whole, n_bootstrap=RESAMPLES, seed=1)["ci"]["AP50"]
    differences = []
    for _ in range(RESAMPLES):
        drawn = random.integers(IMAGES, size=IMAGES)
        differences.append(ap50(evaluated("b", drawn)) - ap50(evaluated("a", drawn)))
low, high = (ends["lower"], ends["upper"]) if isinstance(ends, dict) else ends[:2]
theirs, plain = high - low, float(np.subtract(*np.quantile(differences, [0.975, 0.025])))
print(f"compare {theirs:.4f}, images counted as often as drawn {plain:.4f}: {theirs / plain:.2f} of it")
assert 0.6 < theirs / plain < 0.9
PY
"$folder/env/bin/python" "$folder/check.py"
