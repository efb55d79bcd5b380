"""How the server behaves under load: `python -m multitask_benchmarks serving --help`.

Each scenario starts its own server, so that it can watch what the server's processes cost, and
writes one result file. Load comes from one event loop with ready-made requests, in this process
where callers wait for their answers, in processes of its own where requests come at given times.
"""
