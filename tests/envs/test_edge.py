"""The edge environments: Gymnasium's checker, steps by hand, the published baselines, traces."""

import numpy as np
import pytest
import torch

from ornstein.envs import edge, trace
from ornstein.envs.make import make, spaces
from ornstein.envs.scheduler import provider_schedulers, queue_schedulers
from ornstein.envs.trace import Trace
from ornstein.envs.vector import Vector
from ornstein.evaluate import evaluate

IDS = (
    "EdgeProviders-v0", "EdgeProviders-v0?providers=5", "EdgeQueues-v0", "EdgeQueues-v0?indexed=true",
    "EdgeQueues-v0?indexed=true&scaled=true",
)  # fmt: skip


@pytest.mark.parametrize("name", IDS)
def test_gymnasiums_checker_is_content(name):
    import gymnasium
    from gymnasium.utils.env_checker import check_env

    env = make(name, flatten=False)
    assert isinstance(env, gymnasium.Env)
    check_env(env, skip_render_check=True)
    again = gymnasium.make(env.spec)  # pyright: ignore
    np.testing.assert_array_equal(again.reset(seed=3)[0], env.reset(seed=3)[0])


def providers(**columns: list[float]) -> edge.Providers:
    task = edge.Providers(5)
    task.begin({name: np.array(values, np.float64) for name, values in columns.items()})
    return task


def test_a_provider_serves_releases_and_crashes_by_hand():
    demand = [100.0, 100.0, 100.0, 250.0, 250.0]
    task = providers(arrival=[0.0, 10.0, 30.0, 40.0, 50.0], demand=demand, runtime=[40.0] * 5)
    task.table.capacity[:] = [300.0, 400.0, 500.0, 600.0, 900.0]
    task.free[:] = task.table.capacity
    quality = float(task.table.quality(100.0)[0])
    for free in (200.0, 100.0):
        assert task.assign(0) == (quality, {"crashed": False})
        assert task.free[0] == free
    assert task.assign(0).reward == quality
    assert task.free[0] == 100.0  # the task of time 0 was released at 40; the other two still run
    seen = task.observe()
    np.testing.assert_allclose(seen[:2], [300 / 900, 100 / 300])
    np.testing.assert_allclose(seen[-2:], [1.0, 40.0 / edge.runtime(250.0)])
    outcome = task.assign(0)  # 250 > 100, when the others are done by 30/40 and 10/40
    assert outcome.info == {"crashed": True}
    assert outcome.reward == pytest.approx(-2 - 2 * (0.25 + 0.75))
    assert task.free[0] == 300.0
    assert task.left() == 1
    task.assign(0)
    assert not task.left()
    np.testing.assert_array_equal(task.observe()[-2:], [0.0, 0.0])


def test_quality_is_a_ramp_by_hand():
    curves = edge.Table(*(np.array([x]) for x in (400.0, 50.0, 150.0, 0.6)))
    found = [float(curves.quality(t)[0]) for t in (49.0, 50.0, 100.0, 150.0, 250.0)]
    assert found == pytest.approx([0.0, 0.0, 0.3, 0.6, 0.6])
    assert edge.runtime(250.0) == pytest.approx(60 * (62.5 + 625 - 14))


