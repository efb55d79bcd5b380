"""A guarded command ends with the process that asked for it, however that ends."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from multitask_serve.process import GuardedProcess


@pytest.fixture
def start(tmp_path):
    """Run a shell script under a guard; whatever still runs after the test is killed."""
    started = []

    def run(script, *, grace_s=10.0, own_group=True, **options):
        process = GuardedProcess(
            ["sh", "-c", f": {tmp_path}; {script}"],
            environ=os.environ,
            grace_s=grace_s,
            own_group=own_group,
            **options,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.close()


@pytest.mark.parametrize("own_group", [True, False])
def test_the_exit_status_is_passed_on(start, own_group):
    assert start("exit 7", own_group=own_group).wait() == 7
    assert start("kill -ABRT $$", own_group=own_group).wait() == 128 + signal.SIGABRT


def test_a_program_that_cannot_be_run(tmp_path):
    process = GuardedProcess(
        [str(tmp_path / "none")],
        environ=os.environ,
        grace_s=1,
        own_group=True,
        output=subprocess.DEVNULL,
    )
    assert process.wait() == 127
    process.close()


def test_terminate_lets_the_command_finish(start, tmp_path, wait_until):
    ready = tmp_path / "ready"
    process = start(f"trap 'exit 3' TERM; touch {ready}; while :; do sleep 0.05; done")
    wait_until(ready.exists, 10)
    assert process.poll() is None
    assert process.wait(timeout_s=0.05) is None
    process.terminate()
    assert process.wait(10) == 3


def test_what_does_not_end_in_its_grace_is_killed(start, tmp_path, wait_until):
    ready = tmp_path / "ready"
    process = start(f"trap '' TERM; touch {ready}; while :; do sleep 0.05; done", grace_s=0.3)
    wait_until(ready.exists, 10)
    process.terminate()
    assert process.wait(10) == 128 + signal.SIGKILL


def test_kill_does_not_wait_for_the_grace(start, tmp_path, wait_until):
    ready = tmp_path / "ready"
    process = start(f"trap '' TERM; touch {ready}; while :; do sleep 0.05; done", grace_s=100)
    wait_until(ready.exists, 10)
    process.terminate()
    process.kill()
    assert process.wait(10) == 128 + signal.SIGKILL


def test_children_and_leftovers_go_with_the_command(start, tmp_path, processes, wait_until):
    left = tmp_path / "region_1"
    left.touch()
    start(f"sh -c ': {tmp_path}; sleep 1000' & exit 0", leftovers=str(tmp_path / "region_*")).wait()
    wait_until(lambda: not processes(), 5)
    assert not left.exists()


def test_ordering_an_ended_command_is_harmless(start):
    process = start("exit 0")
    assert process.wait() == 0
    process.terminate()
    process.kill()
    process.close()
    process.close()


ASKER = """
import os, sys, time
from multitask_serve.process import GuardedProcess

GuardedProcess(
    ["sh", "-c", ": {folder}; trap '' TERM; touch {folder}/ready; while :; do sleep 0.05; done"],
    environ=os.environ, grace_s=0.3, own_group={own_group},
)
time.sleep(1000)
"""


@pytest.mark.parametrize("own_group", [True, False])
def test_an_asker_that_is_killed_takes_the_command_with_it(
    tmp_path, processes, wait_until, own_group
):
    script = textwrap.dedent(ASKER).format(folder=tmp_path, own_group=own_group)
    with subprocess.Popen([sys.executable, "-c", script]) as asker:
        wait_until((tmp_path / "ready").exists, 10)
        asker.kill()
    wait_until(lambda: not processes(), 5)
