"""Counting connections without a matrix gives what the matrix has, also at the edges of maps."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from random_graphs import One, examples, one_synapse, wide_cases
from sample_programs import fixed_program, float_program

from hardware.ir import Conv2d, Input, Readout, SpikeGraph
from hardware.ir.fan_out import count_synapses, fan_out


@examples(150)
@given(one=one_synapse())
def test_fan_out_is_the_columns_of_the_matrix(one: One) -> None:
    expected = one.graph.matrix(one.synapse).getnnz(axis=0)
    assert np.array_equal(fan_out(one.graph, one.synapse), expected)


@examples(40)
@given(case=wide_cases())
def test_the_count_is_that_of_all_matrices(case) -> None:
    expected = sum(case.graph.matrix(s).nnz for s in case.graph.synapses)
    assert count_synapses(case.graph) == expected


def test_the_sample_programs() -> None:
    for graph in (float_program(), fixed_program()):
        assert count_synapses(graph) == sum(graph.matrix(s).nnz for s in graph.synapses)


def test_a_padded_map_by_hand() -> None:
    """3x3 kernel of ones over 2x2 pixels, padding 1: each pixel reaches all 4 outputs; one tap is 0."""
    weight = np.ones((1, 1, 3, 3))
    weight[0, 0, 1, 1] = 0.0  # its own position
    graph = SpikeGraph(
        populations={
            "x": Input(name="x", shape=(2, 2, 1)),
            "y": Readout(name="y", shape=(2, 2, 1)),
        },
        synapses=(Conv2d(source="x", target="y", weight=weight, padding=(1, 1)),),
        time_steps=1,
    )
    assert fan_out(graph, graph.synapses[0]).tolist() == [3, 3, 3, 3]
    assert count_synapses(graph) == 12
