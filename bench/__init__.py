"""What produces every number that the README and docs quote: `python -m bench.NAME`, one JSON file each.

speed            dense model to compact model at half width, against Torch-Pruning; growth with depth
synflow_rounds   what SynFlow's rounds cost and what they buy
compact_memory   memory that compact takes on top of the dense model
startup          importing the package and asking the command line for help
export_latency   exported networks of three widths in ONNX Runtime
export_passes    exported graphs with all rewrites, the chosen ones and none
coverage         which of timm's CNNs and hybrids can be cut, and rightly; writes docs/coverage.md
tables           the tables of docs/benchmarks.md from the JSON files
"""
