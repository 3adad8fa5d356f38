"""The report: what is compared, what is a gap, and pages that stand alone."""

import json
import re
import shutil

import numpy as np
import pytest

from bench.kill import OWN, recording
from ornstein.bench import figures, tables
from ornstein.bench.compared import compare
from ornstein.bench.page import Section, Table, markdown, page
from ornstein.bench.rows import append
from ornstein.cli import main
from ornstein.envs import scores

ARMS = ("td3_bc", "diffusion_ql:fast", "idql")
DATA = {"hopper-replay": "Hopper-v5", "walker2d-replay": "Walker2d-v5"}


def row(arm, data, seed, value, **changes):
    """A row as the bench writes it."""
    env = DATA.get(data, "Pendulum-v1")
    known = scores.family(env) is not None
    return {
        "arm": arm, "system": arm.partition(":")[0], "preset": "fast", "config_hash": f"{arm}{data}", "data": data,
        "data_hash": "d", "env": env, "versions": {"gymnasium": "1.4.0", "mujoco": "4.0.0"},
        "protocol": {"episodes": 20, "max_steps": None, "score_every": 0, "fqe": 0, "eval_seed": "1000 + seed"},
        "seed": seed, "steps": 100, "asked_steps": 100, "total_steps": 100, "return_mean": value, "return_std": 1.0,
        "score": float(scores.score(env, value)) if known else None, "act_ms_median": 1.0, "train_seconds": 2.0,
        "eval_seconds": 1.0, "device": "cpu", "torch": "2", "ornstein": "0", "run": f"runs/{arm}/{data}/{seed}",
    } | changes  # fmt: skip


def rows(*, without=(), **changes):
    """Rows of three arms on two sets with three seeds; later arms are better by 100 each."""
    return [
        row(arm, data, seed, 500.0 + 100 * i + 10 * seed, **changes)
        for data in DATA
        for seed in range(3)
        for i, arm in enumerate(ARMS)
        if (arm, data, seed) not in without
    ]


