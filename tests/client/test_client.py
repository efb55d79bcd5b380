import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace

import grpc
import pytest

import multitask_client
from multitask_client import (
    BadRequest,
    CallError,
    Client,
    ClientError,
    DeadlineExceeded,
    Entity,
    ModelUnavailable,
    Prediction,
    ServerError,
    ServerUnavailable,
    Tls,
)
from multitask_client.testing import FakeServer
from multitask_core.errors import ConfigError


@pytest.fixture
def client(server):
    with Client(server.url, deadline_s=5) as opened:
        yield opened


def test_answers_as_the_model_does(client, expected):
    texts = ["room 12", "a longer text with 3 and 45"]
    assert client.predict(texts) == expected(texts)


def test_nothing_in_nothing_out_without_a_request(client, server):
    assert client.predict([]) == client.predict_each([]) == []
    assert server.requests == server.config_requests == []


@pytest.mark.parametrize(
    "text", ["é 1", "日本 22 語", "👩‍👩‍👧 7 👍🏽", "a\x00b 3", "שלום 5", "ﬁ 1\n2\t3"]
)
def test_offsets_are_code_points(client, text):
    (prediction,) = client.predict([text])
    assert prediction.entities
    for entity in prediction.entities:
        assert text[entity.start : entity.end] == entity.text


def test_long_lists_are_cut_and_keep_their_order(client, server, expected):
    texts = [f"text {number}" for number in range(45)]
    assert client.predict(texts) == expected(texts)
    assert sorted(map(len, server.requests)) == [5, 8, 8, 8, 8, 8]


def test_max_batch_is_an_upper_bound_beside_the_servers(server):
    for max_batch, longest in ((3, 3), (100, 8)):
        server.requests.clear()
        with Client(server.url, max_batch=max_batch) as client:
            client.predict(["a"] * 20)
        assert max(map(len, server.requests)) == longest


def test_requests_run_concurrently_but_no_more_than_in_flight(server):
    server.delay_s = 0.2
    with Client(server.url, in_flight=4) as client:
        client.predict(["warm"])
        start = time.monotonic()
        client.predict(["a"] * 64)
        assert 0.4 <= time.monotonic() - start < 1.3  # one by one it would be 1.6


def test_classes_are_fetched_once_a_version(client, server):
    for _ in range(3):
        client.predict(["one"])
    assert server.config_requests == ["1"]


def test_a_rolling_update_mixes_versions(client, server):
    client.predict(["one"])
    server.versions["2"] = ("extra", *server.versions["1"])
    answer = server.answer
    server.answer = lambda texts: [
        type(one)(one.label, {**one.scores, "extra": 0.0}, one.entities) for one in answer(texts)
    ]
    for version in ("2", "1", "2"):
        server.version = version
        (prediction,) = client.predict(["one"])
        assert tuple(prediction.scores) == server.versions[version]
        assert prediction.label == "short"
        assert prediction.scores["short"] == 0.75
    assert server.config_requests == ["1", "2"]


def test_a_version_replaced_in_place_is_noticed(client, server):
    client.predict(["one"])
    server.versions["1"] = ("long", "short")
    (prediction,) = client.predict(["one"])
    assert prediction.scores == {"long": 0.25, "short": 0.75}


def test_an_update_with_smaller_batches_is_noticed(client, server, expected):
    texts = ["a"] * 20
    client.predict(texts)
    server.max_batch_size = 3
    assert client.predict(texts) == expected(texts)


class _Vanishing(dict):
    """Versions of which the first is unloaded as soon as it has answered."""

    def __getitem__(self, version):
        return self.pop(version) if version == "1" else super().__getitem__(version)


@pytest.mark.parametrize("call", ["predict", "predict_each"])
def test_an_answered_version_that_is_gone_is_asked_again(client, server, expected, call):
    def answer(texts):
        server.version = "2"
        return expected(texts)

    server.answer = answer
    server.versions = _Vanishing({"1": ("short", "long"), "2": ("short", "long")})
    assert getattr(client, call)(["one"]) == expected(["one"])
    assert server.config_requests == ["1", "", "2"]


def test_long_texts_are_sent_in_requests_that_a_server_can_bear(client, server, expected):
    texts = ["a" * 9_000, "b" * 9_000, "c" * 9_000, "d" * 9_000, "e" * 80_000, "f", "g"]
    assert client.predict(texts) == expected(texts)
    sent = sorted("".join(text[0] for text in texts) for texts in server.requests)
    assert sent == ["abc", "d", "e", "fg"]


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        ("INVALID_ARGUMENT", "no", BadRequest),
        ("UNAVAILABLE", "Exceeds maximum queue size", ServerUnavailable),
        ("UNAVAILABLE", "Request for unknown model: 'm' version 1 is not at ready state",
         ModelUnavailable),
        ("NOT_FOUND", "Request for unknown model: 'm' is not found", ModelUnavailable),
        ("INVALID_ARGUMENT", "failed to get model version from specified version string 'x'",
         ModelUnavailable),
        ("DEADLINE_EXCEEDED", "too late", DeadlineExceeded),
        ("INTERNAL", "boom", ServerError),
        ("RESOURCE_EXHAUSTED", "too large", ServerError),
        ("UNAUTHENTICATED", "who are you", ServerError),
    ],
)  # fmt: skip
def test_statuses_become_errors(server, status, message, kind):
    server.failures.extend([(status, message)] * 3)
    with Client(server.url, retries=0) as client, pytest.raises(kind) as caught:
        client.predict(["one"])
    assert message in str(caught.value)
    assert isinstance(caught.value, CallError)
    assert isinstance(caught.value, ClientError)
    assert (caught.value.status, caught.value.url) == (status, server.url)
    assert caught.value.__cause__ is not None


