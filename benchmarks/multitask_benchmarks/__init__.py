"""How fast and how faithful the served model is, measured against its own checkpoint.

`python -m multitask_benchmarks run | verify | demo`, each with --help.
"""
