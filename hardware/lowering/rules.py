"""Which rule lowers which type of module: ours, and those that a user adds."""

from __future__ import annotations

from types import MappingProxyType

from torch import nn

from hardware.lowering.attention import lower_dwconv, lower_qk, lower_sdsa, refuse_ssa
from hardware.lowering.blocks import lower_block, lower_residual
from hardware.lowering.builder import Rules
from hardware.lowering.experts import lower_dense_mlp, lower_mixture
from hardware.lowering.layers import lower_convolution, lower_flatten, lower_lif, lower_linear
from hardware.lowering.mixing import lower_conv_mixing
from hardware.lowering.stages import lower_downsample, lower_stem
from spikingmoe.layers.attention import (
    DepthwiseMixing,
    QKAttention,
    SDSAttention,
    SpikingSelfAttention,
)
from spikingmoe.layers.downsample import Downsample
from spikingmoe.layers.linear import LinearNorm
from spikingmoe.layers.mixing import ConvMixing
from spikingmoe.layers.moe import DenseMLP, MixtureOfExperts
from spikingmoe.layers.neuron import LIF
from spikingmoe.layers.norse_neuron import NorseLIF
from spikingmoe.layers.sequence import Convolution, Flatten, Residual
from spikingmoe.layers.stem import Stem
from spikingmoe.model import Block

BUILT_IN: Rules = MappingProxyType(
    {
        Stem: lower_stem,
        Downsample: lower_downsample,
        Block: lower_block,
        Residual: lower_residual,
        Convolution: lower_convolution,
        LinearNorm: lower_linear,
        LIF: lower_lif,
        NorseLIF: lower_lif,
        Flatten: lower_flatten,
        QKAttention: lower_qk,
        SDSAttention: lower_sdsa,
        DepthwiseMixing: lower_dwconv,
        SpikingSelfAttention: refuse_ssa,
        ConvMixing: lower_conv_mixing,
        DenseMLP: lower_dense_mlp,
        MixtureOfExperts: lower_mixture,
    }
)


def check_rules(rules: Rules | None) -> Rules:
    """The user's rules; TypeError unless they are functions by type of module."""
    for kind, rule in (rules or {}).items():
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)) or not callable(rule):
            raise TypeError(
                f"rules has {kind!r}: {rule!r}; use a type of module and a function "
                f"rule(builder, module, path, arriving)"
            )
    return rules or {}
