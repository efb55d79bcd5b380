"""The model alone, on every engine that can run it: arrays of piece ids in, both heads' logits out.

`python -m multitask_benchmarks engines --help`
"""
