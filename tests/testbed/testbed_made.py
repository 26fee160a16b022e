"""Records of a testbed study that are made up, and its report."""

import json

import numpy as np

from enn_finetune.report import testbed
from enn_finetune.testbed import records

LABELS = list(range(10, 201, 10))
SPEEDS = {"mlp/random": 100.0, "mlp/entropy": 200.0, "epinet/random": 100.0}
TARGET = 0.1 + 0.3 * np.exp(-200 / 100)


def active_lines(speeds, way="once", problems=6):
    """KL .1 + .3 exp(-labels / speed), with luck shared by the arms of a problem."""
    found = []
    for arm, speed in speeds.items():
        agent, rule = arm.split("/")
        for problem in range(problems):
            luck = 0.01 * np.sin(problem) + 0.001 * np.cos(3 * problem + len(arm))
            kl = [0.1 + 0.3 * float(np.exp(-n / speed)) + luck for n in LABELS]
            found.append(
                records.ActiveLine(
                    part="active",
                    agent=agent,
                    rule=rule,
                    problem=problem,
                    way=way,
                    labels=LABELS,
                    kl=kl,
                    kl_excess=[one / 50 for one in kl],
                    selection_regret=[10 * float(one) for one in np.cumsum(kl)],
                    accuracy=[1 - one for one in kl],
                    ece=[one / 10 for one in kl],
                    bought=list(range(150 if way == "again" else 200)),
                    steps=200,
                )
            )
    return found


def supervised_lines(gaps, ess=500.0, problems=6, ratio=10.0):
    """Joint KLs of 1 for the MLP, and away from it by the agent's gap; marginal ones alike."""
    found = []
    for agent, gap in {"mlp": 0.0, **gaps, "floor": -0.9}.items():
        for problem in range(problems):
            noise = 0.01 * np.sin(problem) + (agent != "mlp") * 0.01 * np.cos(problem)
            line = records.SupervisedLine(
                part="supervised",
                agent=agent,
                problem=problem,
                input_dim=2,
                temperature=0.1,
                ratio=ratio,
                rows=round(2 * ratio),
                scores={
                    "kl": 0.5 + noise,
                    "joint_kl_10": 1.0 + gap + noise,
                    "joint_kl_10_bias": 0.02,
                    "accuracy": 0.8 + noise,
                    "ece": 0.1 + noise,
                },
            )
            if agent == "floor":
                line["ess"] = ess
                line["scores"]["joint_kl_10_ess"] = ess / (2 + problem)
            found.append(line)
    return found


def write(folder, *groups):
    folder.mkdir(exist_ok=True)
    for number, lines in enumerate(groups):
        records.append(folder, str(number), lines)
    study = {"config": {"active": {"baseline": "mlp/random"}}, "config_hash": "abc"}
    study |= {"commit": "c0ffee", "machine": "two cores", "commands": ["enn-finetune testbed"]}
    (folder / records.STUDY).write_text(json.dumps(study | {"seconds": 12.0}))
    return testbed.run(folder, resamples=200)