def test_queues_by_hand():
    task = edge.Queues(indexed=True)
    assert task.capacity.tolist() == [50, 25, 18, 32, 28, 21, 50, 17, 44, 41]
    assert ((task.rate >= 400) & (task.rate <= 500)).all() and len(set(task.density)) == 100
    task.begin({"arrival": np.array([0.0, 0.5, 3.2]), "size": np.full(3, 20.0), "work": np.array([60.0, 5.0, 10.0])})
    np.testing.assert_allclose(task.observe(), [20, 60, *[0] * 10, 0, 0])
    assert task.assign(1).info["delay"] == pytest.approx(60 / 25 + 20 / task.rate[1])
    np.testing.assert_allclose(task.observe(), [20, 5, *[0] * 10, 0, 1])  # what the slot has sent is not seen
    assert task.assign(1).reward == pytest.approx(-(65 / 25 + 20 / task.rate[1]))
    task.backlog[2], expected = 0.0, [20, 10, 0, 0, *[0] * 8, 3, 0]  # 65 - 3 * 25 < 0
    np.testing.assert_allclose(task.observe(), expected)
    task.begin({"arrival": np.array([0.0, 1.0]), "size": np.ones(2), "work": np.array([60.0, 10.0])})
    task.assign(1)
    assert task.observe()[3] == pytest.approx(35.0)
    assert task.assign(1).info["delay"] == pytest.approx((35 + 10) / 25 + 1 / task.rate[1])


@pytest.mark.parametrize("slots", ["2.5", "0", "-3", "many"])
@pytest.mark.graph
def test_queues_need_a_whole_number_of_slots(slots):
    with pytest.raises(ValueError, match=rf"slots = {slots}: .*whole number of at least 1"):
        make(f"EdgeQueues-v0?slots={slots}")
    with pytest.raises(ValueError, match=r"providers = 2.5: .*whole number of at least 2"):
        make("EdgeProviders-v0?providers=2.5")


def test_generated_tasks_follow_their_laws():
    source = np.random.default_rng(0)
    tasks = edge.Providers(20).generate(source)
    assert tasks["arrival"][0] == 0 and (np.diff(tasks["arrival"]) >= 0).all() and tasks["arrival"][-1] <= 1e6
    assert 900 < len(tasks["arrival"]) < 1100
    assert set(tasks["demand"]) == set(range(100, 260, 10))
    served = edge.Queues().generate(source)
    slots, counts = np.unique(np.floor(served["arrival"]), return_counts=True)
    assert len(slots) == 100 and counts.min() >= 1 and counts.max() <= 100 and counts.std() > 20
    assert served["size"].min() >= 10 and served["size"].max() <= 40
    ratio = (served["work"] / served["size"])[np.floor(served["arrival"]) == 0]
    np.testing.assert_allclose(ratio, edge.Queues().density[: len(ratio)])


PROVIDERS = {
    20: {"random": (-136.8, 24.5), "round robin": (219.4, 18.0), "most available": (355.7, 12.0),
         "prophet": (557.9, 12.1)},
    5: {"random": (-38.7, 21.8), "round robin": (29.3, 14.0), "most available": (87.2, 6.6), "prophet": (117.0, 8.0)},
}  # fmt: skip
"""Returns measured on a copy of the official environment, and their spread over episodes (where it
gives none: that of this environment).
"""


QUEUES = {
    "random": (8.02, 1.47), "round robin": (6.89, 1.4), "largest": (203.6, 16.0), "greedy": (4.59, 0.3),
    "proportional": (1.24, 0.16), "optimum": (0.91, 0.10),
}  # fmt: skip
"""Mean delays in seconds, and spreads as above."""


def check_providers(n: int, names: set[str], episodes: int) -> None:
    for name in names:
        mean, spread = PROVIDERS[n][name]
        policy = provider_schedulers(edge.Providers(n))[name]
        found = evaluate(policy, f"EdgeProviders-v0?providers={n}", episodes=episodes, n_envs=episodes)
        assert np.mean(found.returns) == pytest.approx(mean, abs=spread), name
        assert all(found.terminals)


def check_queues(names: set[str], episodes: int) -> None:
    for name in names:
        mean, spread = QUEUES[name]
        policy = queue_schedulers(edge.Queues(indexed=True))[name]
        found = evaluate(policy, "EdgeQueues-v0?indexed=true", episodes=episodes, n_envs=episodes)
        delay = -sum(found.returns) / sum(found.lengths)
        assert delay == pytest.approx(mean, abs=spread), name
        assert not any(found.terminals)


