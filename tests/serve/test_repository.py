"""A repository that cannot be served is refused with what to do about it."""

import pytest

from multitask_core.errors import ServeError
from multitask_serve.repository import find_models


def test_models_are_found_in_order(make_model):
    make_model("second")
    repository = make_model("first")
    (repository / "README.md").write_text("files are no models")
    assert find_models(repository, "embedded") == ["first", "second"]


def test_a_model_without_the_targets_config_falls_back(make_model):
    make_model("with")
    repository = make_model("without")
    embedded = repository / "without" / "configs" / "embedded.pbtxt"
    embedded.rename(repository / "without" / "config.pbtxt")
    assert find_models(repository, "embedded") == ["with", "without"]


def test_missing_and_empty_repositories(tmp_path):
    with pytest.raises(ServeError, match=r"no model repository at .*make export"):
        find_models(tmp_path / "nothing", "embedded")
    with pytest.raises(ServeError, match=r"holds no models.*make export"):
        find_models(tmp_path, "embedded")


def test_a_target_without_any_config_names_those_there_are(make_model):
    repository = make_model()
    (repository / "echo" / "config.pbtxt").write_text("")
    with pytest.raises(ServeError, match=r"configs/cuda.pbtxt.*it has embedded.*--target"):
        find_models(repository, "cuda")


@pytest.mark.parametrize("stray", [".staged", "__pycache__", "notes"])
def test_a_folder_that_is_no_model(make_model, stray):
    repository = make_model()
    (repository / stray).mkdir()
    with pytest.raises(ServeError, match=rf"{stray} is no model .*configs/embedded.pbtxt"):
        find_models(repository, "embedded")


def test_a_model_without_a_version(make_model):
    repository = make_model()
    (repository / "echo" / "1").rename(repository / "echo" / "one")
    with pytest.raises(ServeError, match=r"model echo has no version folder.*make export"):
        find_models(repository, "embedded")
