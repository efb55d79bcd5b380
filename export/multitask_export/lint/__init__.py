"""What Triton would ignore in a model repository, or refuse only in production.

`python -m multitask_export lint DIR [--json]` reads every config, graph, manifest and warm-up file
of a repository without a server and without a GPU, where a misspelt GPU key would pass unseen.
"""

from multitask_export.lint.command import add_arguments, run
from multitask_export.lint.rules import Finding, lint

__all__ = ["Finding", "add_arguments", "lint", "run"]