def test_unavailable_is_tried_again(client, server):
    server.failures.extend([("UNAVAILABLE", "busy")] * 2)
    assert client.predict(["one"])
    assert len(server.requests) == 3


def test_nothing_else_is_tried_again(client, server):
    server.failures.append(("INTERNAL", "boom"))
    with pytest.raises(ServerError):
        client.predict(["one"])
    assert len(server.requests) == 1


def test_unknown_model_and_version(server):
    for settings in ({"model": "nope"}, {"model_version": "9"}):
        with Client(server.url, **settings) as client, pytest.raises(ModelUnavailable):
            client.predict(["one"])


def test_a_refused_connection_names_address_and_remedy(server):
    server.close()
    with (
        Client(server.url) as client,
        pytest.raises(ServerUnavailable, match="gRPC port") as caught,
    ):
        client.predict(["one"])
    assert server.url in str(caught.value)


def test_the_deadline_covers_the_whole_call(server):
    server.delay_s = 0.2
    with Client(server.url, deadline_s=0.5, in_flight=1) as client:
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            client.predict(["a"] * 80)
        assert time.monotonic() - start < 1


def test_a_refused_text_is_named_by_the_callers_index(client):
    for texts in (["a"] * 19 + [" ", "a"], ["a"] * 16 + [" "], [" "] + ["a"] * 30):
        with pytest.raises(BadRequest, match=r"^text \d+: the text is empty$") as caught:
            client.predict(texts)
        assert caught.value.index == texts.index(" ")
        assert f"text {caught.value.index}: " in str(caught.value)


@pytest.mark.parametrize(
    ("text", "why"), [(3, "got int"), (b"x", "got bytes"), ("a\ud800", "surrog")]
)
def test_what_cannot_be_sent_is_refused_here(client, server, text, why):
    with pytest.raises(BadRequest, match=f"text 1: .*{why}") as caught:
        client.predict(["fine", text])
    assert caught.value.index == 1
    assert not server.requests


def test_a_bare_string_is_a_mistake_worth_explaining(client):
    with pytest.raises(TypeError, match=r"write predict\(\['hello'\]\)"):
        client.predict("hello")


def test_predict_each_answers_what_can_be_answered(client, expected):
    texts = ["one", " ", *["a"] * 20, "\ud800", "last 1"]
    answers = client.predict_each(texts)
    bad = {index for index, answer in enumerate(answers) if isinstance(answer, BadRequest)}
    assert bad == {1, 22}
    assert [answers[index].index for index in sorted(bad)] == [1, 22]
    good = [text for index, text in enumerate(texts) if index not in bad]
    assert [answer for index, answer in enumerate(answers) if index not in bad] == expected(good)


def test_predict_each_does_not_hide_a_failing_server(client, server):
    server.failures.append(("INTERNAL", "boom"))
    with pytest.raises(ServerError):
        client.predict_each(["one", "two"])


def test_readiness(client, server):
    assert client.is_ready()
    client.wait_until_ready(1)
    server.ready = False
    assert not client.is_ready()
    with pytest.raises(ModelUnavailable, match="not ready"):
        client.wait_until_ready(0.3)
    threading.Timer(0.3, setattr, (server, "ready", True)).start()
    client.wait_until_ready(5)


def test_readiness_of_nobody(server):
    server.close()
    with Client(server.url, retries=0) as client:
        assert not client.is_ready()
        with pytest.raises(ServerUnavailable):
            client.wait_until_ready(0.3)


def test_a_client_outlives_a_restarted_server(server, expected):
    with Client(server.url, retries=4) as client:
        client.predict(["one"])
        port = server.port
        server.close()
        restarted = []

        def restart():
            restarted.append(FakeServer(expected, classes=("short", "long"), port=port))

        timer = threading.Timer(0.2, restart)
        timer.start()
        assert client.predict(["one"]) == expected(["one"])
        timer.join()
        restarted[0].close()


