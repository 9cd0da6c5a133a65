import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from diffaudit.terms import constant_weight, cosine_weight, linear_weight, step_weight
from diffaudit.terms.schedules import Schedule

every_schedule = pytest.mark.parametrize("schedule", [constant_weight, step_weight, linear_weight, cosine_weight])
PROGRESS = torch.tensor([0.0, 0.1, 0.2, 0.5, 0.79, 0.8, 1.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (constant_weight, [1, 1, 1, 1, 1, 1, 1]),
        (step_weight, [0.5, 0.5, 1, 1, 1, 1.5, 1.5]),
        (linear_weight, [0.5, 0.6, 0.7, 1.0, 1.29, 1.3, 1.5]),
    ],
)
def test_by_hand(schedule: Schedule, expected: list[float]) -> None:
    assert schedule(PROGRESS).tolist() == pytest.approx(expected)


def test_cosine_by_hand() -> None:
    found = cosine_weight(torch.tensor([0.0, 1 / 3, 0.5, 2 / 3, 1.0], dtype=torch.float64))
    assert found.tolist() == pytest.approx([0.5, 0.75, 1.0, 1.25, 1.5])


@every_schedule
def test_the_mean_over_all_progress_is_one(schedule: Schedule) -> None:
    middles = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    assert schedule(middles).mean().item() == pytest.approx(1)


@every_schedule
def test_never_falls_as_noise_falls(schedule: Schedule) -> None:
    weights = schedule(torch.linspace(0, 1, 101))
    assert (weights.diff() >= 0).all()
    assert weights.dtype == torch.float32


def test_the_cosine_reaches_one_and_a_half_not_one() -> None:
    weights = cosine_weight(torch.linspace(0, 1, 101))
    assert (weights.min().item(), weights.max().item()) == (0.5, 1.5)


def test_the_table_in_time_steps_comes_out_reversed() -> None:
    scheduler = DDPMScheduler(num_train_timesteps=1000)
    last = 999
    share_of_noise = 1 - scheduler.alphas_cumprod
    assert share_of_noise[0] < 0.001
    assert share_of_noise[last] > 0.999
    timesteps = torch.tensor([0, last])
    fault = step_weight(timesteps / 1000)  # "t < 0.2 T: high noise, weight 0.5"
    assert fault.tolist() == [0.5, 1.5]
    assert step_weight(1 - timesteps / last).tolist() == [1.5, 0.5]
