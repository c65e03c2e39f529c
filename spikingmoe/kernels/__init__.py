"""Fused kernels of the training step: compiled C++ on CPU, Triton on CUDA.

They compute what the plain modules compute, and run where there is one for device and dtype.
"""

from spikingmoe.kernels.allocator import keep_freed_memory
from spikingmoe.kernels.backends import can_fuse, spike_dtype
from spikingmoe.kernels.constants import NeuronConstants
from spikingmoe.kernels.expert import fused_expert_lif
from spikingmoe.kernels.neuron import fused_lif, fused_norm_lif
from spikingmoe.kernels.norm import Moments, fused_norm, own_moments

__all__ = [
    "Moments",
    "NeuronConstants",
    "can_fuse",
    "fused_expert_lif",
    "fused_lif",
    "fused_norm",
    "fused_norm_lif",
    "keep_freed_memory",
    "own_moments",
    "spike_dtype",
]
