"""What `xgenmm generate` is asked for is checked before a model is read."""

import pytest

from xgenmm_jax.cli import main as cli


@pytest.mark.parametrize(
    "words, code, sentence",
    [
        (["--max-new-tokens", "0"], 2, "got max_new_tokens 0; give 1 or more"),
        (["--max-new-tokens", "-5"], 2, "got max_new_tokens -5; give 1 or more"),
        (["--max-new-tokens", "2.5"], 2, "--max-new-tokens: got '2.5', wanted a whole number."),
        (["--num-beams", "0"], 2, "got num_beams 0; give 1 or more"),
        (["--num-beams", "2", "--temperature", "1"], 2, "num_beams 2 and temperature 1.0"),
        (["--temperature", "-1"], 2, "got temperature -1.0"),
        (["--temperature", "nan"], 2, "got temperature nan; give a finite number"),
        (["--temperature", "1", "--top-p", "0"], 2, "got top_p 0.0; give more than 0 and at most 1"),
        (["--temperature", "1", "--top-p", "1.5"], 2, "got top_p 1.5; give more than 0 and at most 1"),
        (["--temperature", "1", "--top-k", "-3"], 2, "got top_k -3; give 0 or more"),
        (["--top-k", "3"], 2, "at temperature 0"),
        (["--seed", str(2**70)], 1, "no file or folder 'nowhere'"),
        (["--seed", "-1"], 1, "no file or folder 'nowhere'"),
        (["--seed", "x"], 2, "--seed: got 'x', wanted a whole number."),
    ],
)
def test_limits_that_mean_nothing_are_one_sentence(monkeypatch, capsys, words, code, sentence):
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)
    with pytest.raises(SystemExit) as exit_:
        raise SystemExit(cli.main(["generate", "nowhere", "what?", *words]))
    told = capsys.readouterr()
    assert exit_.value.code == code and sentence in told.err and told.err.count("\n") == 1 and not told.out


def test_a_seed_below_zero_draws_no_items(monkeypatch, capsys):
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)
    assert cli.main(["evaluate", "nowhere", "--seed", "-1"]) == 1
    assert capsys.readouterr().err == "xgenmm evaluate: --seed: got -1; give 0 or more.\n"
