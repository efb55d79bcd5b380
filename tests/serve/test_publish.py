"""Publishing and going back on disk, and with a server that fails at every step."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest

from fake_admin import FakeAdmin, named
from multitask_core.artifact import HISTORY, JOURNAL, Artifact
from multitask_core.errors import ArtifactError, ConfigError, ServeError
from multitask_core.signature import TENSOR_MODEL, TEXT_MODEL
from multitask_export.repository import MODELS, make_config, write_repository
from multitask_export.variants import TARGETS
from multitask_serve import cli, commands, trial
from multitask_serve import publish as publishing
from multitask_serve import repository as repositories
from multitask_serve.compare import Budget, Comparison, Side
from multitask_serve.history import Ledger
from multitask_serve.publish import Outcome, Request, publish, rollback
from multitask_serve.repository import NEXT, find_models, tidy_before_start
from multitask_serve.store import Store
from multitask_serve.undo import tidy

SAME = Comparison(100, 0.0, 0.0, 1.0, Side(1.0, 2.0, 0, 1.0, 1.0), Side(1.0, 2.0, 0, 1.0, 1.0))
OTHER = Comparison(100, 0.5, 0.1, 2.0, SAME.live, SAME.new)


def quiet(_: str) -> None:
    pass


@pytest.fixture
def store(tiny_artifact: Path, tmp_path: Path) -> Store:
    """Version 1 of the tiny model."""
    write_repository(tiny_artifact, tmp_path / "served")
    return Store(tmp_path / "served")


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Comparison]:
    """What the comparison finds: the list's last one. No connection is made."""
    figures = [SAME]
    monkeypatch.setattr(trial, "compare", lambda *_: figures[-1])
    monkeypatch.setattr(trial, "Client", lambda *_, **__: nullcontext())
    return figures


@pytest.fixture
def make_server(store: Store, found: list[Comparison]):
    def make(target: str = "embedded") -> FakeAdmin:
        server = FakeAdmin(store.repository, target)
        server.loaded = {model: named(store.repository, model, target) for model in MODELS}
        return server

    return make


def do(store: Store, artifact: Path, server: FakeAdmin | None = None, **options) -> Outcome:
    return publish(store, Request(artifact, **options), server, quiet)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file but the lock, whose content is nothing."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "publish.lock"
    }


def check_servable(store: Store) -> int:
    """A server started now, for any target, serves one whole version; returns the embedded one's.

    The state between the two renames of a target that cannot have both is not reached by the
    artifacts of these tests, save on `embedded`, where the text model needs no other.
    """
    versions = {}
    for target in TARGETS:
        (text,) = named(store.repository, TEXT_MODEL, target)
        tensors = named(store.repository, TENSOR_MODEL, target)
        assert target == "embedded" or text in tensors
        store.check_files(text)
        for number in tensors:
            store.check_files(number)
        versions[target] = text
    assert "multitask_next" not in find_models(store.repository, "embedded")
    return versions["embedded"]


def test_the_first_version_makes_the_repository(tiny_artifact: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "new")
    outcome = do(store, tiny_artifact)
    assert (outcome.version, outcome.live, outcome.previous) == (1, 1, None)
    assert find_models(store.repository, "embedded") == ["multitask", "multitask_onnx"]
    assert store.live() == check_servable(store) == 1


def test_the_next_version_stands_beside_the_live_one_and_is_live(store, make_artifact) -> None:
    outcome = do(store, make_artifact())
    assert (outcome.version, outcome.live, outcome.previous) == (2, 2, 1)
    assert store.versions() == [1, 2]
    for target in TARGETS:
        for model in MODELS:
            assert named(store.repository, model, target) == [2]
    assert not list(store.repository.rglob(".*"))
    assert json.dumps(outcome.to_dict())


def test_configs_are_those_of_the_live_version(store, make_artifact) -> None:
    other = make_artifact(classes=("one", "two", "three"))
    before = tree(store.repository / TEXT_MODEL / "configs")
    do(store, other)
    assert "three" in (store.repository / TEXT_MODEL / "config.pbtxt").read_text()
    rollback(store, None, None, quiet)
    after = tree(store.repository / TEXT_MODEL / "configs")
    assert after == before


def test_numbers_are_not_used_again(store, make_artifact) -> None:
    do(store, make_artifact("second"))
    do(store, make_artifact("third"))
    rollback(store, 1, None, quiet)
    shutil.rmtree(store.folder(3))
    shutil.rmtree(store.folder(3, TENSOR_MODEL))
    assert do(store, make_artifact("fourth")).version == 4