def test_scaled_queues_are_the_same_queues_in_other_units():
    """Entries near one for random choices, and schedulers that know the units choose as before."""
    ids = [f"EdgeQueues-v0?slots=3&indexed=true&scaled={scaled}" for scaled in ("false", "true")]
    for name in ("greedy", "optimum"):
        returns = [
            evaluate(queue_schedulers(edge.Queues(3, True, scaled))[name], env, episodes=2).returns
            for scaled, env in zip((False, True), ids, strict=True)
        ]
        assert returns[0] == pytest.approx(returns[1], rel=1e-5)
    env, seen = make("EdgeQueues-v0?scaled=true&slots=20", flatten=False), []
    seen.append(env.reset(seed=0)[0])
    while not (found := env.step(len(seen) % 10))[3]:
        seen.append(found[0])
    assert np.abs(np.mean(seen, 0)[:2] - 1).max() < 0.2
    assert 0.05 < np.mean(seen, 0)[2:].mean() < 3.0


def test_scripted_providers_return_what_was_published():
    check_providers(5, set(PROVIDERS[5]), 6)


def test_scripted_queues_have_the_published_delays():
    check_queues({"proportional"}, 1)


@pytest.mark.slow
def test_every_published_baseline_is_met():
    check_providers(20, set(PROVIDERS[20]), 10)
    check_queues(set(QUEUES), 10)


def test_the_prophet_prefers_room_without_quality_to_a_crash_by_hand():
    """Five providers, the first two full: nobody who has room does a task of demand 20 well, provider 3 one of 150."""
    task = edge.Providers(5)
    capacity, free = task.table.capacity, np.array([0.0, 0.0, 1.0, 1.0, 1.0])
    for demand, best in ((20.0, 2), (150.0, 3)):
        quality = task.table.quality(demand)
        assert quality[1] == quality.max() > quality[3] >= 0 and (demand > 20.0 or not quality[2:].any())
        pairs = np.stack([capacity / 900, free], 1).reshape(-1)
        obs = torch.tensor(np.array([[*pairs, demand / 250, 0.5]]), dtype=torch.float32)
        assert provider_schedulers(task)["prophet"].act(obs, (), {})[0].argmax() == best


def test_choices_are_scores_at_the_boundary():
    env = make("EdgeProviders-v0?providers=5")
    sizes = spaces(env)
    assert (sizes.obs, sizes.act) == (12, 5)
    assert (sizes.action_low, sizes.action_high) == ((0.0,) * 5, (1.0,) * 5)
    for choice in range(5):
        env.reset(seed=0)
        env.step(np.eye(5, dtype=np.float32)[choice] * 0.2)
        assert [len(tasks) for tasks in env.unwrapped.simulation.running].index(1) == choice
    vector = Vector("CartPole-v1", 1)  # any discrete environment
    assert (vector.spaces.obs, vector.spaces.act) == (4, 2)
    vector.reset([0], [0])
    pushed = vector.step([0], np.array([[0.1, 0.9]])).obs[0, 1]
    vector.reset([0], [0])
    assert pushed > 0 > vector.step([0], np.array([[0.9, 0.1]])).obs[0, 1]


def tasks() -> Trace:
    arrival, count = np.array([0.0, 0.5, 2.0, 0.0, 1.0]), 5
    columns = {"demand": np.full(count, 100.0), "runtime": np.full(count, 9.0), "size": np.full(count, 20.0)}
    return Trace({"episode": np.array([0.0, 0, 0, 1, 1]), "arrival": arrival, "work": np.arange(5.0), **columns})


