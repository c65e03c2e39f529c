"""Between two stages: a map of half the side and twice the channels."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from spikingmoe.config import ModelConfig
from spikingmoe.layers.neuron import make_neuron
from spikingmoe.layers.square_map import square_map
from spikingmoe.layers.stem import ConvNorm
from spikingmoe.shapes import Tokens


class Downsample(nn.Module):
    """A new stream for the next stage: U' = BN(conv3x3, stride 2 (LIF(U))).

    What passes to the next stage are spikes; the real-valued stream of a stage ends here.

    Args:
        before, after: configurations of the two stages (`ModelConfig.stage`).

    Shapes: the stream U (T, B, N, D) of a square map -> a stream (T, B, N', D'), with N' = N / 4 for an
        even side ((side - 1) // 2 + 1 in general) and D' of the next stage.
    """

    def __init__(self, before: ModelConfig, after: ModelConfig) -> None:
        super().__init__()
        self.before, self.after = before, after
        self.neuron = make_neuron(before)
        self.conv = ConvNorm(before.embed_dim, after.embed_dim, stride=2)

    def forward(self, stream: Tokens) -> Float[Tensor, "T B tokens_after D_after"]:
        x = square_map(self.neuron(stream), "downsample")
        return self.conv(x).flatten(2, 3)