@dataclass
class _Odd:
    colour: str = "red"


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (lambda one: [replace(one, label="unknown")], "not the class of the highest score"),
        (lambda one: [replace(one, label="long")], "not the class of the highest score"),
        (lambda one: [one, one], r"LABEL has shape \[2, 1\], expected \[1, 1\]"),
        (lambda one: [], r"shape \[0, 1\]"),
        (lambda one: [replace(one, entities=(_Odd(),))], "colour"),
    ],
)
def test_answers_that_break_the_contract(client, server, expected, broken, why):
    server.answer = lambda texts: broken(*expected(texts))
    with pytest.raises(ServerError, match=f"version 1 cannot be read: .*{why}"):
        client.predict(["one"])


def test_a_model_of_another_kind_is_explained(client, server):
    server.max_batch_size = 0
    with pytest.raises(ServerError, match="not a text model"):
        client.predict(["one", "two"])


def test_many_threads_share_a_client(client, expected):
    failures = []

    def work(number):
        texts = [f"{number} {index}" for index in range(20)]
        if client.predict(texts) != expected(texts):
            failures.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_statistics_count_texts_and_batches(client):
    before = client.statistics()
    client.predict(["a"] * 20)
    counted = client.statistics() - before
    assert (counted.inferences, counted.executions) == (20, 3)


def test_a_closed_client_says_so(client):
    client.close()
    for call in (lambda: client.predict(["one"]), client.is_ready, client.statistics):
        with pytest.raises(RuntimeError, match="closed"):
            call()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"url": "http://localhost:8000"}, "host:port"),
        ({"url": " "}, "no address"),
        ({"deadline_s": 0}, "deadline_s=0"),
        ({"deadline_s": float("inf")}, "deadline_s=inf"),
        ({"max_batch": -1}, "max_batch=-1"),
        ({"in_flight": 0}, "in_flight=0"),
        ({"retries": 5}, "retries=5: 0 to 4"),
    ],
)
def test_settings_that_cannot_work(settings, why):
    with pytest.raises(ConfigError, match=why):
        Client(**settings)


def test_tls_files_are_checked(tmp_path):
    with pytest.raises(ConfigError, match="both"):
        Tls(private_key=tmp_path / "key.pem")
    with pytest.raises(ConfigError, match=r"ca\.pem"):
        Client(tls=Tls(tmp_path / "ca.pem"))


@pytest.fixture
def pem(tmp_path):
    """A self-signed certificate for 127.0.0.1: files of its key and of itself."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    arguments = (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    )
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run(["openssl", *arguments.split(), *names], check=True, capture_output=True)
    return key, certificate


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to make a certificate")
@pytest.mark.parametrize("mutual", [False, True])
def test_tls(pem, mutual):
    key, certificate = pem
    pair = [(key.read_bytes(), certificate.read_bytes())]
    credentials = grpc.ssl_server_credentials(pair, certificate.read_bytes(), mutual)
    own = (key, certificate) if mutual else (None, None)
    with FakeServer(credentials=credentials) as server:
        with Client(server.url, tls=Tls(certificate, *own)) as client:
            assert client.predict(["one"])[0].label == "no"
        with Client(server.url, tls=Tls(), retries=0) as client, pytest.raises(ServerUnavailable):
            client.predict(["one"])


def test_headers_are_sent_in_lower_case(server):
    with Client(server.url, headers={"X-Team": "search"}) as client:
        client.predict(["one"])
    assert server.metadata["x-team"] == "search"


def test_tls_to_a_plain_server_is_unavailable(server):
    with Client(server.url, tls=Tls(), retries=0) as client, pytest.raises(ServerUnavailable):
        client.predict(["one"])


def test_importing_is_light():
    code = "import sys, multitask_client; print(sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    for heavy in ("torch", "transformers", "onnxruntime", "grpc", "numpy", "tokenizers"):
        assert f"'{heavy}'" not in loaded


def test_everything_exported_exists():
    assert all(hasattr(multitask_client, name) for name in multitask_client.__all__)


def test_one_head_alone(client, server, expected):
    (full,) = client.predict(["some 1 text 22"])
    assert full.entities
    (label,) = client.predict(["some 1 text 22"], only="label")
    assert (label.label, label.scores, label.entities) == (full.label, full.scores, ())
    (entities,) = client.predict(["some 1 text 22"], only="entities")
    assert (entities.label, entities.scores, entities.entities) == ("", {}, full.entities)


def test_entities_below_a_score_are_left_out(client, server):
    found = (Entity("a", "x", 0, 1, 0.4), Entity("b", "y", 2, 3, 0.9))
    server.answer = lambda texts: [
        Prediction("long", {"short": 0.0, "long": 1.0}, found) for _ in texts
    ]
    assert client.predict(["x y"], min_entity_score=0.5)[0].entities == found[1:]
    assert client.predict_each(["x y"], min_entity_score=0.5)[0].entities == found[1:]
    assert client.predict(["x y"])[0].entities == found


@pytest.mark.parametrize("options", [{"only": "both"}, {"min_entity_score": 2}])
def test_options_that_do_not_exist_are_refused(client, options):
    with pytest.raises(ConfigError, match="only='both'|min_entity_score=2"):
        client.predict(["x"], **options)
