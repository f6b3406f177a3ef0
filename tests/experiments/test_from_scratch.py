"""Training from random weights, on a data set of a few hundred small images."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
import tiny

from qevo.compress import load as load_network
from qevo.data import load


@pytest.mark.slow
def test_random_weights_learn_and_a_finished_run_is_only_read(tmp_path: pathlib.Path) -> None:
    import from_scratch as script

    config = script.Config(
        data=str(tiny.write_blobs(tmp_path / "blobs.npz")),
        generations=200,
        population=16,
        batch=64,
        runs=tmp_path / "runs",
        results=tmp_path / "results",
    )
    script.main(config)
    path = tmp_path / "results" / "scratch_lenet_300_100_blobs.json"
    summary = json.loads(path.read_text())
    random, evolved = (summary["accuracy"][name] for name in ("random", "evolved"))
    assert random["test"] < 0.6
    assert evolved["test"] > 0.9
    assert summary["evaluations"] == 200 * 16
    assert [point["evaluations"] for point in summary["curve"]] == [1600, 3200]
    assert path.with_suffix(".png").exists()
    settings = summary["settings"]
    assert (settings["radius"], settings["search"]["group"], settings["search"]["rate"]) == (
        (2, config.group, config.rate)
    )

    network = load_network(tmp_path / "runs" / "scratch-lenet_300_100-blobs-0/network.safetensors")
    start = script.random_network(config, load(config.data))
    for layer, kernel in network.weights.items():
        assert set(np.unique(kernel)) == {-1, 0, 1}
        shares = [np.mean(np.asarray(start.weights[layer]) == level) for level in (-1, 0, 1)]
        np.testing.assert_allclose(shares, 1 / 3, atol=0.05)

    script.main(config)
    assert json.loads(path.read_text())["accuracy"] == summary["accuracy"]
