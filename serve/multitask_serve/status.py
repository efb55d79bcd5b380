"""What a running server says of itself."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from multitask_serve.admin import Admin, Counters
from multitask_serve.records import Record


def collect(server: Admin, record: Record | None) -> dict[str, Any]:
    """Health, addresses, and every version's state and counters since it was loaded."""
    live, ready, version = server.health()
    counters = server.counters()
    states: Mapping[tuple[str, int], str] = (
        server.states() if server.address.token else dict.fromkeys(counters, "READY")
    )
    return {
        "live": live,
        "ready": ready,
        "triton": version,
        "grpc": server.address.url,
        "http": record.http if record else None,
        "metrics": record.metrics if record else None,
        "repository": record.repository if record else None,
        "target": record.target if record else None,
        "tls": (record.tls or None) if record else None,
        "pid": record.pid if record else None,
        "uptime_s": round(time.time() - record.started, 1) if record else None,
        "models": [
            {"model": model, "version": number, "state": state, **_figures(counters, model, number)}
            for (model, number), state in sorted(states.items())
        ],
    }


def page(status: Mapping[str, Any]) -> str:
    """For people."""
    uptime = status["uptime_s"]
    head = [
        f"{'live' if status['live'] else 'NOT LIVE'}, "
        f"{'ready' if status['ready'] else 'NOT READY'}, Triton {status['triton']}"
        + (f", target {status['target']}, up {_duration(uptime)}" if uptime is not None else ""),
        f"  gRPC     {status['grpc']}" + (f" ({status['tls']})" if status["tls"] else ""),
        *(
            f"  {name:9}{status[key]}"
            for name, key in (("HTTP", "http"), ("metrics", "metrics"), ("from", "repository"))
            if status[key]
        ),
    ]
    columns = (
        "model",
        "version",
        "state",
        "requests",
        "failures",
        "queue ms",
        "compute ms",
        "batch",
    )
    row = "{:16}{:>8} {:12}{:>10}{:>9}{:>10}{:>12}{:>7}"
    lines = [
        row.format(
            one["model"],
            one["version"],
            one["state"],
            one["requests"],
            one["failures"],
            f"{one['queue_ms']:.2f}",
            f"{one['compute_ms']:.2f}",
            f"{one['mean_batch']:.1f}",
        )
        for one in status["models"]
    ]
    return "\n".join([*head, row.format(*columns), *lines])


def _figures(
    counters: Mapping[tuple[str, int], Counters], model: str, number: int
) -> dict[str, float | int]:
    """Requests are those since the load, its warm-up included; times are means of one request."""
    one = counters.get((model, number), Counters(0, 0, 0, 0, 0.0, 0.0))
    answered = max(1, one.requests - one.failures)
    return {
        "requests": one.requests,
        "failures": one.failures,
        "queue_ms": round(one.queue_ms / answered, 3),
        "compute_ms": round(one.compute_ms / answered, 3),
        "mean_batch": round(one.mean_batch, 2),
    }


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