def test_back_means_the_version_before_in_time(store, make_artifact) -> None:
    do(store, make_artifact("second"))
    do(store, make_artifact("third"))
    assert rollback(store, 1, None, quiet).live == 1
    assert rollback(store, None, None, quiet).live == 3
    assert rollback(store, None, None, quiet).live == 1
    events = [(one.action, one.version, one.previous) for one in store.history()]
    assert events == [
        ("publish", 2, 1),
        ("publish", 3, 2),
        ("rollback", 1, 3),
        ("rollback", 3, 1),
        ("rollback", 1, 3),
    ]
    assert store.live() == 1


def test_rollback_says_what_it_cannot_do(store, make_artifact) -> None:
    with pytest.raises(ConfigError, match=r"names no earlier version.*--to; there are 1"):
        rollback(store, None, None, quiet)
    with pytest.raises(ArtifactError, match="has no version 7; it has 1"):
        rollback(store, 7, None, quiet)
    with pytest.raises(ConfigError, match="version 1 is live already"):
        rollback(store, 1, None, quiet)
    do(store, make_artifact())
    graph = store.folder(1) / "model_packed.onnx"
    data = graph.read_bytes()
    graph.unlink()  # not in place: the file is shared with the artifact
    graph.write_bytes(data[:-1])
    with pytest.raises(ArtifactError, match="model_packed.onnx"):
        rollback(store, 1, None, quiet)
    assert store.live() == 2
    assert store.journal() is None


def test_a_damaged_artifact_is_not_published(store, make_artifact) -> None:
    before = tree(store.repository)
    other = make_artifact()
    (other / "model_fused.onnx").write_bytes(b"")
    with pytest.raises(ArtifactError, match="model_fused"):
        do(store, other)
    assert tree(store.repository) == before


def test_what_triton_would_not_serve_is_not_published(store, make_artifact) -> None:
    """The lint sees that the graph has three classes, the labels five."""
    before = tree(store.repository)
    with pytest.raises(ArtifactError, match=r"Triton would not serve this artifact:\n  multi"):
        do(store, make_artifact(classes=("a", "b", "c", "d", "e")))
    assert tree(store.repository) == before


@pytest.mark.parametrize("target", ["embedded", "cpu", "cuda"])
def test_a_server_gets_the_new_version(store, make_artifact, make_server, target) -> None:
    server = make_server(target)
    outcome = do(store, make_artifact(), server)
    assert outcome.live == 2
    assert server.loaded == {TEXT_MODEL: [2], TENSOR_MODEL: [2]}
    loads = [call for call in server.calls if "load" in call]
    beside = [] if target == "embedded" else [f"load {TENSOR_MODEL}"]
    assert loads == [
        *beside,
        f"load {NEXT}",
        f"unload {NEXT}",
        f"load {TEXT_MODEL}",
        f"load {TENSOR_MODEL}",
    ]
    assert rollback(store, None, server, quiet).live == 1
    assert server.loaded == {TEXT_MODEL: [1], TENSOR_MODEL: [1]}
    assert check_servable(store) == 1


@pytest.mark.parametrize("target", ["embedded", "cpu"])
def test_a_version_that_answers_differently_leaves_no_trace(
    store, make_artifact, make_server, found, target
) -> None:
    server = make_server(target)
    before = tree(store.repository)
    found.append(OTHER)
    outcome = do(store, make_artifact(), server)
    assert outcome.live == 1
    assert [reason.split(" in ")[0] for reason in outcome.refused] == [
        "labels changed",
        "entities changed",
        "its median latency is 2.00 times the live one's, 1.5 allowed (--max-latency-ratio)",
    ]
    assert outcome.to_dict()["done"] is False
    assert tree(store.repository) == before
    assert server.loaded == {TEXT_MODEL: [1], TENSOR_MODEL: [1]}


def test_force_goes_on_and_keeps_the_reason(store, make_artifact, make_server, found) -> None:
    found.append(OTHER)
    outcome = do(store, make_artifact(), make_server(), force="a new label scheme")
    assert (outcome.live, outcome.forced) == (2, "a new label scheme")
    (event,) = store.history()
    assert event.forced == "a new label scheme"
    assert event.comparison is not None
    assert event.comparison["label_changes"] == 0.5
    found.append(SAME)
    assert do(store, make_artifact("third"), make_server(), force="to be sure").forced == ""


