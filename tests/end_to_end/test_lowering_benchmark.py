"""benchmarks/lowering.py measures a network in a process of its own and keeps rows that it has."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_row_is_measured_and_another_kept(tmp_path):
    results = tmp_path / "lowering.json"
    earlier = {"network": "cifar-tiny", "n": 1, "same": True, "neurons": 7}
    results.write_text(json.dumps({"rows": [earlier]}))
    words = ["--presets", "digits", "cifar-tiny", "--images", "2", "--json", str(results)]
    words += ["--lava", "2", "--stock", "1", "--integers", "2"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "lowering.py"), *words],
        env={"PATH": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(results.read_text())
    kept, row = found["rows"]
    assert kept == earlier
    assert (row["network"], row["n"], row["differing"], row["same"]) == ("digits", 2, 0, True)
    assert row["synapses"] > row["neurons"] > 10_000
    assert row["compared"] > 100_000
    assert 0.01 < row["firing_rate"] < 0.5
    assert 100 < row["lowering_peak_mib"] <= row["peak_mib"]
    pairs = {(pair["backend"], pair["arithmetic"]): pair for pair in row["backends"]}
    assert list(pairs) == [
        ("lava", "float"),
        ("lava-stock", "float"),
        ("torch-integers", "fixed"),
        ("lava", "fixed"),
        ("lava-stock", "fixed"),
    ]
    for (backend, arithmetic), pair in pairs.items():
        assert pair["images"] == (1 if backend == "lava-stock" else 2)
        assert pair["differing"] == 0
        assert pair["compared"] == pairs["lava", arithmetic]["compared"] * pair["images"] // 2
    assert found["ratios"] == {
        "networks": 2.0,
        "networks_that_differ": 0.0,
        "backends_compared": 5.0,
        "backends_that_differ": 0.0,
    }
