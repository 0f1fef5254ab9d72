"""Which parameters a folder holds."""

from xgenmm_jax.training.runs.fingerprints import of_model


def test_what_an_evaluation_writes_does_not_change_a_released_folder(tmp_path):
    """Its own predictions were refused the second time."""
    (tmp_path / "model.safetensors").write_bytes(b"123")
    before = of_model(tmp_path)
    (tmp_path / "evaluation" / "paper").mkdir(parents=True)
    (tmp_path / "evaluation" / "paper" / "pope.jsonl").write_text("{}\n")
    assert of_model(tmp_path) == before
    (tmp_path / "model.safetensors").write_bytes(b"1234")
    assert of_model(tmp_path) != before
