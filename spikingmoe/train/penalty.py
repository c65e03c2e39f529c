"""What training pays for spikes: a price on synaptic operations, a budget of them, firing rates."""

from __future__ import annotations

import torch
from torch import Tensor

from spikingmoe.config import TrainConfig
from spikingmoe.train.devices import add_over_devices
from spikingmoe.train.operations import Activity, OperationMeter

AIM = 0.985  # share of the budget that is aimed at, since the last steps still move the count
GAIN = (
    30.0  # the multiplier rises by this over a training that uses twice what is aimed at throughout
)
DAMPING = 2.0  # price beside the multiplier, times the present excess: without it the count swings
FALLING = 0.5  # share of the training in which the aim falls to the budget
LARGEST_GAP = 2.0  # between held-out and training images; beyond it statistics are not settled yet
RELAY_IMAGES = 32  # that the relays' messages are counted on, once per epoch

KEPT = ("multiplier", "gap", "relays", "start", "steps")
SUMS = ("trained", "samples", "validated", "validation_samples")


class SpikePenalty:
    """Adds to the loss, for r = synaptic operations per image / aim:

        synops_weight * (synaptic operations / those if every neuron spiked at every step)
        + max(0, multiplier + 2 (r - 1)) * r               multiplier <- max(0, multiplier + rate (r - 1))
        + rate_weight * mean over populations of max(0, rate - rate_target)^2

    The multiplier is that of Lagrange for "operations <= budget", by dual ascent with the damping of
    an augmented Lagrangian: it rises while too many are used and falls to 0 where the network
    needs fewer; no gradient passes through the price. In the first epoch nothing is paid; then the
    aim falls geometrically from what that epoch used to 0.985 of the budget, which it reaches
    halfway through the training. What counts are held-out images in evaluation mode, so the training
    images' count is multiplied by the ratio of the two in the epoch before.
    Rates: Zenke and Vogels 2021 (Neural Computation 33:899), their upper bound.

    Args:
        steps: of the whole training.
    """

    def __init__(self, config: TrainConfig, meter: OperationMeter, steps: int) -> None:
        self.config, self.meter = config, meter
        self.rate, self.falling = GAIN / steps, FALLING * steps
        zero = torch.zeros((), dtype=torch.float64)
        self.values: dict[str, Tensor] = dict.fromkeys((*KEPT, *SUMS), zero)
        self.values["gap"] = torch.ones((), dtype=torch.float64)

    def to(self, device: torch.device) -> None:
        """Move multiplier and sums to `device`."""
        self.values = {name: value.to(device) for name, value in self.values.items()}

    def check(self, images: Tensor) -> None:
        """ValueError for a budget that not even a silent network keeps on `images`."""
        budget, floor = self.config.synops_budget, self.meter.floor(images)
        if 0 < budget <= floor:
            raise ValueError(
                f"training: synops_budget={budget:g} is below the {floor:,.0f} synaptic operations per "
                f"image that the pixels alone trigger in this model; use more"
            )

    def loss(self, activity: Activity, own: int) -> Tensor:
        """What the batch pays; its gradient is that of the mean over all devices' `own` images."""
        config, values = self.config, self.values
        here = activity.synops + values["relays"]
        seen = add_over_devices(torch.stack([here.detach() * own, here.new_tensor(float(own))]))
        values["trained"] = values["trained"] + seen[0]
        values["samples"] = values["samples"] + seen[1]
        loss = here * (config.synops_weight / self.meter.most)
        if config.synops_budget:
            scale = values["gap"] / self._aim()
            excess = (scale * seen[0] / seen[1] - 1).clamp(-1, 1)
            paying = values["start"] > 0
            loss = loss + paying * self._price(excess) * scale * here
            values["multiplier"] = self._risen(paying * excess)
        values["steps"] = values["steps"] + 1
        if config.rate_weight:
            above = (activity.rates - config.rate_target).clamp(min=0)
            loss = loss + config.rate_weight * above.square().mean()
        return loss

    def _aim(self) -> Tensor:
        """Operations per image that the present step aims at."""
        last = AIM * self.config.synops_budget
        left = (1 - self.values["steps"] / self.falling).clamp(min=0)
        return last * (self.values["start"] / last).clamp(min=1) ** left

    def _price(self, excess: Tensor) -> Tensor:
        return (self.values["multiplier"] + DAMPING * excess).clamp(min=0)

    def _risen(self, excess: Tensor) -> Tensor:
        return (self.values["multiplier"] + self.rate * excess).clamp(min=0)

    def note_validation(self, activity: Activity, own: int) -> None:
        """A batch of `own` held-out images."""
        if own:
            self.values["validated"] = self.values["validated"] + activity.synops.detach() * own
            self.values["validation_samples"] = self.values["validation_samples"] + own

    def end_epoch(self, images: Tensor) -> dict[str, float]:
        """Start the next epoch's sums; what this one's record says.

        Args:
            images: (S, ...) on which relays are counted.
        """
        values = self.values
        relays = self.meter.relay_synops(images)
        trained = float(values["trained"] / values["samples"].clamp(min=1))
        held_out = add_over_devices(
            torch.stack([values["validated"], values["validation_samples"]])
        ).tolist()
        synops = trained
        if held_out[1]:
            synops = held_out[0] / held_out[1] + relays
            gap = min(max(synops / trained, 1 / LARGEST_GAP), LARGEST_GAP)
            values["gap"] = torch.full_like(values["gap"], gap)
        values["relays"] = torch.full_like(values["relays"], relays)
        values["start"] = torch.where(
            values["start"] > 0, values["start"], torch.full_like(values["start"], synops)
        )
        for name in SUMS:
            values[name] = torch.zeros_like(values[name])
        record = {"synops": synops}
        if self.config.synops_budget:
            record["synops_multiplier"] = float(values["multiplier"])
        return record

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return dict(self.values)

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint's."""
        self.values = {name: state[name].clone() for name in (*KEPT, *SUMS)}
