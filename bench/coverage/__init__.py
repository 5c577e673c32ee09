"""How many architectures can be cut, and rightly: `python -m bench.coverage` writes docs/coverage.md.

selection   which of timm's models, by rule
beyond      networks of other packages
sections    the two of them, each with its cells and its result
networks    models as after some training, and how far two of them differ
ours        what is asked of prunit
theirs      what is asked of Torch-Pruning
cells       one model and one tool: a process of its own, limits, a JSON file
tallies     what cells say, counted
page        all cells as one JSON file for each section, and one page; its second table is in beyond_page
"""
