"""How many architectures can be cut, and rightly: `python -m bench.coverage` writes docs/coverage.md.

selection   which of timm's models, by rule
networks    models as after some training, and how far two of them differ
ours        what is asked of prunit
theirs      what is asked of Torch-Pruning
cells       one model and one tool: a process of its own, limits, a JSON file
page        all cells as one JSON file and one page
"""
