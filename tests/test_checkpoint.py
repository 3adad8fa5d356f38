"""Checkpoints: whole or absent, strict when read, plain when configured."""

import dataclasses
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import nn

from ornstein import checkpoint
from ornstein.source import Source
from ornstein.types import Adam, Spaces
from toys import Two, distance, weights


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def written(run: Path, step: int = 1, *, score: float | None = None, **options) -> Path:
    values = {} if score is None else {"score": score}
    torch.manual_seed(step)
    return checkpoint.write(
        run, step, config={"a": 1}, weights=Two().state_dict(), card={"step": step, "values": values}, **options
    )


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


# Configurations ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inner:
    size: int = 3


@dataclass(frozen=True)
class Mine:
    """A user's configuration, in a module outside of the package."""

    inner: Inner = Inner(4)
    adam: Adam = Adam(1e-3, betas=(0.5, 0.75))  # noqa: RUF009
    names: tuple[str, ...] = ("a", "b")
    nested: tuple[tuple[int, ...], ...] = ((1,), ())
    table: dict[str, float] = field(default_factory=lambda: {"x": 1e-300})
    flag: bool = True
    nothing: None = None


@dataclass(frozen=True)
class Needs:
    must: int


def test_configurations_come_back_equal():
    for value in (Mine(), dataclasses.replace(Mine(), flag=False, names=()), Mine(inner=Inner(9))):
        text = json.dumps(checkpoint.encode(value))
        assert checkpoint.decode(json.loads(text), Mine) == value
    assert checkpoint.decode(checkpoint.encode(Spaces(3, 2)), Spaces) == Spaces(3, 2)
    assert checkpoint.decode(checkpoint.encode(Adam(0.1))) == Adam(0.1)


def test_encoding_by_hand():
    assert checkpoint.encode(Adam(0.1))["$type"] == "ornstein.types:Adam"
    assert checkpoint.encode((1, (2.5, None), {"k": True})) == [1, [2.5, None], {"k": True}]


@pytest.mark.parametrize("value", [{1: 2}, {1, 2}, torch.zeros(1), Path("x"), Adam, len, 1j, b"x"], ids=str)
def test_values_that_are_not_plain_are_refused(value):
    with pytest.raises(ValueError, match="a configuration cannot hold"):
        checkpoint.encode(Mine(nothing=value))


def test_foreign_types_are_never_built():
    for name in ("os:system", "pathlib:Path", "subprocess:Popen", f"{__name__}:Mine"):
        with pytest.raises(ValueError, match=f"names the type '{name}'; only dataclasses of ornstein"):
            checkpoint.decode({"$type": name})
    with pytest.raises(ValueError, match="only dataclasses of ornstein"):
        checkpoint.decode(checkpoint.encode(Mine()) | {"inner": {"$type": "decimal:Decimal"}}, Mine)
    for name in ("ornstein.types:Nothing", "ornstein.nowhere:Config", "ornstein.types:Tensor", "ornstein.noise:draw"):
        with pytest.raises(ValueError, match="is no dataclass of this version of ornstein"):
            checkpoint.decode({"$type": name})


def test_dataclasses_beside_the_expected_one_are_known_under_any_module_name():
    """A user's file may have had another module name when it trained."""
    old = json.loads(json.dumps(checkpoint.encode(Mine())).replace(f'"{__name__}:', '"ornstein_user_mine:'))
    assert old["inner"]["$type"] == "ornstein_user_mine:Inner"
    assert checkpoint.decode(old, Mine) == Mine()


def test_unknown_and_missing_fields_are_named():
    with pytest.raises(ValueError, match="configuration of Adam has the unknown field 'momentum'; it knows lr, betas"):
        checkpoint.decode(checkpoint.encode(Adam(0.1)) | {"momentum": 0.9}, Adam)
    with pytest.raises(ValueError, match="configuration of Needs lacks the field 'must'"):
        checkpoint.decode({"$type": f"{__name__}:Needs"}, Needs)
    with pytest.raises(ValueError, match="expected a configuration of Adam, found"):
        checkpoint.decode([1, 2], Adam)
    younger = checkpoint.encode(Mine())
    del younger["flag"]
    assert checkpoint.decode(younger, Mine) == Mine()


