"""The exception tree of the toolkit.

    MultiTaskError
    ├── ConfigError      a setting is unknown, missing or out of range
    ├── DataError        a corpus or a label schema is broken
    ├── ArtifactError    a checkpoint, graph or published version is damaged, foreign or missing
    ├── ParityError      an exported graph does not answer like its checkpoint
    ├── ServeError       the server could not be started or did not become ready
    ├── InputError       a text that cannot be predicted
    ├── OverloadError    too much work waits to take more
    └── ClientError      a call to a server failed (see multitask_client.errors)

Every message says what came, what was allowed and what to do.
"""


class MultiTaskError(Exception):
    """Base of every error that the toolkit raises on purpose."""


class ConfigError(MultiTaskError):
    """A setting is unknown, missing or out of range."""


class DataError(MultiTaskError):
    """A corpus, an example or a label schema is broken."""


class TrainingError(MultiTaskError):
    """Training cannot go on: it diverged."""


class ArtifactError(MultiTaskError):
    """A checkpoint, graph or published version is damaged, foreign or missing."""


class ParityError(MultiTaskError):
    """An exported graph does not answer like the checkpoint it came from."""


class ServeError(MultiTaskError):
    """The server could not be started or did not become ready."""


class InputError(MultiTaskError, ValueError):
    """A text that cannot be predicted: empty, too long or not text."""


class OverloadError(MultiTaskError):
    """Too much work waits to take more; the same request may succeed later."""


class ClientError(MultiTaskError):
    """A call to a server failed."""
