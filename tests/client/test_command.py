"""`python -m multitask_client`, as people run it."""

import json
import subprocess
import sys

import pytest


@pytest.fixture
def run(server):
    def run(*arguments, stdin=b"", url=None):
        command = [sys.executable, "-m", "multitask_client", "--url", url or server.url, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=60)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    return run


def answers(output):
    return [json.loads(line) for line in output.split("\n") if line]


def test_arguments(run):
    status, output, errors = run("room 12", "a longer text 👍 3")
    assert (status, errors) == (0, "")
    first, second = answers(output)
    assert first == {
        "text": "room 12",
        "label": "short",
        "score": 0.75,
        "entities": [{"type": "number", "text": "12", "start": 5, "end": 7, "score": 0.5}],
    }
    assert second["text"][second["entities"][0]["start"]] == "3"
    assert "👍" in output


def test_lines_in_order(run):
    texts = [f"line {number}" for number in range(1000)]
    status, output, errors = run(stdin="\n".join(texts).encode())
    assert (status, errors) == (0, "")
    assert [answer["text"] for answer in answers(output)] == texts


def test_line_ends_and_byte_order_mark(run):
    _, output, _ = run(stdin=b"\xef\xbb\xbfone\r\ntwo\x0b2\xe2\x80\xa83\nthree")
    assert [answer["text"] for answer in answers(output)] == ["one", "two\x0b2\u20283", "three"]


def test_bad_lines_are_reported_and_the_others_go_on(run):
    status, output, errors = run(stdin=b"one\n\ntwo\n\xff\xfe\nthree\n")
    assert status == 1
    assert [answer["text"] for answer in answers(output)] == ["one", "two", "three"]
    assert errors.splitlines() == [
        "line 2: the text is empty",
        "line 4: not UTF-8 (byte 0xff at 0): convert it with iconv",
    ]


def test_bad_argument(run):
    status, output, errors = run("one", "", b"\xff")
    assert status == 1
    assert len(answers(output)) == 1
    assert "argument 2: the text is empty" in errors
    assert "argument 3: not UTF-8" in errors


def test_nothing_in_nothing_out(run):
    assert run() == (0, "", "")


def test_refused_connection_is_one_clear_line(run, server):
    server.close()
    status, output, errors = run("one", "--deadline", "3")
    assert (status, output) == (1, "")
    assert server.url in errors
    assert "Traceback" not in errors
    assert run("one", "--wait", "0.5")[0] == 1


def test_wrong_encryption_is_one_clear_line(run, server):
    status, output, errors = run("one", "--tls")
    assert (status, output) == (1, "")
    assert "Tls handshake failed" in errors
    assert len(errors.splitlines()) == 1


def test_server_error_says_where_it_stopped(run, server):
    good = server.answer

    def fail_late(texts):
        if "line 299" in texts:
            raise RuntimeError("boom")
        return good(texts)

    server.answer = fail_late
    status, output, errors = run(stdin="".join(f"line {n}\n" for n in range(300)).encode())
    assert status == 1
    assert len(answers(output)) == 256
    assert "no answers after line 256" in errors
    assert "boom" in errors


@pytest.mark.parametrize(
    "arguments", [["--deadline", "x"], ["--nope"], ["--header", "x"], ["--deadline", "-1", "a"]]
)
def test_wrong_usage(run, arguments):
    status, output, errors = run(*arguments)
    assert (status, output) == (2, "")
    assert errors


def test_model_and_version(run):
    for arguments in (["--model", "nope"], ["--model-version", "9"]):
        status, _, errors = run("one", *arguments)
        assert status == 1
        assert "Request for unknown model" in errors


def test_a_pipe_is_answered_line_by_line(server):
    command = [sys.executable, "-m", "multitask_client", "--url", server.url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for text in ("one", "two"):
            process.stdin.write(f"{text}\n".encode())
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["text"] == text
        process.stdin.close()
        assert process.wait(20) == 0


def test_a_reader_that_leaves_is_no_error_message(server):
    command = f"yes text | {sys.executable} -m multitask_client --url {server.url} | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=60)
    assert json.loads(done.stdout)["text"] == "text"
    assert not done.stderr


def test_help_teaches():
    done = subprocess.run(
        [sys.executable, "-m", "multitask_client", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "examples:" in done.stdout
    assert "line N" in done.stdout
