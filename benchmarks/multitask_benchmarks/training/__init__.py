"""Training speed: this package's loop against the Hugging Face Trainer.

    python -m multitask_benchmarks training --data FILE

`command` reads the options and writes the result, `check` compares what the sides compute,
`measure` runs the rounds, `launch` starts a worker for each; in the worker, `ours` and `peer`
train, `meter` reads the clocks.
"""