def test_a_budget_can_be_widened(store, make_artifact, make_server, found) -> None:
    found.append(OTHER)
    budget = Budget(labels=0.5, entities=0.1, latency=2.0)
    assert do(store, make_artifact(), make_server(), budget=budget).live == 2


def test_an_older_artifact_needs_sentences(store, make_artifact, make_server, tmp_path) -> None:
    other = make_artifact()
    (other / "samples.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"holds no samples\.jsonl.*--sentences FILE"):
        do(store, other, make_server())
    sentences = tmp_path / "sentences.jsonl"
    sentences.write_text('{"text": "play jazz"}\n')
    assert do(store, other, make_server(), sentences=sentences).live == 2


@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
def test_what_cannot_stand_side_by_side_needs_a_second_server(
    store, make_artifact, make_server, target, monkeypatch
) -> None:
    """Another number of classes; on TensorRT other weights are enough, for its engine cache."""
    monkeypatch.setattr(trial, "_lint", lambda *_: None)  # these classes are not the graph's
    classes = ("a", "b", "c", "d") if target == "cpu" else None
    other = make_artifact(classes=classes)
    if target == "tensorrt":
        (other / "model_fp16.onnx").write_bytes((other / "model.onnx").read_bytes())
        _write_manifest_again(other)
    before = tree(store.repository)
    with pytest.raises(ServeError, match=r"cannot serve version 1 and 2 side by side.*balancer"):
        do(store, other, make_server(target))
    unknown = make_server(target)
    unknown.address = unknown.address.__class__("elsewhere:8001", target="")
    assert tree(store.repository) == before
    assert do(store, other, None).live == 2


def test_embedded_takes_another_number_of_classes(
    store, make_artifact, make_server, monkeypatch
) -> None:
    monkeypatch.setattr(trial, "_lint", lambda *_: None)
    server = make_server("embedded")
    assert do(store, make_artifact(classes=("a", "b", "c", "d")), server).live == 2
    assert server.loaded == {TEXT_MODEL: [2], TENSOR_MODEL: [2]}


def test_a_server_that_is_behind_the_configs_is_told(store, make_artifact, make_server) -> None:
    server = make_server()
    do(store, make_artifact("second"))
    with pytest.raises(ServeError, match=r"serves version 1, but the configs name 2: `rollback"):
        do(store, make_artifact("third"), server)
    assert rollback(store, 2, server, quiet).live == 2
    assert server.loaded[TEXT_MODEL] == [2]


@pytest.mark.parametrize("for_good", [False, True])
@pytest.mark.parametrize("target", ["embedded", "cpu"])
def test_a_server_that_fails_at_any_step_leaves_the_live_version(
    store, make_artifact, make_server, target, for_good
) -> None:
    other = make_artifact()
    calm = make_server(target)
    before = tree(store.repository)
    shutil.copytree(store.repository, store.repository.with_name("spare"))
    do(store, other, calm)
    steps = len(calm.calls)
    assert steps > 5
    shutil.rmtree(store.repository)
    shutil.copytree(store.repository.with_name("spare"), store.repository)
    for step in range(steps):
        server = make_server(target)
        server.fails_at, server.for_good = step, for_good
        try:
            outcome = do(store, other, server)
        except ServeError:
            assert check_servable(store) == store.live() == 1, server.calls
            assert tree(store.repository) == before, server.calls
            if not for_good:
                assert server.loaded == {TEXT_MODEL: [1], TENSOR_MODEL: [1]}, server.calls
        else:  # only the unloading of the compared model may fail unseen
            assert server.calls[step] == f"unload {NEXT}"
            assert outcome.live == 2
            rollback(store, 1, None, quiet)
            store.delete(2)
            (store.repository / HISTORY).unlink()


class Killed(BaseException):
    """As SIGKILL: nothing is written after it, by no one."""


def _die_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[int]:
    """Let every change of the file system from the numbered one on fail; returns the counter."""
    count = [0]

    def guard(original):
        def change(*arguments, **options):
            count[0] += 1
            if count[0] > number:
                raise Killed
            return original(*arguments, **options)

        return change

    monkeypatch.setattr(Path, "replace", guard(Path.replace))
    monkeypatch.setattr(Path, "unlink", guard(Path.unlink))
    monkeypatch.setattr(shutil, "rmtree", guard(shutil.rmtree))
    monkeypatch.setattr(Ledger, "append", guard(Ledger.append))
    return count


@pytest.mark.parametrize("action", ["publish", "rollback"])
def test_killed_at_any_moment_every_start_serves_a_whole_version(
    store, make_artifact, monkeypatch, action
) -> None:
    """At each change to the disk: the state can be served, and the next command repairs it."""
    other = make_artifact()
    if action == "rollback":
        do(store, other)
    spare = store.repository.with_name("spare")
    shutil.copytree(store.repository, spare)
    live = store.live()
    before = tree(store.repository)

    def act() -> None:
        if action == "publish":
            do(store, other)
        else:
            rollback(store, None, None, quiet)

    with monkeypatch.context() as patch:
        count = _die_at(patch, 10**9)
        act()
    after = tree(store.repository)
    last = count[0]
    # Most changes are the staging of one more file: all of the switch, some of those.
    points = sorted({*range(0, last, 7), *range(max(0, last - 30), last)})
    finished = 0
    for point in points:
        shutil.rmtree(store.repository)
        shutil.copytree(spare, store.repository)
        with monkeypatch.context() as patch:
            _die_at(patch, point)
            with pytest.raises(Killed):
                act()
        assert check_servable(store) in (1, 2)
        tidy_before_start(store.repository)
        with store.lock():
            tidy(store, None, quiet)
        if len(store.history()) > (1 if action == "rollback" else 0):
            finished += 1
            assert tree(store.repository).keys() == after.keys()
            assert store.live() != live
        else:
            assert tree(store.repository) == before
    assert 0 < finished < 10
    assert not (store.repository / JOURNAL).exists()


@pytest.mark.parametrize("target", ["embedded", "cpu"])
@pytest.mark.parametrize("action", ["publish", "rollback"])
def test_killed_before_the_history_says_so_a_server_is_brought_back(
    store, make_artifact, make_server, monkeypatch, target, action
) -> None:
    if action == "rollback":
        do(store, make_artifact("second"))
    server = make_server(target)
    live, before = store.live(), tree(store.repository)

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Ledger, "append", die)
        if action == "publish":
            do(store, make_artifact(), server)
        else:
            rollback(store, None, server, quiet)
    assert server.loaded[TEXT_MODEL] != [live]
    with store.lock():
        tidy(store, server, quiet)
    assert server.loaded == {TEXT_MODEL: [live], TENSOR_MODEL: [live]}
    assert tree(store.repository) == before


