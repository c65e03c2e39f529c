"""Energy of the quantised twin by hand, and what its layers are counted as."""

from __future__ import annotations

import pytest
from tiny_models import settled_model, tiny_config, tiny_images

from hardware.energy import QuantisedLayer, get_table, quantised_energy
from hardware.energy.quantised_costs import ArrayMultiplier, BitSerial
from hardware.errors import HardwareError
from hardware.lowering.ann import count_ann_layers, count_quantised_layers
from spikingmoe.config import quantised_relu_twin, relu_twin

STEM = QuantisedLayer(
    name="stem.conv", part="stem", macs=100, nonzero_macs=80, activation_bits=8, weights=9,
    inputs=16, outputs=20,
)  # fmt: skip
MLP = QuantisedLayer(
    name="mlp.up", part="mlp", macs=50, nonzero_macs=10, activation_bits=2, weights=2048,
    inputs=8192, outputs=5,
)  # fmt: skip


def test_integer_arithmetic_by_hand():
    """Multiply 0.2 b / 8 and add 0.1 (low 0.03); low end: non-zero ones; high end: 8 x 8 and rescaling."""
    report = quantised_energy([STEM, MLP], "horowitz45-int", samples=3)
    band = report.energy_pj_per_sample
    assert band.value == pytest.approx(100 * 0.3 + 50 * 0.15)
    assert band.low == pytest.approx(80 * 0.23 + 10 * 0.08)
    assert band.high == pytest.approx(150 * 0.3 + 25 * 0.3)
    assert (report.samples, report.synops_per_sample) == (3, 150)
    assert list(report.by_part) == ["stem", "mlp"]
    parts = sum(p.energy_pj_per_sample.value for p in report.by_part.values())
    assert parts == pytest.approx(band.value)


def test_memory_by_hand():
    """Lemaire: 2048 weights of 4 bytes fill 8 kB, 8192 activations of a byte another 8 kB: 10 pJ each."""
    band = quantised_energy([MLP], "lemaire").energy_pj_per_sample
    mac, read, written = 0.05 + 0.1, 10 + 10, 10 + 0.2 + 0.1
    assert band.value == pytest.approx(50 * (mac + read) + 5 * written)
    assert band.low == pytest.approx(10 * (mac + read) + 5 * (10 + 0.1))


def test_bit_serial_arithmetic_and_messages_by_hand():
    """Yan: half of two bits, one add; 2 bits of each input over one hop; an output compared."""
    band = quantised_energy([MLP], "yan").energy_pj_per_sample
    assert band.value == pytest.approx(50 * 0.05448 + 8192 * 2 * 0.25 + 5 * 0.05448)
    assert band.high > 50 * 20.3 * 8


@pytest.mark.parametrize(
    ("bits", "array", "serial"), [(1, 0.125, 1.0), (3, 0.175, 1.5), (8, 0.3, 4.0)]
)
def test_a_mac_costs_by_the_bits_of_its_activation(bits, array, serial):
    table = get_table("horowitz45-int").quantised
    assert table is not None
    assert isinstance(table.unit, ArrayMultiplier)
    assert table.unit.mac(bits).value == pytest.approx(array)
    assert BitSerial(add_pj=1.0).mac(bits).value == serial
    assert BitSerial(add_pj=1.0).mac(bits).high == bits


@pytest.mark.parametrize("name", ["horowitz45-int", "lemaire", "yan"])
def test_every_price_has_a_source_and_an_ordered_band(name):
    prices = get_table(name).quantised
    assert prices is not None
    assert all([prices.source, prices.note, prices.boundary])
    for bits in range(1, 9):
        band = prices.unit.mac(bits)
        assert 0 < band.low <= band.value <= band.high
    total = quantised_energy([STEM, MLP], name).energy_pj_per_sample
    assert total.low <= total.value <= total.high


def test_what_cannot_be_priced_is_refused():
    with pytest.raises(HardwareError, match="'loihi1' has no prices for a quantised network; use"):
        quantised_energy([STEM], "loihi1")
    with pytest.raises(HardwareError, match="a name of its own for each"):
        quantised_energy([STEM, STEM])
    with pytest.raises(HardwareError, match="activation_bits=9; use 1 to 8"):
        QuantisedLayer(
            name="a", part="a", macs=1, nonzero_macs=1, activation_bits=9, weights=1, inputs=1, outputs=1
        )  # fmt: skip


def test_a_twin_computes_what_the_relu_twin_does_with_fewer_bits():
    config = tiny_config()
    quantised, relu = quantised_relu_twin(config), relu_twin(config)
    images = tiny_images(config, 3)
    layers = count_quantised_layers(settled_model(quantised), images)
    by_part: dict[str, float] = {}
    for one in layers:
        by_part[one.part] = by_part.get(one.part, 0.0) + one.macs
    plain = {one.name: one.macs for one in count_ann_layers(settled_model(relu), images)}
    assert by_part == pytest.approx(plain)
    bits = {one.name: one.activation_bits for one in layers}
    assert (bits.pop("stem.convs.0.conv"), bits.pop("head")) == (8, 8)
    assert set(bits.values()) == {quantised.activation_bits}
    model = settled_model(quantised)
    head = next(one for one in layers if one.name == "head")
    assert (head.weights, head.inputs, head.outputs) == (model.head.weight.numel(), 8, 3)
    with pytest.raises(HardwareError, match="needs neuron='quantised_relu', got 'relu'"):
        count_quantised_layers(settled_model(relu), images)
