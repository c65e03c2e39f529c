"""What a chip offers: limits per core, each with its source and how sure it is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hardware.errors import MappingError

BITS_PER_WEIGHT = 8
AXON_HEADER_BITS = 10
LOIHI1_SYNAPSES_PER_BLOCK = 64
LOIHI1_LEAST_INDEX_BITS = 5


@dataclass(frozen=True, kw_only=True)
class Chip:
    """Limits of a chip.

    Attributes:
        cores: neuromorphic cores per chip; `tiles` (rows, columns) routers serve them, equally many each.
        neurons, in_axons, out_axons: most per core; None where nothing is known.
        synapse_words: memory for synapses of a core, in words of `word_bits` bits.
        discrete_axons: whether a source neuron of a convolution takes an axon of its own in each core
            that it reaches (Loihi 1), or a source core one for all its neurons (Loihi 2).
        graded: whether a message can carry a number.
        most_delay: the longest delay of a synapse, in steps.
        sources: limit -> where it is from, with its grade (published, inferred, assumed).
    """

    name: str
    cores: int
    tiles: tuple[int, int]
    neurons: int
    in_axons: int | None
    out_axons: int | None
    synapse_words: int
    word_bits: int
    discrete_axons: bool
    graded: bool
    most_delay: int
    sources: dict[str, str] = field(default_factory=dict)

    @property
    def cores_per_tile(self) -> int:
        """Cores behind one router."""
        return self.cores // (self.tiles[0] * self.tiles[1])

    def axon_words(self, weights: int, neurons: int) -> int:
        """Words of synapse memory that an axon with so many weights takes in a core.

        Loihi 1 (nengo-loihi's block model): each block of up to 64 synapses takes 10 bits and, per
        synapse, the weight and the target's index; an axon is rounded up to a word of 64 bits.
        Loihi 2: 10 bits, 8 per weight, rounded up to 32: inferred, it gives the allocations that the
        compiler prints for dense layers of the PilotNet tutorial (10 -> 3, 50 -> 13, 9 -> 3, 17 -> 5).

        Args:
            neurons: of the core, which decide how long an index is.
        """
        if self.discrete_axons:
            index = max(LOIHI1_LEAST_INDEX_BITS, math.ceil(math.log2(max(2, neurons))))
            blocks = math.ceil(weights / LOIHI1_SYNAPSES_PER_BLOCK)
            bits = weights * (BITS_PER_WEIGHT + index) + blocks * AXON_HEADER_BITS
        else:
            bits = weights * BITS_PER_WEIGHT + AXON_HEADER_BITS
        return math.ceil(bits / self.word_bits)


CHIPS = {
    "loihi1": Chip(
        name="loihi1",
        cores=128,
        tiles=(4, 8),
        neurons=1024,
        in_axons=4096,
        out_axons=4096,
        synapse_words=1_048_576 // 64,
        word_bits=64,
        discrete_axons=True,
        graded=False,
        most_delay=62,
        sources={
            "cores": "published (Davies 2018)",
            "tiles": "8 x 4 tiles of 4 cores: SANA-FE's model, fitted on silicon",
            "neurons": "published (Davies 2018): 1,024 compartments",
            "in_axons": "nengo-loihi's validators: 4,096",
            "out_axons": "nengo-loihi's validators: 4,096",
            "synapse_words": "nengo-loihi's validators: 1,048,576 bits; block model of the same",
            "graded": "published: messages of Loihi 1 are binary",
            "most_delay": "published (Davies 2018): delays of up to 62 steps",
        },
    ),
    "loihi2": Chip(
        name="loihi2",
        cores=128,
        tiles=(4, 8),
        neurons=4095,
        in_axons=16_000,
        out_axons=None,
        synapse_words=12_000,
        word_bits=32,
        discrete_axons=False,
        graded=True,
        most_delay=62,
        sources={
            "cores": "published (Intel's technology brief, 2021); recent papers use 120 to 128",
            "tiles": "assumed to be those of Loihi 1; nothing is published",
            "neurons": "inferred: 8,192 with one state each; of LIF with current and voltage the "
            "compiler never put 4,096 into a core (PilotNet table)",
            "in_axons": "inferred: about 16,000",
            "out_axons": "unknown: not checked",
            "synapse_words": "inferred: SynMem = 12,000 in the compiler's output (PilotNet tutorial)",
            "graded": "published: messages carry up to 32 bits (24 in Lava's models)",
            "most_delay": "published for Lava's delay synapses: 0 to 63, one of them the synapse's own",
        },
    ),
}


def get_chip(name: str) -> Chip:
    """The chip called `name`; MappingError lists the names."""
    if name not in CHIPS:
        raise MappingError(f"chip {name!r} is unknown; use one of {', '.join(CHIPS)}")
    return CHIPS[name]