# Writing -------------------------------------------------------------------------------------------------------------


def test_a_checkpoint_holds_its_files_and_reads_back(tmp_path):
    state = ({"m": torch.arange(3)}, {"stage": "x"})
    path = written(tmp_path, 7, state=state)
    assert sorted(p.name for p in path.iterdir()) == [
        "card.json", "config.json", "training_state.json", "training_state.safetensors", "weights.safetensors",
    ]  # fmt: skip
    saved = checkpoint.read(tmp_path)
    assert saved.path.resolve() == path.resolve()
    assert saved.config == {"format": 1, "a": 1}
    assert saved.card["step"] == 7
    torch.manual_seed(7)
    assert distance(saved.weights, weights(Two())) == 0.0
    assert checkpoint.read_tensors(path / "training_state.safetensors")["m"].tolist() == [0, 1, 2]


def test_the_newest_the_best_the_last_and_the_spared_are_kept(tmp_path):
    for step, score in enumerate([1.0, 9.0, 2.0, 3.0, 4.0], 1):
        written(tmp_path, step, score=score, keep=2, spare=(1,))
    assert names(tmp_path) == ["00000001", "00000002", "00000004", "00000005", "best", "last"]
    assert os.readlink(tmp_path / "checkpoints" / "best") == "00000002"
    written(tmp_path, 6, score=5.0, good=False)
    written(tmp_path, 7, score=5.0, good=False)
    assert os.readlink(tmp_path / "checkpoints" / "last") == "00000005"
    assert checkpoint.steps(tmp_path) == [2, 5, 6, 7]


def test_steps_are_ordered_as_numbers(tmp_path):
    for step in (99_999_999, 100_000_000, 100_000_001):
        written(tmp_path, step, keep=2)
    assert checkpoint.steps(tmp_path) == [100_000_000, 100_000_001]


def test_a_step_may_be_written_again(tmp_path):
    written(tmp_path, 5)
    path = written(tmp_path, 5, score=2.0)
    assert checkpoint.read_json(path / "card.json")["values"] == {"score": 2.0}
    assert names(tmp_path) == ["00000005", "best", "last"]


def test_rewinding_forgets_what_came_later(tmp_path):
    for step, score in ((1, 5.0), (2, 4.0), (3, 9.0)):
        written(tmp_path, step, score=score, keep=4)
    (tmp_path / "checkpoints" / ".00000004.1.tmp").mkdir()
    checkpoint.rewind(tmp_path, 2)
    assert names(tmp_path) == ["00000001", "00000002", "best", "last"]
    assert os.readlink(tmp_path / "checkpoints" / "best") == "00000001"
    assert os.readlink(tmp_path / "checkpoints" / "last") == "00000002"


def test_tensors_that_share_memory_are_stored_apart(tmp_path):
    base = torch.arange(6.0)
    path = checkpoint.write(
        tmp_path, 1, config={}, weights={"a": base, "b": base[2:4], "c": base.view(2, 3).t()}, card={}
    )
    found = checkpoint.read_tensors(path / "weights.safetensors")
    assert found["b"].tolist() == [2.0, 3.0]
    assert found["c"].tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]


def test_replacing_is_all_or_nothing(tmp_path):
    path = tmp_path / "x.json"
    checkpoint.write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), checkpoint.replacing(path) as temporary:
        temporary.write_text("{")
        raise RuntimeError
    assert checkpoint.read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_left_over_of_a_process_with_the_same_number_is_no_obstacle(tmp_path):
    """In a container every run may be process 1."""
    left = tmp_path / "checkpoints" / f".00000003.{os.getpid()}.tmp"
    left.mkdir(parents=True)
    (left / "weights.safetensors").write_bytes(b"half")
    written(tmp_path, 3)
    assert names(tmp_path) == ["00000003", "last"]


def test_files_are_on_the_disk_before_they_take_their_names(tmp_path, monkeypatch):
    synced: list[str] = []
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    monkeypatch.setattr(os, "replace", lambda a, b: (synced.append(f"move {Path(b).name}"), replace(a, b)))
    written(tmp_path, 3)
    moved = synced.index("move 00000003")
    assert {Path(name).name for name in synced[:moved]} == {"card.json", "config.json", "weights.safetensors"}


