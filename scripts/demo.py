"""The main job on an embedded default: prune ResNet-20 twice, train on scikit-learn's digits, export and measure.

    python3 scripts/demo.py

Makes the virtual environment if needed. Can be run again; it then goes on with, or measures anew, what is there.
"""

import _env

_env.ensure("train")
_env.run(
    "prunit", "build", "resnet20", "--data", "digits", "--budget", "params=1/4", "--budget", "params=1/16",
    "--epochs", "10", "--out", "demo-portfolio", "--resume",
)  # fmt: skip
