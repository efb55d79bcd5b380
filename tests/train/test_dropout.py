"""Quick dropout does what `nn.Dropout` does."""

import pytest
import torch
from torch import nn

from multitask_train.dropout import QuickDropout, quicken_dropout

P = 0.1


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(1)


def quick(p: float = P) -> QuickDropout:
    return QuickDropout(p).train()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_share_p_is_dropped_and_the_rest_is_scaled(dtype: torch.dtype) -> None:
    found = quick()(torch.ones(500, 1000, dtype=dtype))
    assert found.dtype == dtype
    kept = found[found != 0]
    assert torch.allclose(kept.float(), torch.tensor(1 / (1 - P)), rtol=5e-3)
    # A standard deviation of the share is 0.0004.
    assert abs((found == 0).double().mean().item() - P) < 0.002


def test_values_that_share_a_draw_are_dropped_independently() -> None:
    drops = (quick(0.5)(torch.ones(100_000, 4)) == 0).double()
    correlations = torch.corrcoef(drops.T) - torch.eye(4)
    assert correlations.abs().max() < 0.02
    assert (drops.mean(0) - 0.5).abs().max() < 0.01


@pytest.mark.parametrize("shape", [(0,), (1,), (3, 5), (2, 3, 7), (4, 8)])
def test_every_shape(shape: tuple[int, ...]) -> None:
    assert quick()(torch.ones(shape)).shape == shape


def test_rows_and_columns_may_be_swapped() -> None:
    values = torch.arange(1.0, 21.0).view(4, 5).T
    found = quick(0.5)(values)
    kept = found != 0
    assert torch.allclose(found[kept], 2 * values[kept])


def test_the_gradient_passes_where_the_value_did() -> None:
    values = torch.ones(64, 64, requires_grad=True)
    found = quick()(values)
    found.sum().backward()
    assert torch.equal(values.grad, found.detach())


def test_the_seed_decides_and_every_call_differs() -> None:
    values, dropout = torch.ones(64), quick(0.5)
    torch.manual_seed(7)
    first, second = dropout(values), dropout(values)
    torch.manual_seed(7)
    assert torch.equal(dropout(values), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("p", "scale"), [(0.0, 1.0), (1.0, 0.0), (1e-7, 1.0)])
def test_nothing_or_everything_is_dropped(p: float, scale: float) -> None:
    assert torch.allclose(quick(p)(torch.ones(100)), torch.full((100,), scale))


def test_evaluation_drops_nothing() -> None:
    values = torch.randn(10)
    assert torch.equal(QuickDropout(0.5).eval()(values), values)


def test_a_model_is_the_same_but_for_its_dropouts() -> None:
    inner = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.2))
    model = nn.ModuleDict(
        {"inner": inner, "own": nn.Dropout1d(0.3), "inplace": nn.Dropout(0.4, inplace=True)}
    )
    inner.eval()
    before = model.state_dict()
    quicken_dropout(model)
    assert type(inner[1]) is QuickDropout
    assert (inner[1].p, inner[1].training) == (0.2, False)
    assert (type(model["own"]), type(model["inplace"])) == (nn.Dropout1d, nn.Dropout)
    assert model.state_dict().keys() == before.keys()