@pytest.mark.parametrize("suffix", [".csv", ".npz"])
def test_a_trace_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch, suffix):
    def full(file, *values, **columns):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numpy.savez_compressed", full)
    monkeypatch.setattr("numpy.savetxt", full)
    with pytest.raises(OSError, match="No space"):
        trace.write(tasks(), tmp_path / f"tasks{suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".csv", ".npz"])
def test_traces_drive_both_environments(tmp_path, suffix):
    path = tmp_path / f"tasks{suffix}"
    trace.write(tasks(), path)
    assert list(tmp_path.iterdir()) == [path]
    again = trace.read(path)
    assert len(again) == 2
    for name, column in tasks().columns.items():
        np.testing.assert_allclose(again.columns[name], column)
    for name in ("EdgeProviders-v0", "EdgeQueues-v0"):
        env = make(f"{name}?trace={path}")
        assert {env.reset(seed=s)[1]["episode"] for s in range(9)} == {0, 1}
        assert {make(f"{name}?trace={path}&first=1").reset(seed=s)[1]["episode"] for s in range(9)} == {1}
        assert env.reset(seed=0, options={"episode": 0})[1] == {"episode": 0}
        ended = [env.step(np.eye(env.action_space.shape[0])[1])[2:4] for _ in range(3)]
        assert [any(end) for end in ended] == [False, False, True]
        assert ended[-1] == ((True, False) if name == "EdgeProviders-v0" else (False, True))
        with pytest.raises(ValueError, match="over"):
            env.step(np.zeros(env.action_space.shape[0]))
    with pytest.raises(ValueError, match="episodes 0 to 1"):
        make(f"EdgeQueues-v0?trace={path}&first=2")


def test_bad_traces_are_refused_by_name(tmp_path):
    good = tasks().columns
    for change, told in (
        ({"arrival": good["arrival"][::-1]}, "arrival' falls at row 1"),
        ({"episode": good["episode"][::-1]}, "episode' falls at row 2"),
        ({"work": good["work"] - 1}, "'work', row 0"),
        ({"size": good["size"][:2]}, "one number per task"),
    ):
        with pytest.raises(ValueError, match=told):
            Trace({**good, **change})
    with pytest.raises(ValueError, match="needs 'arrival'"):
        Trace({"work": np.ones(2)})
    with pytest.raises(ValueError, match="no such trace"):
        make("EdgeQueues-v0?trace=nowhere.csv")
    (tmp_path / "bad.csv").write_text("arrival,size\n0,word\n")
    with pytest.raises(ValueError, match=r"bad.csv: .*docs/edge.md"):
        trace.read(tmp_path / "bad.csv")
    with pytest.raises(ValueError, match="no column 'demand'"):
        edge.environment(edge.Providers(), "EdgeProviders-v0", source=edge.Recorded(Trace({"arrival": np.zeros(2)})))


def test_files_of_other_programs_are_read(tmp_path):
    """A byte-order mark, lines without any value, and columns of words that nobody needs."""
    path = tmp_path / "tasks.csv"
    path.write_bytes(b"\xef\xbb\xbfarrival, kind,size\r\n0,gpu,20\r\n\r\n1.5,,30\r\n ,,\r\n\n")
    found = trace.read(path)
    assert {name: column.tolist() for name, column in found.columns.items()} == {"arrival": [0, 1.5], "size": [20, 30]}
    np.savez(tmp_path / "tasks.npz", arrival=np.array([0.0, 1.5]), kind=np.array(["gpu", ""]))
    assert list(trace.read(tmp_path / "tasks.npz").columns) == ["arrival"]


BROKEN = {
    "arrival,size\n0,20\n\n1\n": "line 4 has 1 value.* 2 columns",
    "arrival,size\n0,20,7\n": "line 2 has 3 values.* 2 columns",
    "arrival,size\n0,20\n1,word\n": "line 3: 'word' in column 'size' is no number",
    "arrival,size\n0,\n": "line 2: '' in column 'size' is no number",
    "": "empty",
    "\n\n": "empty",
    "arrival,size\n": "at least one task",
    "0,20\n1,30\n": "needs 'arrival'",
    "arrival,arrival\n0,1\n": "'arrival' twice",
}  # fmt: skip


@pytest.mark.parametrize(("text", "told"), BROKEN.items())
def test_broken_files_are_refused_by_name_and_line(tmp_path, text, told):
    path = tmp_path / "tasks.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"tasks.csv: .*{told}.*docs/edge.md"):
        trace.read(path)


def test_recordings_are_brought_to_the_generators_means():
    source = np.random.default_rng(0)
    n = 2500
    genai = {
        "arrival_s": np.sort(source.uniform(7, 9e5, n))[::-1], "exec_time_seconds": source.exponential(8.0, n),
        "num_inference_steps": source.integers(20, 40, n), "num_images_per_prompt": np.ones(n),
        "prompt_length": source.integers(1, 9, n),
    }  # fmt: skip
    genai["exec_time_seconds"][3] = np.nan
    found = trace.convert(genai, "genai", tasks=1000)
    assert len(found) == 2 and [len(part["arrival"]) for part in found] == [1000, 1000]
    assert found[1]["arrival"][0] == 0 and found[1]["arrival"][-1] == pytest.approx(1e6, rel=0.1)
    assert found.columns["demand"].mean() == pytest.approx(175, rel=0.05) and found.columns["demand"].max() <= 250
    assert found.columns["runtime"].mean() == pytest.approx(27_375, rel=0.05)
    llm = {"arrival_s": np.sort(source.uniform(0, 3600, n)), "context_tokens": source.integers(1, 4000, n),
           "generated_tokens": source.integers(1, 500, n)}  # fmt: skip
    served = trace.convert(llm, "llm", slots=10)
    assert len(served) == 4
    assert served.columns["size"].mean() == pytest.approx(25, rel=0.05)
    assert served.columns["work"].mean() == pytest.approx(5.12, rel=0.05)
    assert all(part["arrival"].max() < 10 and 400 < len(part["arrival"]) < 600 for part in served)
    env = edge.environment(edge.Queues(), "EdgeQueues-v0", source=edge.Recorded(served))
    assert env.reset(seed=0)[0].shape == (12,)
    with pytest.raises(ValueError, match="'context_tokens' is missing"):
        trace.convert(genai, "llm")
    for sizes in ({"tasks": 0}, {"tasks": -2}, {"slots": 0}):
        ((size, value),) = sizes.items()
        for recorded, kind in ((genai, "genai"), (llm, "llm")):
            with pytest.raises(ValueError, match=f"{size} = {value}.*at least 1"):
                trace.convert(recorded, kind, **sizes)
    with pytest.raises(ValueError, match="fewer than the 5000"):
        trace.convert(genai, "genai", tasks=5000)


def test_parquet_needs_its_package_and_says_so(tmp_path, monkeypatch):
    """In Python and on the command line, which writes what `convert` gives."""
    import sys

    from ornstein.cli.data import data

    recording = {"arrival_s": np.arange(300.0), "context_tokens": np.ones(300), "generated_tokens": np.ones(300)}
    words, out = ["trace", str(tmp_path / "x.parquet"), str(tmp_path / "x.csv"), "--kind", "llm"], tmp_path / "x.csv"
    with monkeypatch.context() as patch:
        patch.setattr(trace, "from_parquet", lambda path: recording)
        assert data([*words, "--slots", "2", "--load", "2"]).values["episodes"] == 1
    assert len(trace.read(out).columns["arrival"]) == 202
    with pytest.raises(ValueError, match="exists already"):
        data(words)
    out.unlink()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match="pyarrow: pip install"):
        data(words)
    assert not out.exists()


def test_schedulers_keep_their_memory_in_the_carry():
    robin = provider_schedulers(edge.Providers(3))["round robin"]
    turns, carry = [], robin.start(2)
    for _ in range(4):
        action, carry = robin.act(torch.zeros(2, 8), carry, {})
        turns.append(action.argmax(1).tolist())
    assert turns == [[0, 0], [1, 1], [2, 2], [0, 0]]
