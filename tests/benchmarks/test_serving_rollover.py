"""The rollover scenario on a fake Triton whose versions are turned over."""

import json
import os
import threading

import pytest

from multitask_benchmarks.__main__ import main
from multitask_benchmarks.serving import (
    rollover,
)
from multitask_benchmarks.serving.served import Served
from multitask_benchmarks.serving.wire import GrpcEndpoint
from multitask_core.errors import ServeError
from multitask_core.prediction import Prediction

TEXTS = [f"{'x' * number} room {number}" for number in range(20)]


@pytest.fixture
def served(server):
    return Served("fake", server.url, "", os.getpid(), {"kind": "triton"})


def rendered(tables, render):
    return "\n".join(map(render, tables))


class Script:
    """An operator who turns a fake server's versions over, and waits for some requests between."""

    def __init__(self, server, fail_at=99):
        self._server, self._steps, self._fail_at = server, 0, fail_at
        self._versions = {"1": "A"}

    def publish(self):
        self._step()
        number = str(len(self._versions) + 1)
        self._versions[number] = "B"
        self._server.versions[number] = self._server.versions["1"]
        self._server.version = number

    def rollback(self):
        self._step()
        self._server.version = "1"

    def versions(self):
        return dict(self._versions)

    def _step(self):
        self._steps += 1
        if self._steps == self._fail_at:
            raise ServeError("the new version is damaged")
        seen = len(self._server.requests)
        while len(self._server.requests) < seen + 10:
            threading.Event().wait(0.001)


def expected(server):
    answers = server.answer(TEXTS)
    return {"A": answers, "B": answers}


def test_rollover_goes_on_until_all_is_done_and_names_the_versions(server, served, render):
    turned = rollover.Rollover(Script(server), times=3)
    calls = rollover.load(served, TEXTS, turned, requests=30, concurrency=4)
    assert [step.command for step in turned.steps] == ["publish", "rollback"] * 3
    verdict = rollover.judge(
        calls, GrpcEndpoint(served.url, TEXTS), turned.artifacts, expected(server)
    )
    assert verdict.faults == 0
    assert verdict.by_version["1"] + sum(verdict.by_version.get(v, 0) for v in "234") == len(calls)
    body = json.loads(json.dumps(rollover.result(calls, turned, verdict, apart=5)))
    assert body["artifact_of_version"] == {"1": "A", "2": "B", "3": "B", "4": "B"}
    assert "Answers by version" in rendered(rollover.tables(body), render)
    assert rollover.brief(body)["faults"] == 0


def test_rollover_sends_enough_when_the_versions_are_quick(server, served):
    turned = rollover.Rollover(Script(server), times=1)
    assert len(rollover.load(served, TEXTS, turned, requests=300, concurrency=4)) >= 300


def test_rollover_finds_a_failed_request_and_a_strange_answer(server, served):
    good = server.answer
    server.failures.extend([("UNAVAILABLE", "gone")] * 2)

    def strange(texts):
        if len(server.requests) == 30:
            return [Prediction("odd", {"odd": 1.0, "even": 0.0}, ())]
        return good(texts)

    server.answer = strange
    turned = rollover.Rollover(Script(server), times=2)
    calls = rollover.load(served, TEXTS, turned, requests=60, concurrency=1)
    right = {name: good(TEXTS) for name in "AB"}
    verdict = rollover.judge(calls, GrpcEndpoint(served.url, TEXTS), turned.artifacts, right)
    assert verdict.failed == {"UNAVAILABLE: gone": 2}
    assert verdict.wrong == 1
    assert verdict.faults == 3


def test_rollover_keeps_what_an_operator_ran_into(server, served):
    turned = rollover.Rollover(Script(server, fail_at=3), times=5)
    calls = rollover.load(served, TEXTS, turned, requests=10, concurrency=2)
    assert len(turned.steps) == 2
    assert "damaged" in str(turned.error)
    assert calls.statuses() == {"OK": len(calls)}


def test_rollover_refuses_the_same_artifact_twice(tiny_artifact, corpus, capsys):
    arguments = ["--artifact", str(tiny_artifact), "--artifact-b", str(tiny_artifact)]
    assert main(["serving", "rollover", *arguments, "--data", str(corpus)]) == 1
    assert "no answer could tell them apart" in capsys.readouterr().err
