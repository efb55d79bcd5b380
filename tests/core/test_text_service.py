"""What the text model does with a batch of requests."""

import json
import threading

import numpy as np
import pytest

from multitask_core.artifact import Artifact
from multitask_core.errors import InputError, OverloadError
from multitask_core.pipeline import Pipeline
from multitask_core.serving import Serving
from multitask_core.session import OnnxEncoder
from multitask_core.telemetry import Meter, engine_info
from multitask_core.text import TextEncoder
from multitask_core.text_service import TextAnswer, TextRequest, TextService, claim_memory


def service_with(
    artifact: Artifact, encoder, meter: Meter | None = None, **settings
) -> TextService:
    return TextService.for_artifact(
        artifact, encoder, "packed", Serving(**settings), meter or Meter(), in_process=True
    )


@pytest.fixture(scope="module")
def artifact(tiny_artifact) -> Artifact:
    return Artifact.open(tiny_artifact)


@pytest.fixture(scope="module")
def encoder(artifact: Artifact) -> OnnxEncoder:
    return OnnxEncoder.from_artifact(artifact, engine="onnxruntime", threads=1)


@pytest.fixture(scope="module")
def pipeline(artifact: Artifact, encoder: OnnxEncoder) -> Pipeline:
    return Pipeline(artifact.text_encoder(), encoder, artifact.schema)


def request(*texts: str, **options) -> TextRequest:
    return TextRequest([text.encode() for text in texts], **options)


def test_one_bad_request_fails_alone(artifact: Artifact, encoder: OnnxEncoder) -> None:
    good, empty, broken, many = service_with(artifact, encoder).answer(
        [request("play jazz"), request(""), TextRequest([b"caf\xe9"]), request("Zoë", "a")]
    )
    assert isinstance(good, TextAnswer)
    assert isinstance(empty, InputError)
    assert "invalid UTF-8" in str(broken)
    assert isinstance(many, TextAnswer)
    assert many.labels.shape == (2, 1)
    assert many.label_scores.dtype == np.float32


def test_a_request_of_several_texts_names_the_bad_one(artifact, encoder) -> None:
    (answer,) = service_with(artifact, encoder).answer([request("a", " ", "b")])
    assert str(answer).startswith("text 1: ")


def test_answers_are_those_of_the_pipeline(artifact, encoder, pipeline: Pipeline) -> None:
    texts = ["play jazz in Paris", "wake me at 7"]
    (answer,) = service_with(artifact, encoder).answer([request(*texts)])
    assert isinstance(answer, TextAnswer)
    for index, expected in enumerate(pipeline.predict(texts)):
        assert answer.labels[index, 0].decode() == expected.label
        entities = json.loads(answer.entities[index, 0])
        assert [one["text"] for one in entities] == [one.text for one in expected.entities]


def test_a_text_on_which_the_encoder_fails_fails_alone(artifact: Artifact) -> None:
    def fragile(rows):
        if max(map(len, rows)) > 20:
            raise RuntimeError("out of memory")
        return [(np.zeros(3, np.float32), np.zeros((len(row), 7), np.float32)) for row in rows]

    good, bad = service_with(artifact, fragile).answer([request("hi"), request("a " * 30)])
    assert isinstance(good, TextAnswer)
    assert isinstance(bad, RuntimeError)


def test_a_long_request_steps_aside_and_is_answered_alike(artifact, encoder, pipeline) -> None:
    text = "wake me at seven " * 40
    arrived: dict[int, object] = {}
    came = threading.Event()

    def later(index: int):
        return lambda result: (arrived.__setitem__(index, result), came.set())

    service = service_with(artifact, encoder, light_pieces=16)
    short, long = service.answer([request("play jazz"), request(text)], later)
    assert isinstance(short, TextAnswer)
    assert long is None
    assert came.wait(30)
    assert isinstance(arrived[1], TextAnswer)
    found = [(one["start"], one["end"]) for one in json.loads(arrived[1].entities[0, 0])]
    expected = pipeline.predict([text])[0]
    assert found == [(one.start, one.end) for one in expected.entities]
    assert arrived[1].labels[0, 0].decode() == expected.label


def test_short_requests_are_answered_while_a_long_one_runs(artifact: Artifact) -> None:
    """The long one's windows and the short one's batch take turns."""
    calls: list[int] = []
    started = threading.Event()

    def slow(rows):
        calls.append(len(rows))
        started.set()
        threading.Event().wait(0.01)
        return [(np.zeros(3, np.float32), np.zeros((len(row), 7), np.float32)) for row in rows]

    service = service_with(artifact, slow, light_pieces=16)
    finished = threading.Event()
    service.answer([request("a " * 6000)], lambda _: lambda _: finished.set())
    assert started.wait(30)
    service.answer([request("hi")], lambda _: lambda _: None)
    assert not finished.is_set()
    service.close()
    assert finished.is_set()


