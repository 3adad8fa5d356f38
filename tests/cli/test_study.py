"""`ornstein study`: what it refuses; `tests/studies` have what the studies find."""


def test_a_study_needs_a_name_and_a_seed(refused, tmp_path):
    out = tmp_path / "studies"
    assert "--seeds 0" in refused("study", "expressiveness", "--seeds", 0, "--quick", "--out", out)
    assert "--seeds -1" in refused("study", "noise_schedule", "--seeds=-1", "--quick", "--out", out)
    assert "did you mean expressiveness" in refused("study", "expresiveness", "--out", out)
    assert not out.exists()
