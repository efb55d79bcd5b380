"""What a server spent while it was asked: CPU, memory, and queue and compute by Triton's count."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

from multitask_benchmarks.serving.processes import Watch, pss_mib
from multitask_benchmarks.serving.served import Served
from multitask_client import Client
from multitask_client.answers import Statistics

_MEMORY_S = 0.5


@dataclass(frozen=True)
class Spent:
    """triton: its counters over the stretch, None for other servers.

    CPU and memory are None for a server that is not this run's. rss_mib: the most resident memory
    of all processes together, in which shared pages count for each; pss_mib: at the end, with
    shared pages counted once.
    """

    cpu_s: float | None
    triton: Statistics | None
    rss_mib: float | None
    pss_mib: float | None


class Meter:
    """Reads a server's counters at the beginning and the end of a `with` block."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._watch = Watch(served.pid, _MEMORY_S)
        self._before: Statistics | None = None
        self._spent: Spent | None = None

    @property
    def spent(self) -> Spent:
        """What the block cost, once it has ended."""
        assert self._spent is not None, "the block has not ended"
        return self._spent

    def __enter__(self) -> Meter:
        self._before = self._statistics()
        self._watch.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watch.__exit__(kind, error, trace)
        if error is not None:  # the server may be gone
            return
        after, samples = self._statistics(), self._watch.samples
        triton = after - self._before if after and self._before else None
        if not self._served.pid:
            self._spent = Spent(None, triton, None, None)
            return
        self._spent = Spent(
            cpu_s=samples[-1].cpu_s - samples[0].cpu_s,
            triton=triton,
            rss_mib=max(sample.total_mib for sample in samples),
            pss_mib=pss_mib(self._served.pid),
        )

    def _statistics(self) -> Statistics | None:
        if self._served.form is not None:
            return None
        with Client(self._served.url) as client:
            return client.statistics()