def test_only_one_command_at_a_time(store, make_artifact) -> None:
    with store.lock():
        assert store.is_locked()
        with pytest.raises(ConfigError, match="another export, publish or rollback works on"):
            do(Store(store.repository), make_artifact())
        (store.repository / NEXT).mkdir()
        assert tidy_before_start(store.repository) == []
        assert (store.repository / NEXT).is_dir()
    assert not store.is_locked()
    tidy_before_start(store.repository)
    assert not (store.repository / NEXT).exists()


def test_a_repository_that_cannot_be_repaired_is_told(store, monkeypatch) -> None:
    (store.repository / JOURNAL).write_text("{}")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "read-only file system")

    monkeypatch.setattr(Store, "lock", refuse)
    (message,) = repositories.tidy_before_start(store.repository)
    assert "interrupted change that cannot be undone here" in message


def test_old_versions_go_but_never_the_live_one_nor_the_one_before(store, make_artifact) -> None:
    for name in ("second", "third", "fourth"):
        do(store, make_artifact(name), keep=9)
    rollback(store, 1, None, quiet)
    outcome = do(store, make_artifact("fifth"), keep=1)
    assert store.versions() == [1, 5]
    assert outcome.deleted == [2, 3, 4]


def test_a_version_that_another_tools_config_names_is_kept(store, make_artifact) -> None:
    source = store.repository / TENSOR_MODEL / "configs" / "tensorrt.pbtxt"
    shutil.copy(source, source.with_name("tensorrt-plan.pbtxt"))
    for name in ("second", "third", "fourth"):
        do(store, make_artifact(name), keep=1)
    assert store.versions() == [1, 3, 4]


