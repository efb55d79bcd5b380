"""Many scenarios with one command: `python -m multitask_benchmarks run SCENARIOS.yaml …`."""
