"""How the two tasks are weighed, one class for each word of `loss.balancer`."""

from __future__ import annotations

from multitask_train.balancing.base import Balancer
from multitask_train.balancing.famo import Famo
from multitask_train.balancing.gradients import PCGrad, UPGrad
from multitask_train.balancing.weights import (
    DynamicWeightAverage,
    RandomWeights,
    StaticWeights,
    Uncertainty,
)
from multitask_train.settings import FitSettings

__all__ = ["Balancer", "make_balancer"]


def make_balancer(settings: FitSettings) -> Balancer:
    """The balancer that the settings name."""
    loss, seed = settings.loss, settings.run.seed
    match loss.balancer:
        case "equal":
            return StaticWeights({})
        case "static":
            return StaticWeights({"classification": loss.classification, "ner": loss.ner})
        case "uncertainty":
            return Uncertainty()
        case "dwa":
            return DynamicWeightAverage()
        case "rlw":
            return RandomWeights(seed)
        case "famo":
            return Famo()
        case "pcgrad":
            return PCGrad()
        case "upgrad":
            return UPGrad()
