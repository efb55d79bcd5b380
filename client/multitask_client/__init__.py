"""Client of the served model: texts in, typed predictions out, over gRPC.

    with Client("localhost:8001") as client:
        for prediction in client.predict(["book a table for two in Lyon"]):
            print(prediction.label, prediction.score, prediction.entities)

`AsyncClient` is the same with `await`. Importing this package loads neither gRPC nor numpy; making
a client does. At a shell: `python -m multitask_client --help`.
"""

from multitask_client.aio import AsyncClient
from multitask_client.client import Client
from multitask_client.errors import (
    BadRequest,
    CallError,
    DeadlineExceeded,
    ModelUnavailable,
    ServerError,
    ServerUnavailable,
)
from multitask_client.settings import Tls
from multitask_core.errors import ClientError
from multitask_core.prediction import Entity, Prediction

__all__ = [
    "AsyncClient",
    "BadRequest",
    "CallError",
    "Client",
    "ClientError",
    "DeadlineExceeded",
    "Entity",
    "ModelUnavailable",
    "Prediction",
    "ServerError",
    "ServerUnavailable",
    "Tls",
]