def test_too_much_waiting_work_is_refused_and_counted(artifact: Artifact) -> None:
    gate, began = threading.Event(), threading.Event()

    def blocked(rows):
        began.set()
        gate.wait(30)
        return [(np.zeros(3, np.float32), np.zeros((len(row), 7), np.float32)) for row in rows]

    meter = Meter()
    service = service_with(artifact, blocked, meter, light_pieces=4, waiting_pieces=50)
    replies: list[object] = []
    assert service.answer([request("a " * 30)], lambda _: replies.append) == [None]
    assert began.wait(30)  # what runs does not wait
    results = service.answer([request("a " * 30)] * 3, lambda _: replies.append)
    assert results[0] is None
    assert isinstance(results[1], OverloadError)
    assert "send this one again later" in str(results[2])
    gate.set()
    service.close()
    assert [type(one) for one in replies] == [TextAnswer, TextAnswer]
    counts = meter.take()
    assert counts["multitask_rejected_total", "reason", "overload"] == 2
    assert counts["multitask_deferred_total", "", ""] == 2


def test_windows_of_a_request_are_limited(artifact: Artifact, encoder: OnnxEncoder) -> None:
    service = service_with(artifact, encoder, max_windows=2)
    fine, many = service.answer([request("a", "b"), request("a", "b " * 40)])
    assert isinstance(fine, TextAnswer)
    assert "at most 2 are allowed" in str(many)


def test_characters_of_a_request_are_limited_before_they_are_tokenised(
    artifact: Artifact, encoder: OnnxEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = service_with(artifact, encoder, max_request_chars=20)
    tokenised: list[str] = []
    plain = TextEncoder.each
    monkeypatch.setattr(
        TextEncoder,
        "each",
        lambda self, texts, most: tokenised.extend(texts) or plain(self, texts, most),
    )
    many, fine, single = service.answer(
        [request("a" * 11, "b" * 10), request("a"), request("c" * 30)]
    )
    assert "2 texts have 21 characters; at most 20 are allowed" in str(many)
    assert isinstance(fine, TextAnswer)
    assert isinstance(single, TextAnswer)  # a text by itself has max_chars
    assert tokenised == ["a", "c" * 30]


@pytest.mark.parametrize("value", ['"high"', "true", "1.5", "-1", "null", "[]"])
def test_a_wrong_entity_score_is_refused(value: str) -> None:
    parsed = TextRequest.parse([b"a"], ["ENTITIES"], f'{{"min_entity_score": {value}}}')
    assert isinstance(parsed, InputError)
    assert "must be a number from 0 to 1" in str(parsed)


def test_request_options(artifact: Artifact, encoder: OnnxEncoder, pipeline: Pipeline) -> None:
    text = "play some jazz in Paris"
    scores = sorted(one.score for one in pipeline.predict([text])[0].entities)
    assert len(scores) > 1
    bound = (scores[0] + scores[-1]) / 2
    all_of_them = TextRequest.parse([text.encode()], ["LABEL", "ENTITIES"], "")
    sure = TextRequest.parse([text.encode()], ["ENTITIES"], f'{{"min_entity_score": "{bound}"}}')
    label_only = TextRequest.parse([text.encode()], ["LABEL"], "{}")
    answers = service_with(artifact, encoder).answer([all_of_them, sure, label_only])
    counts = [len(json.loads(answer.entities[0, 0])) for answer in answers]
    assert counts == [len(scores), sum(one >= bound for one in scores), 0]


def test_what_is_counted(artifact: Artifact, encoder: OnnxEncoder) -> None:
    meter = Meter()
    texts = ["play some jazz in Paris", "no"]
    service_with(artifact, encoder, meter).answer([request(*texts), request("")])
    counts = meter.take()
    assert counts["multitask_texts_total", "", ""] == 2
    assert counts["multitask_windows_total", "", ""] == 2
    assert counts["multitask_batches_total", "", ""] == 1
    assert counts["multitask_padding_tokens_total", "", ""] == 0
    assert counts["multitask_rejected_total", "reason", "bad_input"] == 1
    labels = [value for (name, *_), value in counts.items() if name == "multitask_labels_total"]
    assert sum(labels) == 2
    assert counts["multitask_confidence_bucket_total", "le", "1.0"] == 2
    assert counts["multitask_encoder_seconds_total", "", ""] > 0
    assert meter.take() == {}


def test_what_runs_the_encoder_is_said() -> None:
    found = engine_info("openvino-bf16")
    assert list(found) == ["engine", "onnxruntime", "openvino"]  # one family, one set of labels
    assert found["engine"] == "openvino-bf16"
    assert found["onnxruntime"]


@pytest.mark.parametrize(("budget", "longest", "length"), [(2048, 512, 32), (2048, 16, 16)])
def test_the_largest_batch_is_run_once(budget: int, longest: int, length: int) -> None:
    ran: list[list[list[int]]] = []
    claim_memory(ran.append, longest, Serving(token_budget=budget, max_batch=64))
    assert [[len(row) for row in rows] for rows in ran] == [[length] * 64]
