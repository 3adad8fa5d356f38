"""The committed rows are those that today's code would make."""

from pathlib import Path

from ornstein import checkpoint
from ornstein.bench import plan, rows
from ornstein.bench.arm import configured, read

PLACE = Path(__file__).parents[2] / "results" / "bench"
COMMAND = "ornstein bench --recipe replay-cpu --workers 2 --out results/bench"


def job(row: rows.Row) -> plan.Job:
    """What would make a row today; the row says which data it is of, so that no file of them is needed."""
    arm = read(row["arm"])
    return plan.Job(
        arm=arm.name,
        system=arm.system,
        preset=row["preset"],
        config=plan.settings(configured(arm, row["preset"])[1]),
        data=row["data"],
        place="",
        data_hash=row["data_hash"],
        env=row["env"],
        seed=row["seed"],
        steps=row["asked_steps"],
        protocol=row["protocol"],
        code=plan.code_of(arm.system),
    )


def test_every_committed_row_has_the_configuration_that_its_preset_has_today():
    """A changed default or a new setting makes other rows: published numbers would silently be those of old code."""
    stale = sorted({row["arm"] for row in rows.read(PLACE / "rows.jsonl") if job(row).key != rows.key(row)})
    assert not stale, f"results/bench/rows.jsonl: stale rows of {', '.join(stale)}; make them anew with: {COMMAND}"


def test_the_committed_plan_names_the_committed_rows():
    """Else a report leaves rows out as not the newest, or calls them missing."""
    wanted = checkpoint.read_json(PLACE / "plan.json")
    assert COMMAND in wanted["commands"]
    made = {rows.key(row) for row in rows.read(PLACE / "rows.jsonl")}
    assert made == {rows.key(row) for row in wanted["rows"]}