@pytest.fixture
def folder(tmp_path):
    """A bench's directory with rows, estimates, best evaluations and metrics; one row is missing."""
    for one in rows(without=[("idql", "walker2d-replay", 1)]):
        run = tmp_path / one["run"]
        run.mkdir(parents=True)
        lines = [{"step": k, "actor/loss": 1 / k, "score": one["return_mean"] - 100 / k} for k in (1, 2, 4)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        more = {"best_return_mean": one["return_mean"] + 5, "fqe": one["return_mean"] / 3}
        append(tmp_path / "rows.jsonl", one | more)
    return tmp_path


class TestCompared:
    def test_gaps_are_named_and_never_averaged_over(self):
        gone = [("idql", "hopper-replay", 2), *(("td3_bc", "walker2d-replay", seed) for seed in range(3))]
        found = compare(rows(without=gone))
        assert found.missing == ("idql on hopper-replay: seed 2", "td3_bc on walker2d-replay: all seeds")
        assert tables.aggregate(found, "idql", 10) is None and tables.aggregate(found, "td3_bc", 10) is None
        assert tables.aggregate(found, "diffusion_ql:fast", 10) is not None
        cells = {line[0]: line[1:] for line in tables.by_data(found, 10).rows}
        assert cells["td3_bc"][1] == "-" and cells["idql"][0].endswith("2 of 3 seeds")

    def test_what_was_planned_and_is_not_there_is_missing(self):
        wanted = [{"arm": "edp", "data": "hopper-replay", "seed": 0, "config_hash": "e", "asked_steps": 100}]
        found = compare(rows(), wanted)
        assert found.arms == (*ARMS, "edp")
        assert "edp on hopper-replay: all seeds" in found.missing

    def test_rows_of_an_older_configuration_are_left_out_and_named(self):
        older = [row("idql", "hopper-replay", seed, 9e9, config_hash="older123") for seed in range(5)]
        found = compare([*older, *rows()])
        assert found.seeds == (0, 1, 2)
        assert found.left_out == ("idql on hopper-replay, configuration older123: seeds 0, 1, 2, 3, 4",)
        assert found.values("idql", "hopper-replay").max() < 100

    def test_rows_of_other_data_under_the_same_name_are_left_out_of_every_system(self):
        """A newer file of the same name: two systems have rows on it, the third only on the older one."""
        newer = {"data_hash": "99ffee00dd", "config_hash": "newer"}
        some = [row(arm, "hopper-replay", seed, 900.0, **newer) for arm in ARMS[:2] for seed in range(3)]
        older = rows(data_hash="1a2b3c4d5e")
        found = compare([*older, *some])
        assert found.left_out == tuple(f"{arm} on hopper-replay, other data 1a2b3c4d: seeds 0, 1, 2" for arm in ARMS)
        assert found.missing == ("idql on hopper-replay: all seeds",)
        assert {one["data_hash"] for one in found.on("hopper-replay")} == {"99ffee00dd"}
        assert found.complete("idql", ["walker2d-replay"])

    def test_rows_of_another_environment_are_left_out_and_named(self):
        older = row("idql", "hopper-replay", 0, 500.0, env="Hopper-v4", config_hash="v4")
        found = compare([older, *rows(without=[("idql", "hopper-replay", 0)])])
        assert found.left_out == ("idql on hopper-replay, other environment Hopper-v4: seed 0",)
        assert found.missing == ("idql on hopper-replay: seed 0",)

    def test_the_data_that_were_asked_for_last_count(self):
        one, two = ({"data_hash": name, "config_hash": name} for name in ("first", "second"))
        made = [row("idql", "own", 0, 1.0, **one), row("idql", "own", 0, 2.0, **two)]
        asked = {"arm": "idql", "data": "own", "seed": 0, "asked_steps": 100, "env": "Pendulum-v1"}
        assert compare(made).values("idql", "own") == [2.0]
        assert compare(made, [asked | two, asked | one]).values("idql", "own") == [1.0]
        third = compare(made, [asked | {"data_hash": "third", "config_hash": "third"}])
        assert third.missing == ("idql on own: all seeds",) and len(third.left_out) == 2

    def test_plans_that_name_no_data_are_read_by_their_hashes(self):
        one, two = ({"data_hash": name, "config_hash": name} for name in ("first", "second"))
        made = [row("idql", "own", 0, 1.0, **one), row("idql", "own", 0, 2.0, **two)]
        asked = {"arm": "idql", "data": "own", "seed": 0, "asked_steps": 100}
        assert compare(made, [asked | {"config_hash": "first"}]).values("idql", "own") == [1.0]
        other = asked | {"arm": "edp", "config_hash": "never made"}
        assert compare(made, [other]).missing == ("edp on own: all seeds",)
        assert "idql on elsewhere: all seeds" in compare(made, [other | {"data": "elsewhere"}]).missing

    def test_the_same_system_with_other_steps_is_another_arm(self):
        found = compare([*rows(), row("idql", "hopper-replay", 0, 1.0, asked_steps=7, config_hash="x")])
        assert {"idql (100 steps)", "idql (7 steps)"} < set(found.arms)

    def test_data_without_scores_are_compared_by_return_and_left_out_of_means(self):
        found = compare([*rows(), *(row(arm, "own", seed, 7.0 + seed) for arm in ARMS for seed in range(3))])
        assert found.unit("own") == "return" and found.scored() == tuple(DATA)
        assert found.values("idql", "own").tolist() == [7.0, 8.0, 9.0]


class TestNumbers:
    def test_means_improvement_and_differences_by_hand(self):
        found = compare(rows())
        mean, middle = tables.aggregate(found, "td3_bc", 200)
        by_hand = [scores.score(env, np.array([500.0, 510.0, 520.0])) for env in DATA.values()]
        assert mean.estimate == pytest.approx(np.mean(by_hand))
        assert middle.estimate == pytest.approx(np.sort(np.concatenate(by_hand))[1:-1].mean())
        assert tables.improvement(found, "idql", "td3_bc", 50) == (1.0, 1.0, 1.0)
        assert tables.improvement(found, "td3_bc", "idql", 50) == (0.0, 0.0, 0.0)
        apart = tables.difference(found, "idql", "td3_bc", 50)
        shift = np.mean([100 * 200 / (r.expert - r.random) for r in map(scores.reference, DATA.values())])
        assert apart == pytest.approx((shift, shift, shift))

    def test_one_seed_has_no_interval_in_any_table(self):
        one, several = compare([line for line in rows() if line["seed"] == 0]), compare(rows())
        for table in (tables.by_data, tables.overall, tables.paired):
            more = () if table is tables.by_data else ("td3_bc",)
            for line in table(one, *more, 50).rows:
                assert not any("[" in cell for cell in line), line
            assert all("[" in cell or cell == "-" for line in table(several, *more, 50).rows for cell in line[1:])
        assert tables.improvement(one, "idql", "td3_bc", 50) == (1.0, None, None)
        assert tables.difference(one, "idql", "td3_bc", 50)[1:] == (None, None)
        assert all(value[1:] == (None, None) for value in tables.aggregate(one, "idql", 50))

    def test_a_single_run_on_one_of_several_data_sets_has_none_there(self):
        found = compare(rows(without=[(arm, "hopper-replay", seed) for arm in ARMS for seed in (1, 2)]))
        cells = dict(zip(found.data, tables.by_data(found, 50).rows[0][1:], strict=True))
        assert "[" not in cells["hopper-replay"] and "[" in cells["walker2d-replay"]

    def test_pictures_of_one_seed_have_dots_without_bars(self, tmp_path, monkeypatch):
        drawn = {}

        def draw(values, order, out, **labels):
            drawn[out.name] = values
            return out

        def bars(some):
            drawn.clear()
            notes = [figure.note for figure in figures.overall(some, "td3_bc", 50, tmp_path)]
            notes += [figure.note for figure in figures.by_data(some, 50, tmp_path)]
            assert {"mean.png", "iqm.png", "improvement.png", "final-hopper-replay.png"} <= drawn.keys()
            reach = [value for values in drawn.values() for value in values.values()]
            assert all(np.isfinite(value.estimate) for value in reach)
            assert len({np.isfinite(value.low) for value in reach} | {np.isfinite(value.high) for value in reach}) == 1
            return np.isfinite(reach[0].low), " ".join(notes)

        monkeypatch.setattr(figures.view, "draw_intervals", draw)
        one, told_of_one = bars(compare([line for line in rows() if line["seed"] == 0]))
        several, told_of_several = bars(compare(rows()))
        assert several and "95 %" in told_of_several and "single run" not in told_of_several
        assert not one and "95 %" not in told_of_one and "single run" in told_of_one

    def test_steps_are_those_of_all_stages_and_named_by_system(self):
        totals = {"td3_bc": 100, "diffusion_ql:fast": 3000, "idql": None}
        some = [line | {"total_steps": totals[line["arm"]]} for line in rows()]
        some[0]["total_steps"] = 50
        told = {line[0]: line[1] for line in tables.costs(compare(some)).rows}
        assert told == {"td3_bc": "50, 100", "diffusion_ql:fast": "3,000", "idql": "-"}
        assert "per stage" in tables.costs(compare(some)).note

    def test_the_best_stands_first_and_what_lacks_rows_last(self):
        found = compare(rows(without=[("diffusion_ql:fast", "hopper-replay", 0)]))
        names = [line[0] for line in tables.overall(found, "td3_bc", 50).rows]
        assert names == ["idql", "td3_bc", "diffusion_ql:fast"]

    def test_pairs_are_those_of_equal_seeds(self):
        found = compare(rows(without=[("td3_bc", "hopper-replay", 0), ("idql", "hopper-replay", 2)]))
        reach = scores.reference("hopper")
        difference = found.differences("idql", "td3_bc", "hopper-replay")
        assert difference == pytest.approx([200 * 100 / (reach.expert - reach.random)])

    def test_the_note_says_over_which_data_sets_each_column_goes(self):
        found = compare([*rows(), *(row(arm, "own", seed, 7.0 + seed) for arm in ARMS for seed in range(3))])
        note = tables.overall(found, "td3_bc", 50).note
        assert "Scores over hopper-replay, walker2d-replay:" in note
        assert "P, over all data sets (hopper-replay, walker2d-replay, own):" in note

    def test_ranks_of_estimates_and_the_regret_of_choosing_by_them(self):
        some = rows()
        for one in some:
            one["fqe"] = -one["return_mean"]
        table = tables.chosen(compare(some))
        assert table is not None
        assert table.rows[0] == ("hopper-replay", "9", "-1.00", "-1.00", "220.0")
        assert tables.chosen(compare(rows())) is None


class TestReport:
    def test_page_markdown_and_pictures_stand_alone(self, folder, capsys):
        out = folder / "elsewhere"
        words = ["report", str(folder), "--out", str(out), "--reference", "td3_bc", "--resamples", "50", "--json"]
        assert main(words) == 0, capsys.readouterr().err
        found = json.loads(capsys.readouterr().out)
        html, text = (out / "report.html").read_text(), (out / "report.md").read_text()
        assert found["missing"] == ["idql on walker2d-replay: seed 1"]
        assert found["overall"]["systems"]["idql"]["mean"] is None
        assert found["overall"]["systems"]["diffusion_ql:fast"]["improvement"]["estimate"] == 1.0
        assert found["overall"]["fqe_mean"] == pytest.approx(1.0)
        assert not re.search(r'(src|href)="(?!data:|#)', html) and "<script" not in html and "url(" not in html
        assert html.count("<img") == len(found["figures"]) == 10
        command = f"ornstein report {folder} --out {out}"
        assert html.count(command) == text.count(command) == 1 + 10 + len(found["tables"])
        assert all((out / name).exists() for name in re.findall(r"\]\((figures/[^)]+)\)", text))
        assert "idql on walker2d-replay: seed 1" in html and "NOT comparable" in html
        assert 'name="viewport"' in html and "prefers-color-scheme: dark" in html
        assert not list(out.glob(".*"))

    def test_the_same_rows_give_the_same_report(self, folder):
        texts = []
        for name in ("a", "b"):
            assert main(["report", str(folder), "--out", str(folder / name), "--resamples", "20"]) == 0
            texts.append((folder / name / "report.md").read_text().replace(str(folder / name), ""))
        assert texts[0] == texts[1]

    def test_what_is_left_out_is_told_and_a_report_without_any_row_left_is_written(self, folder, capsys):
        asked = [
            {key: one[key] for key in ("arm", "data", "seed", "asked_steps", "env")}
            | {"data_hash": "99ffee", "config_hash": "new"}
            for one in rows()
        ]
        (folder / "plan.json").write_text(json.dumps({"commands": [], "rows": asked}))
        assert main(["report", str(folder), "--resamples", "20", "--json"]) == 0, capsys.readouterr().err
        assert len(json.loads(capsys.readouterr().out)["left_out"]) == 6
        told = (folder / "report" / "report.md").read_text()
        assert "left out, not the newest: idql on walker2d-replay, other data d: seeds 0, 2" in told
        assert "td3_bc on hopper-replay: all seeds" in told

    def test_slips_are_told(self, folder, tmp_path, capsys):
        assert main(["report", str(folder), "--reference", "nobody"]) == 2
        assert "not among the systems" in capsys.readouterr().err
        empty = tmp_path / "empty"
        empty.mkdir()
        assert main(["report", str(empty)]) == 2
        assert "no rows.jsonl" in capsys.readouterr().err
        (empty / "rows.jsonl").touch()
        assert main(["report", str(empty)]) == 2
        assert "no rows" in capsys.readouterr().err
        assert not (folder / "report").exists()

    def test_a_small_bench_is_reported_without_scores_and_with_loss_curves(self, tmp_path, capsys):
        data, out = recording(tmp_path / "own data.npz", 0), str(tmp_path / "out")
        small = ["--env", "Pendulum-v1", "--seeds", "1", "--steps", "3", "--episodes", "1", "--max-steps", "3"]
        assert main(["bench", OWN, "--data", data, *small, "--out", out, "--json"]) == 0
        assert main(["report", out, "--resamples", "10", "--json"]) == 0
        found = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert {name.rpartition("/")[2] for name in found["figures"]} == {"final-own_data.png", "loss-own_system.png"}
        told = (tmp_path / "out" / "report" / "report.md").read_text()
        assert "rows made by: ornstein bench" in told and "gradient steps: 3 per stage" in told
        assert "Data sets without reference returns (own data) are compared by return, each for itself." in told
        assert "Over all data sets" not in found["tables"] and "over no data set" not in told
        assert found["tables"]["Steps and times"][1][:2] == ["own_system", "3"]

    def test_why_there_is_no_learning_curve_is_told_with_what_would_give_one(self, folder, capsys):
        def told():
            assert main(["report", str(folder), "--resamples", "10"]) == 0
            return (folder / "report" / "report.md").read_text()

        assert "No return during training" not in told()
        shutil.rmtree(folder / "runs")
        assert "it was not measured; ornstein bench --score-every N does so" in told()
        measured = {"protocol": rows()[0]["protocol"] | {"score_every": 2}}
        (folder / "rows.jsonl").unlink()
        for one in rows(**measured):
            append(folder / "rows.jsonl", one)
        assert f"it was measured, but {folder / 'runs'} lacks the metrics" in told()

    @pytest.mark.parametrize(
        ("codes", "told"),
        [
            (["aa"], ""),
            ([None], "18 rows of code that they do not name: compare with care"),
            (["bb", "aa"], "rows of 2 versions of the code (aa, bb): compare with care"),
            (["aa", None], "rows of 1 version of the code (aa) and 9 of code that they do not name: compare with care"),
        ],
    )
    def test_rows_of_several_codes_are_told(self, tmp_path, codes, told):
        for i, one in enumerate(rows()):
            code = codes[i % len(codes)]
            append(tmp_path / "rows.jsonl", one | ({"code": code} if code else {}))
        assert main(["report", str(tmp_path), "--resamples", "10"]) == 0
        text = (tmp_path / "report" / "report.md").read_text()
        assert (told in text) if told else ("of the code" not in text)


def test_text_is_escaped_and_cells_break(tmp_path):
    sections = [Section("S", tables=(Table("T", "note <b>", ("a", "b"), (("x|y<z", "1.0\n[0.5, 1.5]"),)),))]
    html, text = page("P&Q", sections, "run <it>"), markdown("P", sections, "run", tmp_path)
    assert "x|y&lt;z" in html and "note &lt;b&gt;" in html and "P&amp;Q" in html and "run &lt;it&gt;" in html
    assert "<td>1.0<small>[0.5, 1.5]</small></td>" in html
    assert "| x\\|y<z | 1.0 [0.5, 1.5] |" in text