# Reading -------------------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_found_by_run_step_or_itself(tmp_path):
    paths = [written(tmp_path, step, keep=3, score=-step) for step in (1, 2, 3)]
    assert checkpoint.read(tmp_path).card["step"] == 3
    assert checkpoint.read(tmp_path, 2).card["step"] == 2
    assert checkpoint.read(tmp_path, "best").card["step"] == 1
    assert checkpoint.read(paths[1]).card["step"] == 2
    with pytest.raises(ValueError, match="no checkpoint '00000009' here; it has 1, 2, 3"):
        checkpoint.read(tmp_path, 9)
    with pytest.raises(ValueError, match="no checkpoint 'last' here; train into it first"):
        checkpoint.read(tmp_path / "none")
    (tmp_path / "many" / "seed-4").mkdir(parents=True)
    with pytest.raises(ValueError, match="it holds several seeds: name one of seed-4"):
        checkpoint.read(tmp_path / "many")


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"half"], ids=["empty", "zeros", "short"])
@pytest.mark.parametrize("file", ["weights.safetensors", "config.json", "card.json"])
def test_damaged_files_are_named(tmp_path, file, content):
    path = written(tmp_path)
    (path / file).write_bytes(content)
    kind = "safetensors" if file.endswith("safetensors") else "JSON"
    with pytest.raises(ValueError, match=f"{file}: not readable as {kind}"):
        checkpoint.read(tmp_path)
    (path / file).unlink()
    with pytest.raises(ValueError, match=file):
        checkpoint.read(tmp_path)


def test_truncated_weights_are_named(tmp_path):
    file = written(tmp_path) / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"weights.safetensors: not readable as safetensors"):
        checkpoint.read(tmp_path)


def test_other_formats_are_refused_by_name(tmp_path):
    file = written(tmp_path) / "config.json"
    file.write_text('{"format": 2}')
    with pytest.raises(ValueError, match="format 2 is newer than 1, the newest that this version reads; upgrade"):
        checkpoint.read(tmp_path)
    for text in ("{}", '{"format": "one"}', '{"format": 0}'):
        file.write_text(text)
        with pytest.raises(ValueError, match="is no configuration of a checkpoint"):
            checkpoint.read(tmp_path)
    file.write_text("[1]")
    with pytest.raises(ValueError, match=r"config.json: holds list, expected a JSON object"):
        checkpoint.read(tmp_path)


def test_restoring_is_strict_and_changes_nothing_before_it_is_sure():
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    before = weights(module)
    good = {name: torch.zeros_like(tensor) for name, tensor in before.items()}
    cases = {
        "tensor '1.bias' is missing \\(2 in all\\)": {
            name: tensor for name, tensor in good.items() if name not in ("1.bias", "1.weight")
        },
        "tensor 'extra' is unknown \\(1 in all\\)": good | {"extra": torch.zeros(1)},
        "tensor '0.weight' has shape \\(3, 3\\) of float32, expected shape \\(3, 2\\) of float32; the": good
        | {"0.weight": torch.zeros(3, 3)},
        "tensor '0.bias' has shape \\(3,\\) of float64, expected shape \\(3,\\) of float32": good
        | {"0.bias": torch.zeros(3, dtype=torch.float64)},
    }
    for message, bad in cases.items():
        with pytest.raises(ValueError, match=f"file.safetensors: {message}"):
            checkpoint.restore(module, bad, "file.safetensors")
        assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    checkpoint.restore(module, good, "file.safetensors")
    assert all(not tensor.any() for tensor in module.state_dict().values())


def test_restoring_is_bit_for_bit():
    odd = torch.tensor([0.0, -0.0, 1e-45, float("inf"), float("nan"), 1 / 3])
    module = nn.Module()
    module.register_buffer("x", torch.zeros(6))
    checkpoint.restore(module, {"x": odd}, "file")
    assert module.x.view(torch.int32).tolist() == odd.view(torch.int32).tolist()


def test_a_users_dataclass_is_found_in_its_module():
    assert sys.modules[Mine.__module__].Mine is Mine
    assert checkpoint.decode(checkpoint.encode(Source("a", "b", 1, "c"))) == Source("a", "b", 1, "c")
