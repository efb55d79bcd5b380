"""Lines recorded from Triton 2.51 (24.10) are understood."""

import pytest

from multitask_serve import log

START = r"""
W1123 08:05:08.103349 53 pinned_memory_manager.cc:273] "Unable to allocate pinned system memory, pinned memory pool will not be available: CUDA driver version is insufficient for CUDA runtime version"
E1123 08:05:08.103527 53 server.cc:241] "CudaDriverHelper has not been initialized."
I1123 08:05:08.105567 53 model_lifecycle.cc:472] "loading: echo:1"
I1123 08:05:08.105608 53 model_lifecycle.cc:472] "loading: multitask:1"
I1123 08:05:08.346409 53 model_lifecycle.cc:839] "successfully loaded 'echo'"
Error: Failed to initialize NVML
W1123 08:05:08.485087 53 metrics.cc:798] "DCGM unable to start: DCGM initialization error"
""".strip().splitlines()  # noqa: E501

RAISED = r"""
I1123 08:05:08.330636 53 pb_stub.cc:366] "Failed to initialize Python stub: ValueError: bad\n\nAt:\n  /repo/bad/1/model.py(3): initialize\n"
E1123 08:05:08.483308 53 backend_model.cc:692] "ERROR: Failed to create instance: ValueError: bad\n\nAt:\n  /repo/bad/1/model.py(3): initialize\n"
E1123 08:05:08.483416 53 model_lifecycle.cc:642] "failed to load 'bad' version 1: Internal: ValueError: it says \"no\": é,\n  try again\n\nAt:\n  /repo/bad/1/model.py(3): initialize\n"
I1123 08:05:08.483432 53 model_lifecycle.cc:777] "failed to load 'bad'"
""".strip().splitlines()  # noqa: E501

# One model each: an exception of the toolkit, a dead stub, a syntax error, three bad repositories.
FAILURES = [
    (
        r"""E1123 08:05:08.4 53 model_lifecycle.cc:642] "failed to load 'multitask' version 2: Internal: ArtifactError: manifest: sha256 of model.onnx is ab: run `make export`\n\nAt:\n  x\n" """,  # noqa: E501
        ("multitask", "manifest: sha256 of model.onnx is ab: run `make export`"),
    ),
    (
        """E1123 08:10:08.8 74 model_lifecycle.cc:642] "failed to load 'echo' version 1: Internal: Stub process 'echo_0_0' is not healthy." """,  # noqa: E501
        ("echo", "Stub process 'echo_0_0' is not healthy."),
    ),
    (
        """E1123 08:05:08.4 53 model_lifecycle.cc:642] "failed to load 'a' version 1: Internal: SyntaxError: invalid syntax (model.py, line 1)" """,  # noqa: E501
        ("a", "SyntaxError: invalid syntax (model.py, line 1)"),
    ),
    (
        """E1123 08:05:08.1 53 model_repository_manager.cc:724] "failed to load model 'b': at least one version must be available under the version policy of model 'b'" """,  # noqa: E501
        ("b", "at least one version must be available under the version policy of model 'b'"),
    ),
    (
        """E1123 08:05:08.1 53 model_repository_manager.cc:1460] "Poll failed for model directory 'c': failed to open text file for read /r/c/config.pbtxt: No such file or directory" """,  # noqa: E501
        ("c", "failed to open text file for read /r/c/config.pbtxt: No such file or directory"),
    ),
    (
        """[libprotobuf ERROR /tmp/text_format.cc:337] Error parsing text-format inference.ModelConfig: 1:8: Message type "inference.ModelConfig" has no field named "inputs".
E1123 08:05:08.1 53 model_repository_manager.cc:1460] "Poll failed for model directory 'd': failed to read text proto from /r/d/configs/embedded.pbtxt" """,  # noqa: E501
        (
            "d",
            "failed to read text proto from /r/d/configs/embedded.pbtxt: 1:8: Message type "
            '"inference.ModelConfig" has no field named "inputs".',
        ),
    ),
]


def test_a_record_is_taken_apart():
    record = log.parse(START[2])
    assert record == log.Record("I", "model_lifecycle.cc:472", "loading: echo:1")
    assert not record.is_problem


def test_what_is_no_record():
    assert log.parse("| echo  | 1       | READY  |") is None
    assert log.parse("Signal (15) received.") is None


def test_an_unquoted_message_of_the_stub():
    line = "I1123 08:05:08.1 5 pb_stub.cc:366]  Failed to initialize Python stub: SyntaxError"
    assert log.parse(line).message == " Failed to initialize Python stub: SyntaxError"


def test_a_start_without_gpu_has_only_harmless_problems():
    problems = [record for record in map(log.parse, START) if record and record.is_problem]
    assert len(problems) == 3
    assert all(record.is_harmless_without_gpu for record in problems)
    assert log.find_failures(START) == {}


def test_the_models_own_message_without_status_and_traceback():
    assert log.find_failures(RAISED) == {"bad": 'ValueError: it says "no": é, try again'}


@pytest.mark.parametrize(("text", "failure"), FAILURES)
def test_each_kind_of_failure(text, failure):
    lines = [line.strip() for line in text.splitlines()]
    assert log.find_failures(lines) == dict([failure])


def test_every_failing_model_is_named():
    lines = [line.strip() for text, _ in FAILURES for line in text.splitlines()]
    assert list(log.find_failures(lines)) == [name for _, (name, _) in FAILURES]


def test_models_still_loading():
    assert log.still_loading(START) == ["multitask"]
    assert log.still_loading(RAISED) == []


def test_the_last_error_skips_what_is_harmless():
    assert log.last_error(START[:2]) == ""
    taken = 'E1123 08:05:09.1 5 main.cc:1] "failed to start HTTP service: Unavailable - in use"'
    assert log.last_error([*START, taken]) == "failed to start HTTP service: Unavailable - in use"
    assert log.last_error([*START, "error: creating server: Internal - no"]) == "no"
    assert log.last_error(["tritonserver: error while loading shared libraries: libb64.so"]) != ""


def test_a_growing_file_is_read_by_whole_lines(tmp_path):
    path = tmp_path / "triton.log"
    path.write_bytes(b"one\ntw")
    growing = log.LogFile(path)
    assert growing.read_new() == ["one"]
    with path.open("ab") as stream:
        stream.write("o\nthrée\n".encode())
    assert growing.read_new() == ["two", "thrée"]
    assert growing.read_new() == []
    assert list(growing.lines) == ["one", "two", "thrée"]
