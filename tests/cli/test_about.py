"""Help, lists, citations: what the command line says of itself and of the systems."""

import pytest
import torch

from ornstein.cli import COMMANDS, main
from recording import OWN


class TestHelp:
    def test_help_names_every_command(self, capsys):
        for words in ([], ["--help"], ["-h"], ["help"]):
            assert main(words) == 0
            out = capsys.readouterr().out
            assert all(name in out for name in COMMANDS)

    def test_version(self, capsys):
        assert main(["--version"]) == 0
        assert capsys.readouterr().out.startswith("ornstein 0.")

    @pytest.mark.parametrize("name", [name for name in COMMANDS if name != "data"])
    def test_each_command_has_help(self, name, capsys):
        assert main([name, "--help"]) == 0
        assert f"usage: ornstein {name}" in capsys.readouterr().out

    @pytest.mark.parametrize("name", ["info", "convert", "collect"])
    def test_each_data_command_has_help(self, name, capsys):
        assert main(["data", name, "--help"]) == 0
        assert f"usage: ornstein data {name}" in capsys.readouterr().out
        assert main(["data", "--help"]) == 0

    def test_training_help_shows_the_systems_own_settings(self, capsys):
        assert main(["train", "diffusion_ql", "--help"]) == 0
        out = capsys.readouterr().out
        assert "--eta" in out
        assert "weight of the Q term" in out
        assert "--resume" in out

    def test_help_is_a_json_object_too(self, call):
        assert "usage" in call("--help")[1]["help"]
        assert "usage" in call("eval", "--help")[1]["help"]


class TestAbout:
    def test_list(self, call, capsys):
        code, values, _ = call("list")
        assert code == 0
        assert {"diffuser", "diffusion_ql", "synther"} <= {system["name"] for system in values["systems"]}
        assert main(["list", "--tasks"]) == 0
        assert "hopper-medium (paper: 90.5 +- 4.6)" in capsys.readouterr().out

    def test_cite(self, call, capsys):
        code, values, _ = call("cite", "diffuser")
        assert (code, values["year"], values["arxiv"]) == (0, 2022, "2205.09991")
        assert main(["cite", "diffuser"]) == 0
        assert capsys.readouterr().out.startswith("@inproceedings{diffuser,")
        assert call("cite", OWN)[1]["year"] == 1988

    def test_doctor_names_what_is_missing_and_how_to_install_it(self, call, capsys, monkeypatch):
        from ornstein import doctor

        code, values, _ = call("doctor")
        assert code == 0
        assert values["packages"]["torch"] == torch.__version__
        assert values["torch"]["devices"][0]["name"] == "cpu"
        assert values["torch"]["threads"] == 1
        real = doctor.version
        monkeypatch.setattr(doctor, "version", lambda name: None if name in ("wandb", "safetensors") else real(name))
        code, values, _ = call("doctor")
        assert (code, values["ok"]) == (1, False)
        assert {"package": "wandb", "for": "wandb", "install": "pip install 'ornstein[wandb]'"} in values["missing"]
        assert main(["doctor"]) == 1
        out = capsys.readouterr().out
        assert "pip install 'ornstein[wandb]'" in out
        assert "safetensors          missing" in out

    def test_check_reports_each_contract_check(self, call):
        code, values, _ = call("check", OWN)
        assert (code, values["ok"], values["failed"]) == (0, True, 0)
        assert values["passed"] == len(values["checks"]) > 3
