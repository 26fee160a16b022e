"""benchmarks/policies.py: what can be asked for."""

import pytest


def test_auto_is_no_arm_of_a_quick_study_unless_asked_for():
    import policies_options

    for auto, count in ((False, 0), (True, 1)):
        arms = policies_options.arms_of(quick=True, small=False, auto=auto)
        assert [arm.policy for arm in arms[:4]] == ["random", "standard", "svpp", "asvp"]
        assert sum(arm.policy == "auto" for arm in arms) == count
    assert (
        sum(arm.policy == "auto" for arm in policies_options.arms_of(quick=False, small=True)) == 3
    )


def test_arms_are_left_out_by_name_but_for_those_that_all_are_measured_against(capsys):
    import policies_options

    arms = policies_options.arms_of(quick=False, small=True)
    found = [arm.name for arm in policies_options.named(arms, ["auto (crowd)"])]
    assert found == ["random", "standard", "svpp", "asvp", "auto (crowd)"]
    with pytest.raises(SystemExit):
        policies_options.options(["--arms", "auto"], None)
    assert "no arm is called 'auto'; there are random, " in capsys.readouterr().err
    given = policies_options.options(["--arms", "svpp small selector", "--seeds", "3:5"], None)
    assert (given.arms, given.seeds) == (["svpp small selector"], (3, 5))
    assert policies_options.options(["--seeds", "2"], None).seeds == (0, 2)
    for seeds in ("few", "5:3", "0"):
        with pytest.raises(SystemExit):
            policies_options.options(["--seeds", seeds], None)
        said = capsys.readouterr().err
        assert f"START:STOP with 0 <= START < STOP, got '{seeds}'" in said
