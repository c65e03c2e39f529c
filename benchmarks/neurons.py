"""The same neuron by other libraries, as their users write it: what the speed benchmarks compare with.

All of them compute u = v / 2 + current, spike where u passes the threshold 1, then v = 0 there, with
the arc-tangent surrogate of slope alpha = 2 (Fang 2021). They differ at equality: snnTorch spikes
above the threshold, as we do, SpikingJelly also at it; `exact_currents` never meets it.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping

import snntorch
import torch
from snntorch import surrogate
from torch import Tensor, nn

DECAY, THRESHOLD, ALPHA = 0.5, 1.0, 2.0
#: What SpikingJelly 2.0 imports beyond the packages that are there anyway.
INSTALL_SPIKINGJELLY = "pip install loguru && pip install --no-deps spikingjelly"


class SnnTorchLIF(nn.Module):
    """snnTorch's stock `Leaky`, stepped in Python as its tutorials do: (T, ...) -> (T, ...)."""

    def __init__(self) -> None:
        super().__init__()
        self.leaky = snntorch.Leaky(
            beta=DECAY,
            threshold=THRESHOLD,
            spike_grad=surrogate.atan(alpha=ALPHA),
            reset_mechanism="zero",
            reset_delay=False,
        )
        snntorch.SpikingNeuron.instances.remove(self.leaky)  # a global list that keeps it alive

    def forward(self, current: Tensor) -> Tensor:
        membrane = self.leaky.init_leaky()
        spikes = []
        for current_t in current:
            spikes_t, membrane = self.leaky(current_t, membrane)
            spikes.append(spikes_t)
        return torch.stack(spikes)


class SpikingJellyLIF(nn.Module):
    """SpikingJelly's LIF over all steps at once: (T, ...) -> (T, ...).

    `LIFNode(tau=2.0, decay_input=False, v_reset=0.0, step_mode="m")` calls this same
    `lif_multi_step`, u = v - v / tau + current. Here its state is float32 for bfloat16 currents too,
    without which version 2.0 leaves its fused kernels. It chooses the implementation itself: its
    Triton kernel on CUDA (its own CUDA extension where that was built), torch on the CPU.

    Args:
        compiled: step through `torch.compile`, the fastest that it offers on the CPU.

    Raises:
        ImportError: SpikingJelly, or something it imports, is not installed.
    """

    def __init__(self, *, compiled: bool = False) -> None:
        super().__init__()
        self.compiled = compiled
        self.spikes_of = spikingjelly_spikes(compiled=compiled)

    def forward(self, current: Tensor) -> Tensor:
        return self.spikes_of(current)

    def implementation(self, device: torch.device) -> str:
        """The name of what SpikingJelly runs on a device: torch-reference, triton or cuda."""
        execution = "compile" if self.compiled else "eager"
        found = import_spikingjelly("functional").neuron_implementation(
            "lif", device, execution=execution
        )
        return str(found["implementation"])


@functools.cache  # one compiled function for all neurons, not one each
def spikingjelly_spikes(*, compiled: bool) -> Callable[[Tensor], Tensor]:
    """The function (T, ...) -> (T, ...) behind `SpikingJellyLIF`."""
    multi_step = import_spikingjelly("functional").lif_multi_step
    atan = import_spikingjelly("surrogate").ATan(alpha=ALPHA)

    def spikes_of(current: Tensor) -> Tensor:
        v = torch.zeros(current.shape[1:], dtype=torch.float32, device=current.device)
        return multi_step(current, v, 1 / (1 - DECAY), False, THRESHOLD, 0.0, atan, False)[0]

    if not compiled:
        return spikes_of
    torch._dynamo.config.recompile_limit = 64  # or it gives up compiling after 8 shapes
    return torch.compile(spikes_of)


def import_spikingjelly(module: str):
    """`spikingjelly.activation_based.MODULE`; ImportError with the command where that fails."""
    try:
        return importlib.import_module(f"spikingjelly.activation_based.{module}")
    except ImportError as error:
        raise ImportError(
            f"spikingjelly is left out: {error.name or error} is not installed; "
            f"use `{INSTALL_SPIKINGJELLY}`"
        ) from None


def competitors(*, compiled: bool = True) -> dict[str, Callable[[], nn.Module]]:
    """{side: makes its neuron} of the libraries that are installed; a line is printed for others.

    Args:
        compiled: also SpikingJelly's neuron under `torch.compile`.
    """
    sides: dict[str, Callable[[], nn.Module]] = {"snntorch": SnnTorchLIF}
    try:
        import_spikingjelly("functional")
    except ImportError as missing:
        print(missing)
        return sides
    sides["spikingjelly"] = SpikingJellyLIF
    if compiled:
        sides["spikingjelly, compiled"] = lambda: SpikingJellyLIF(compiled=True)
    return sides


def library_ratios(faster: Mapping[str, float], ending: str = "") -> dict[str, float]:
    """{ratio: how many times ours is faster} from that number per side.

    A library counts with its fastest form; "spikingjelly" without `torch.compile` has its own name.
    """
    ratios = {}
    for library in ("snntorch", "spikingjelly"):
        forms = [ratio for side, ratio in faster.items() if side.split(",")[0] == library]
        if len(forms) > 1 or (forms and library == "snntorch"):
            ratios[f"vs_{library}{ending}"] = min(forms)
        if forms and library == "spikingjelly":
            ratios[f"vs_{library}_eager{ending}"] = faster[library]
    return ratios


def exact_currents(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Odd eighths between -1 and 2, (T, ...): every membrane is an odd multiple of some 2^-k.

    So no membrane is ever at the threshold, and up to T = 4 they are exact in bfloat16 too (|u| < 4,
    k <= 6): all libraries must give the same spikes.
    """
    return (2 * torch.randint(-4, 8, shape, generator=generator) + 1) / 8
