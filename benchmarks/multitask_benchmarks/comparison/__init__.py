"""Two result files against each other: `python -m multitask_benchmarks compare A B`."""
