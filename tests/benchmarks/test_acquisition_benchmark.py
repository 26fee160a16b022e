"""benchmarks/acquisition.py at a toy size: what batches are worth, what is compared, the script."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def inputs():
    from acquisition_measure import Inputs

    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 9, 3)) * 2
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    features = rng.normal(size=(9, 5))
    return Inputs(log_probs[:, :6], features[:6], log_probs[:, 6:], features[6:])


def test_joint_information_is_that_of_all_outcomes(inputs):
    import acquisition_values

    probs = np.exp(inputs.log_probs[:, [0, 3]])
    by_index = probs[:, 0, :, None] * probs[:, 1, None, :]
    mixture = by_index.mean(0)
    expected = (by_index * np.log(by_index / mixture)).sum((1, 2)).mean()
    assert acquisition_values.joint_information(inputs, [0, 3]) == pytest.approx(expected, abs=0.01)


def test_values_of_targets_are_those_of_the_covariance(inputs):
    import acquisition_values
    from acquisition_measure import NOISE

    rows = [1, 4]
    far, near = inputs.target_features, inputs.features[rows]
    gain = far @ near.T @ np.linalg.inv(near @ near.T + NOISE * np.eye(2)) @ near @ far.T
    before = far @ far.T
    left = np.trace(before - gain) / len(far)
    assert acquisition_values.variance_of_targets(inputs, rows) == pytest.approx(left)
    dets = [np.linalg.slogdet(cov + NOISE * np.eye(3))[1] for cov in (before, before - gain)]
    expected = (dets[0] - dets[1]) / 2
    assert acquisition_values.information_on_targets(inputs, rows) == pytest.approx(expected)


def test_agreement_is_that_of_the_least_alike_pool(inputs):
    import acquisition

    case = acquisition.Case("vtl_linear", "peer/vtl", 2)
    found = acquisition.agreement(case, [[0, 1], [2, 3]], [[1, 0], [2, 4]], inputs)
    assert (found["in_common"], found["of"], found["same_order"]) == (1, 2, False)
    assert found["ours"] == found["peer"]
    slow = acquisition.agreement(case, [[0, 1], [2, 3]], [[0, 1]], inputs)
    assert (slow["in_common"], slow["same_order"]) == (2, True)


def test_least_ratios_need_all_peers():
    import acquisition

    one = {"rule": "itl_linear", "count": 1, "ours": {}, "theirs": {}, "agreement": {}}
    itl = one | {"peer": "activeft/itl", "ratio": {"seconds": 9.0}}
    vtl = one | {"peer": "activeft/vtl", "ratio": {"seconds": 7.0}}
    assert acquisition.figures([itl, vtl], [])["transductive_ratio"] == 7
    assert acquisition.figures([itl], [])["transductive_ratio"] is None


@pytest.mark.slow
def test_the_script_does_without_peers_and_ends_with_one_json_object(tmp_path):
    for package in ("batchbald_redux", "baal"):  # whatever is installed
        (tmp_path / f"{package}.py").write_text("raise ImportError('not here')\n", encoding="utf-8")
    command = [sys.executable, ROOT / "benchmarks" / "acquisition.py", "--rows", "60", "--quick"]
    done = subprocess.run(
        [*command, "--only", "batchbald"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "", "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
    )
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["rows"] == 60
    assert figures["batchbald_ratio"] is None
    assert len(figures["missing"]) == 2
    assert figures["missing"][0].startswith("batchbald_redux/batchbald: batchbald-redux: ")
    ours = figures["measurements"][0]["ours"]
    assert 0 < ours["seconds"] <= ours["first_s"]
    assert ours["imported_gib"] > 0
    assert {"commit", "machine", "versions", "threads", "ratios", "agreement"} <= figures.keys()
