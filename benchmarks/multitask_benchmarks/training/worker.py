"""One process of one training run: `python -m multitask_benchmarks.training.worker JOB`.

The benchmark starts it, for several processes through torch's launcher, and reads what each of them
leaves in the job's folder.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from multitask_benchmarks.training.jobs import OURS, Job, read_job, write_report
from multitask_benchmarks.training.prepare import read_features
from multitask_train.model import MultiTaskConfig, MultiTaskModel


def main(path: Path) -> None:
    """Train what the job says and leave a report."""
    job = read_job(path)
    torch.set_num_threads(job.threads)
    model = load_model(job)
    features = read_features(Path(job.features))
    if job.side == OURS:
        from multitask_benchmarks.training import ours

        report = ours.run(job, model, features)
    else:  # loads far more of transformers, which should not count as our memory
        from multitask_benchmarks.training import peer

        report = peer.run(job, model, features)
    write_report(job.report_file(int(os.environ.get("RANK", "0"))), report)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def load_model(job: Job) -> MultiTaskModel:
    """The job's model in training mode, without any dropout where the job is exact."""
    config = MultiTaskConfig.from_pretrained(job.model)
    if job.exact:
        config.dropout, config.encoder = 0.0, without_dropout(config.encoder)
    model: MultiTaskModel = MultiTaskModel.from_pretrained(job.model, config=config)
    model.train()
    return model


def without_dropout(config: Mapping[str, Any]) -> dict[str, Any]:
    """An encoder's config with 0 for every rate whose name says dropout."""
    return {
        name: 0.0 if "dropout" in name and isinstance(value, float) else value
        for name, value in config.items()
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
