"""What an unfinished run leaves in its folder, so that the same command goes on with it.

    state/state.pt              learner, random number generators, history, the best epoch's name
    state/best-N.safetensors    weights of the best epoch so far, N; 0 is what the run starts from

Every file is written beside and renamed, and `state.pt` names the weights that belong to it: a
process killed at any moment leaves the state before or the state after. Both lead to the same
weights, since an update is a function of the state and of the plan alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file

from multitask_core.errors import ArtifactError, ConfigError
from multitask_core.files import staged_file
from multitask_train.settings import FitSettings

FOLDER = "state"
_FILE = "state.pt"
# Settings that change where a run goes or how it is watched, not what it computes.
_FREE = {"run.output", "run.overwrite", "run.threads", "run.save_every", "run.license"}
# Known by their content, wherever they stand.
_FREE |= {"model.start_from", "loss.classification_teacher", "loss.ner_teacher"}


class ResumeFolder:
    """The state of one run, which is known by its settings, its number of processes and its data.

    hashes: of the content of what settings name, corpora and checkpoints, by the setting's name.
    """

    def __init__(self, settings: FitSettings, hashes: Mapping[str, str], processes: int) -> None:
        self.folder = settings.run.output / FOLDER
        values = _named(settings)
        self._identity = {name: value for name, value in values.items() if name not in _FREE}
        self._identity |= {f"content of {name}": one[:12] for name, one in hashes.items()}
        self._identity["processes"] = processes

    def load(self) -> dict[str, Any] | None:
        """The saved state, None where there is none.

        Raises ConfigError where it belongs to other settings, ArtifactError where it is damaged.
        """
        path = self.folder / _FILE
        if not path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            identity = state["identity"]
        except Exception as error:  # torch raises unrelated types
            raise ArtifactError(
                f"cannot read the state of the unfinished run, {path}: {error}; remove "
                f"{self.folder} to begin anew"
            ) from error
        self._check(identity)
        return state

    def save(self, state: Mapping[str, Any], best: Mapping[str, Any]) -> None:
        """Write the state; `best` is what `save_best` answered or was loaded."""
        with staged_file(self.folder / _FILE) as stage:
            torch.save({**state, "best": dict(best), "identity": self._identity}, stage)
        for path in self.folder.glob("best-*.safetensors"):
            if path.name != best.get("file"):
                path.unlink(missing_ok=True)

    def save_best(self, model: torch.nn.Module, epoch: int) -> str:
        """Write the weights of the best epoch; returns the file's name for `best`."""
        name = f"best-{epoch}.safetensors"
        with staged_file(self.folder / name) as stage:
            weights = {key: value.contiguous() for key, value in model.state_dict().items()}
            save_file(weights, stage)
        return name

    def load_best(self, name: str) -> dict[str, torch.Tensor]:
        """The weights that `save_best` wrote."""
        return load_file(self.folder / name)

    def discard(self) -> None:
        """Forget the unfinished run."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _check(self, saved: Mapping[str, Any]) -> None:
        # A state of an older release knows not every setting: those were what they are by default.
        defaults = _named(FitSettings())
        saved = {
            **{name: one for name, one in defaults.items() if name in self._identity},
            # Older ones know checkpoints by their paths: where there was none, nothing changed.
            **{name: one for name, one in saved.items() if one or name not in _FREE},
        }
        names = sorted({*saved, *self._identity})
        changed = [
            f"{name}: {saved.get(name)!r} there, {self._identity.get(name)!r} now"
            for name in names
            if saved.get(name) != self._identity.get(name)
        ]
        if changed:
            listing = "\n".join(f"  {line}" for line in changed)
            raise ConfigError(
                f"{self.folder.parent} holds an unfinished run with other settings\n{listing}\n"
                "Go on with its settings, name another --run.output, or give --run.overwrite true "
                "to begin anew"
            )


def _named(settings: FitSettings) -> dict[str, Any]:
    return {
        f"{section}.{name}": value
        for section, fields in settings.model_dump(mode="json").items()
        for name, value in fields.items()
    }


def random_state(accelerator: Accelerator) -> list[Any]:
    """The random number generators of all processes, in order; every process calls it."""
    own = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        own["cuda"] = torch.cuda.get_rng_state(accelerator.device)
    return list(gather_object([own]))


def restore_random_state(accelerator: Accelerator, states: list[Any]) -> None:
    """Set this process's generators."""
    own = states[accelerator.process_index]
    torch.set_rng_state(own["cpu"])
    if "cuda" in own and torch.cuda.is_available():
        torch.cuda.set_rng_state(own["cuda"], accelerator.device)
