"""The balancers' formulas, by hand."""

import math

import pytest
import torch

from multitask_train.balancing.base import Balancer
from multitask_train.balancing.famo import DECAY, RATE, Famo
from multitask_train.balancing.weights import (
    DynamicWeightAverage,
    RandomWeights,
    StaticWeights,
    Uncertainty,
)

TASKS = ["classification", "ner"]


def weights(balancer: Balancer, update: int = 1, losses=None) -> list[float]:
    return list(balancer.weights(TASKS, update, losses, None).values())


def test_static_and_equal() -> None:
    assert weights(StaticWeights({})) == [1.0, 1.0]
    assert weights(StaticWeights({"ner": 0.25})) == [1.0, 0.25]


def test_uncertainty_settles_where_its_derivative_is_nought() -> None:
    """exp(-s) L + s / 2 is least at s = log 2 L, where the weight is 1 / 2 L."""
    balancer = Uncertainty()
    assert weights(balancer) == [1.0, 1.0]
    for _ in range(500):
        balancer.observe({"classification": 2.0, "ner": 0.1})
    assert weights(balancer) == pytest.approx([0.25, 5.0], rel=0.02)


def test_uncertainty_bears_a_task_that_has_nothing_to_learn() -> None:
    """One class alone: its loss is 0, and its variance would fall until its weight overflows."""
    balancer = Uncertainty()
    for _ in range(30_000):
        balancer.observe({"classification": 0.0, "ner": 0.1})
    constant, learned = weights(balancer)
    assert constant == pytest.approx(math.exp(Uncertainty.LIMIT))
    assert learned == pytest.approx(5.0, rel=0.02)


def test_dynamic_weight_average_looks_two_epochs_back() -> None:
    balancer = DynamicWeightAverage()
    for epoch, losses in enumerate([(1.0, 1.0), (0.5, 0.9)], 1):
        balancer.begin(epoch)
        for _ in range(3):
            assert weights(balancer) == [1.0, 1.0]
            balancer.observe(dict(zip(TASKS, losses, strict=True)))
    balancer.begin(3)
    left, right = math.exp(0.5 / 2), math.exp(0.9 / 2)
    expected = [2 * left / (left + right), 2 * right / (left + right)]
    for _ in range(3):
        assert weights(balancer) == pytest.approx(expected)
        balancer.observe(dict.fromkeys(TASKS, 0.1))
    assert sum(expected) == pytest.approx(2)


def test_random_weights_depend_on_seed_and_update_alone() -> None:
    drawn = [weights(RandomWeights(3), update) for update in range(400)]
    assert drawn == [weights(RandomWeights(3), update) for update in range(400)]
    assert drawn != [weights(RandomWeights(4), update) for update in range(400)]
    assert all(sum(one) == pytest.approx(2) for one in drawn)
    assert sum(one[0] for one in drawn) / 400 == pytest.approx(1, abs=0.1)


def test_famo_weighs_by_shares_over_losses_and_helps_the_slower_task() -> None:
    balancer = Famo()
    losses = {"classification": 2.0, "ner": 0.5}
    # z is [1/2, 1/2], z / L [1/4, 1], scaled to sum to 2.
    assert weights(balancer, losses=losses) == pytest.approx([0.4, 1.6])
    balancer.observe_after({"classification": 1.0, "ner": 0.49})  # ner fell less
    after = weights(balancer, losses={"classification": 1.0, "ner": 1.0})
    assert after[1] > 1 > after[0]


def test_famo_takes_the_step_of_its_paper() -> None:
    balancer = Famo()
    weights(balancer, losses={"classification": 2.0, "ner": 0.5})
    balancer.observe_after({"classification": 1.0, "ner": 0.4})
    z = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([z], lr=RATE, weight_decay=DECAY)
    fell = torch.tensor([math.log(2.0 / 1.0), math.log(0.5 / 0.4)], dtype=torch.float64)
    torch.softmax(z, 0).backward(fell)
    adam.step()
    saved = balancer.state()
    assert [float(saved[task][0]) for task in TASKS] == pytest.approx(z.tolist())


def test_a_task_that_is_not_in_the_update_has_no_weight() -> None:
    for balancer in (StaticWeights({}), Uncertainty(), DynamicWeightAverage(), Famo()):
        found = balancer.weights(["ner"], 1, {"ner": 0.5}, None)
        assert found == {"ner": pytest.approx(1.0)}
        balancer.observe({"ner": 0.5})
        balancer.observe_after({"ner": 0.4})
