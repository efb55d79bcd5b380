"""Text → answer through a real Triton: equal to the checkpoint, batched, robust."""

from __future__ import annotations

import asyncio
import random
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException

from multitask_client import AsyncClient, Client
from multitask_client.errors import BadRequest, ModelUnavailable
from multitask_core import signature
from multitask_core.artifact import Artifact
from multitask_core.pipeline import Pipeline
from multitask_core.prediction import Prediction
from multitask_core.session import OnnxEncoder
from multitask_serve import TritonServer
from multitask_train.checkpoint import load_pipeline
from tiny import SENTENCES

pytestmark = pytest.mark.triton

WORDS = " ".join(SENTENCES).split()


def sentences(count: int, longest: int = 40) -> list[str]:
    order = random.Random(7)
    return [" ".join(order.choices(WORDS, k=order.randint(1, longest))) for _ in range(count)]


def essence(answer: Prediction) -> tuple[object, ...]:
    return answer.label, [(one.type, one.text, one.start, one.end) for one in answer.entities]


def executions(server: TritonServer, model: str) -> int:
    with Client(server.grpc_url, model=model) as one:
        return one.statistics().executions


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path) -> Pipeline:
    return load_pipeline(tiny_checkpoint)


def test_served_answers_are_the_checkpoints(client: Client, checkpoint: Pipeline) -> None:
    texts = [*SENTENCES, *sentences(40)]
    for served, expected in zip(client.predict(texts), checkpoint.predict(texts), strict=True):
        assert essence(served) == essence(expected)
        assert served.scores == pytest.approx(expected.scores, abs=1e-4)


def test_mixed_lengths_are_batched_and_right(
    client: Client, server: TritonServer, checkpoint: Pipeline
) -> None:
    texts = sentences(400)
    before = client.statistics()

    async def ask() -> list[Prediction]:
        async with AsyncClient(server.grpc_url, deadline_s=120) as one:
            gate = asyncio.Semaphore(32)

            async def single(text: str) -> Prediction:
                async with gate:
                    return (await one.predict([text]))[0]

            return await asyncio.gather(*map(single, texts))

    answers = asyncio.run(ask())
    after = client.statistics() - before
    while after.inferences < 400:  # an instance counts after it has answered
        time.sleep(0.1)
        after = client.statistics() - before
    assert after.inferences == 400
    assert after.executions < 200
    assert list(map(essence, answers)) == list(map(essence, checkpoint.predict(texts)))


def test_a_document_of_5000_words(client: Client, checkpoint: Pipeline) -> None:
    text = "the jazz is in Paris, at the play. " * 720 + "now play some jazz in Paris, Zoë"
    assert len(text.split()) > 5000
    (served,) = client.predict([text])
    (expected,) = checkpoint.predict([text])
    assert essence(served) == essence(expected)
    assert served.entities[-1].end > len(text) - 40
    for entity in served.entities:
        assert text[entity.start : entity.end] == entity.text


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "empty"), (" \n ", "empty"), ("x" * 2**20, "at most 200,000 are allowed")],
)
def test_a_bad_text_is_told_and_others_go_on(client: Client, text: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        client.predict([text])
    assert len(client.predict(["play"])) == 1


def infer(server: TritonServer, model: str, version: str = "", **arrays: np.ndarray) -> object:
    with triton.InferenceServerClient(server.grpc_url) as raw:
        inputs = []
        for name, array in arrays.items():
            kind = "BYTES" if array.dtype == np.object_ else triton.np_to_triton_dtype(array.dtype)
            one = triton.InferInput(name, list(array.shape), kind)
            one.set_data_from_numpy(array)
            inputs.append(one)
        return raw.infer(model, inputs, model_version=version)


def texts_array(*texts: bytes) -> np.ndarray:
    return np.array([[text] for text in texts], np.object_)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"TEXT": texts_array(b"caf\xe9")}, "invalid UTF-8"),
        ({"TEXT": texts_array(b"a", b"", b"b")}, "text 1: the text is empty"),
        ({"TEXT": np.ones((1, 1), np.int64)}, "data-type"),
        ({"TEXT": np.array([[b"a", b"b"]], np.object_)}, "shape"),
        ({"WORDS": texts_array(b"a")}, "WORDS"),
    ],
)
def test_malformed_requests(server: TritonServer, client: Client, arrays, message: str) -> None:
    with pytest.raises(InferenceServerException, match=message) as caught:
        infer(server, signature.TEXT_MODEL, **arrays)
    assert "INVALID_ARGUMENT" in caught.value.status()
    assert len(client.predict(["play"])) == 1


def test_bad_texts_in_a_batch_fail_alone(server: TritonServer) -> None:
    texts = ["play jazz" if index % 3 else "" for index in range(60)]

    async def ask() -> list[object]:
        async with AsyncClient(server.grpc_url) as one:
            calls = [one.predict([text]) for text in texts]
            return await asyncio.gather(*calls, return_exceptions=True)

    answers = asyncio.run(ask())
    for text, answer in zip(texts, answers, strict=True):
        assert isinstance(answer, BadRequest) == (text == "")


def test_an_unknown_version_and_model(server: TritonServer) -> None:
    for options in ({"model_version": "9"}, {"model": "other"}):
        with (
            Client(server.grpc_url, **options) as one,
            pytest.raises(ModelUnavailable, match="9|other"),
        ):
            one.predict(["play"])