def test_a_plan_that_still_serves_the_version_before_is_told(
    store, make_artifact, capsys, monkeypatch, tmp_path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = store.repository / TENSOR_MODEL / "configs" / "tensorrt.pbtxt"
    shutil.copy(source, source.with_name("tensorrt-plan.pbtxt"))
    words = ["--repository", str(store.repository)]
    assert cli.main(["publish", str(make_artifact("second")), *words]) == 0
    assert "tensorrt-plan.pbtxt still serves version 1: build" in capsys.readouterr().err
    assert cli.main(["rollback", *words]) == 0
    assert "still serves" not in capsys.readouterr().err


def test_an_export_does_not_replace_what_was_published(store, make_artifact) -> None:
    artifact = make_artifact("second")
    with store.lock(), pytest.raises(ConfigError, match="another export, publish or rollback"):
        write_repository(artifact, store.repository)
    do(store, artifact)
    before = tree(store.repository)
    with pytest.raises(ConfigError, match=r"versions were published to .* multitask_serve publish"):
        write_repository(artifact, store.repository)
    assert tree(store.repository) == before


def test_a_rollback_that_settles_a_disagreement_leaves_the_configs_where_it_is_killed(
    store, make_artifact, monkeypatch
) -> None:
    do(store, make_artifact("second"))
    path = store.repository / TEXT_MODEL / "configs" / "embedded.pbtxt"
    path.write_text(path.read_text().replace("versions: 2", "versions: 1"))

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(publishing, "switch", die)
        rollback(store, 2, None, quiet)
    with store.lock():
        tidy(store, None, quiet)
    assert path.is_file()
    rollback(store, 2, None, quiet)
    assert store.live() == 2


@pytest.mark.parametrize(
    ("url", "other", "same"),
    [
        ("localhost:8001", "127.0.0.1:8001", True),
        ("10.0.0.7:8001", "10.0.0.7:8001", True),
        ("localhost:8001", "127.0.0.1:8101", False),
        ("prod:8001", "127.0.0.1:8001", False),
    ],
)
def test_a_server_elsewhere_on_the_same_port_is_another(url: str, other: str, same: bool) -> None:
    assert commands._is_same(url, other) is same


def test_a_line_cut_short_by_a_crash_is_no_obstacle(store, make_artifact) -> None:
    do(store, make_artifact("second"))
    path = store.repository / HISTORY
    path.write_text(path.read_text() + '{"time": "20')
    do(store, make_artifact("third"))
    assert [one.version for one in store.history()] == [2, 3]


def test_targets_that_disagree_are_reported(store, tiny_artifact) -> None:
    path = store.repository / TEXT_MODEL / "configs" / "embedded.pbtxt"
    path.write_text(path.read_text().replace("versions: 1", "versions: 2"))
    with pytest.raises(ArtifactError, match=r"name different versions \(1, 2\).*rollback --to N"):
        store.live()


def test_a_repository_of_an_older_release_has_a_live_version(store) -> None:
    """Its configs name no version: the highest one is served."""
    for path in store.repository.glob("*/config*/*.pbtxt"):
        path.write_text(path.read_text().replace("specific {\n    versions: 1", "latest {\n"))
    path = store.repository / TEXT_MODEL / "config.pbtxt"
    path.write_text(path.read_text().replace("specific {\n    versions: 1", "latest {\n"))
    shutil.copytree(store.folder(1), store.folder(2))
    assert store.live() == 2


def test_the_compared_model_is_the_new_version_alone(store, make_artifact) -> None:
    from multitask_serve.switch import Version

    other = Artifact.open(make_artifact())
    write_repository(other.folder, store.repository, 2)
    trial._write_next(store, Version(2, other))
    folder = store.repository / NEXT
    assert sorted(path.name for path in folder.iterdir()) == [
        "2",
        "config.pbtxt",
        "configs",
        "warmup",
    ]
    text = (folder / "configs" / "embedded.pbtxt").read_text()
    assert f'name: "{NEXT}"' in text
    expected = make_config(other, TEXT_MODEL, "embedded", [2])
    assert expected is not None
    for sample in expected.model_warmup:
        for value in sample.inputs.values():
            assert (folder / "warmup" / value.input_data_file).is_file()
    assert NEXT not in find_models(store.repository, "embedded")


def _write_manifest_again(folder: Path) -> None:
    from multitask_core import artifact, manifest

    record = json.loads((folder / manifest.NAME).read_text())
    manifest.write(
        folder,
        artifact.KIND,
        files=[folder / one for one in record["files"]],
        config=record["config"],
    )
