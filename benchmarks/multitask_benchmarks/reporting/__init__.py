"""Result files as a page, and as the README's table: `python -m multitask_benchmarks report`."""
