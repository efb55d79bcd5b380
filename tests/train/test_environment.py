import json
import platform

import torch

from multitask_train.environment import environment


def test_it_names_what_decides_a_run():
    found = environment()
    assert found["packages"]["torch"] == torch.__version__
    assert {"accelerate", "transformers", "scikit-learn"} <= set(found["packages"])
    assert found["threads"] == torch.get_num_threads()
    assert found["python"] == platform.python_version()
    assert json.loads(json.dumps(found)) == found


def test_the_commit_is_that_of_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert environment()["git"] is None