def test_the_tensor_model_gives_the_graphs_logits(
    server: TritonServer, served: str, tiny_artifact: Path
) -> None:
    artifact = Artifact.open(tiny_artifact)
    if served == "bls-padded":
        encoder = OnnxEncoder(artifact.graph("fp32-fused"), artifact.schema, threads=1)
        ids = np.array([[2, 9, 10, 3], [2, 11, 3, 0]])
        mask = np.array([[1, 1, 1, 1], [1, 1, 1, 0]])
        answer = infer(server, signature.TENSOR_MODEL, input_ids=ids, attention_mask=mask)
        expected = encoder.run(ids, mask)
    else:
        encoder = OnnxEncoder(artifact.graph("fp32-packed"), artifact.schema, threads=1)
        ids = np.array([[2, 9, 10, 3], [2, 11, 12, 3]])
        answer = infer(server, signature.TENSOR_MODEL, input_ids=ids)
        expected = tuple(map(np.stack, zip(*encoder(ids.tolist()), strict=True)))
    for name, logits in zip(
        (signature.CLASS_LOGITS, signature.TOKEN_LOGITS), expected, strict=True
    ):
        np.testing.assert_allclose(answer.as_numpy(name), logits, atol=1e-5)


def test_packed_tensor_requests_of_all_lengths_merge(
    server: TritonServer, served: str, tiny_artifact: Path
) -> None:
    """The lengths differ, and yet requests run together and every answer is its own."""
    if served == "bls-padded":
        pytest.skip("padded requests merge only when their lengths are equal")
    artifact = Artifact.open(tiny_artifact)
    encoder = OnnxEncoder(artifact.graph("fp32-packed"), artifact.schema, threads=1)
    rows = [[2, *range(6, 6 + length), 3] for length in range(1, 30)] * 8
    before = executions(server, signature.TENSOR_MODEL)
    with ThreadPoolExecutor(24) as pool:
        answers = list(
            pool.map(
                lambda row: infer(server, signature.TENSOR_MODEL, input_ids=np.array([row])), rows
            )
        )
    # Those in flight together all differ in length, so that whatever merged had different ones.
    assert executions(server, signature.TENSOR_MODEL) - before < 0.95 * len(rows)
    for answer, (classes, tokens) in zip(answers, encoder(rows), strict=True):
        np.testing.assert_allclose(answer.as_numpy(signature.CLASS_LOGITS)[0], classes, atol=1e-4)
        np.testing.assert_allclose(answer.as_numpy(signature.TOKEN_LOGITS)[0], tokens, atol=1e-4)


def test_ids_outside_the_vocabulary_are_refused(server: TritonServer, served: str) -> None:
    tensors = {"input_ids": np.array([[2, 10**6, 3]])}
    if served == "bls-padded":
        tensors["attention_mask"] = np.ones((1, 3), np.int64)
    with pytest.raises(InferenceServerException, match="1000000|out of"):
        infer(server, signature.TENSOR_MODEL, **tensors)


def test_a_tampered_version_shows_its_own_error(tiny_repository: Path, tmp_path: Path) -> None:
    import shutil

    from multitask_core.errors import ServeError
    from multitask_serve import Ports

    repository = tmp_path / "repository"
    shutil.copytree(tiny_repository, repository)
    graph = repository / signature.TEXT_MODEL / "1" / "model_packed.onnx"
    graph.write_bytes(graph.read_bytes()[:-10])
    with (
        pytest.raises(ServeError, match=r"model_packed\.onnx has .* bytes, its manifest says"),
        TritonServer(repository, "embedded", Ports(0, 0, 0)),
    ):
        pass


def test_request_options(client: Client) -> None:
    text = "play some jazz in Paris tomorrow at seven"
    (full,) = client.predict([text])
    assert full.entities
    (label,) = client.predict([text], only="label")
    assert (label.label, label.entities) == (full.label, ())
    bound = sorted(one.score for one in full.entities)[-1]
    (sure,) = client.predict([text], only="entities", min_entity_score=bound - 1e-6)
    assert [one.start for one in sure.entities] == [
        one.start for one in full.entities if one.score >= bound - 1e-6
    ]


def test_a_foreign_option_value_is_refused(server: TritonServer) -> None:
    with triton.InferenceServerClient(server.grpc_url) as raw:
        one = triton.InferInput(signature.TEXT, [1, 1], "BYTES")
        one.set_data_from_numpy(texts_array(b"play"))
        with pytest.raises(InferenceServerException, match="must be a number from 0 to 1"):
            raw.infer(signature.TEXT_MODEL, [one], parameters={"min_entity_score": "high"})


def test_long_texts_among_short_ones(client: Client, checkpoint: Pipeline) -> None:
    """Long ones step aside and come back whole, each to its own caller."""
    texts = [*sentences(30), *(f"{' '.join(WORDS * count)} no" for count in (3, 9, 27))] * 2
    random.Random(3).shuffle(texts)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda text: client.predict([text])[0], texts))
    assert list(map(essence, answers)) == list(map(essence, checkpoint.predict(texts)))


def test_the_models_own_counters_are_on_the_metrics_page(
    server: TritonServer, client: Client
) -> None:
    def read() -> dict[str, float]:
        with urllib.request.urlopen(server.metrics_url, timeout=10) as page:
            lines = page.read().decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line.startswith("multitask_"))
        return {name: float(value) for name, value in pairs}

    def total(name: str) -> float:
        return sum(value for key, value in read().items() if key.startswith(f"{name}{{"))

    least = {"multitask_texts_total": 5, "multitask_tokens_total": 25}
    least = {name: total(name) + more for name, more in least.items()}
    client.predict(["play jazz in Paris"] * 5)
    deadline = time.monotonic() + 30
    while any(total(name) < value for name, value in least.items()):  # one after the other
        assert time.monotonic() < deadline
        time.sleep(0.2)
    labels = {key for key in read() if key.startswith("multitask_labels_total")}
    assert any('version="1"' in key and 'model="multitask"' in key for key in labels)
