"""How the scripts of benchmarks/ start: what is wrong with their input is one sentence."""

import pytest

from enn_finetune.errors import InputError


@pytest.mark.parametrize("error", [InputError("row 3: no label"), OSError("disk full")])
def test_bad_input_is_one_sentence_and_exit_status_2(error, capsys, monkeypatch):
    import starting

    monkeypatch.setattr("sys.argv", ["benchmarks/heads.py"])

    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        starting.run_script(main)
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"heads.py: {error}\n"


def test_a_fault_of_ours_keeps_its_traceback():
    import starting

    def main():
        raise ValueError("a fault")

    with pytest.raises(ValueError, match="a fault"):
        starting.run_script(main)
