"""Limits of pyproject.toml: each with its reason, and no longer than it says."""

import datetime

import pytest

from perfgate.judge.limits import CPU_LIMITS, LimitsError, LimitTable, read_rules
from perfgate.judge.parse import parse_benchmark
from tests.perfgate.measurements import measurement

TODAY = datetime.date(2026, 11, 24)


def rules(tmp_path, text):
    path = tmp_path / "pyproject.toml"
    path.write_text(text)
    return read_rules(path, TODAY)


def entry(**fields):
    lines = "\n".join(f"{key} = {value}" for key, value in fields.items())
    return f"[[tool.perfgate.limits]]\n{lines}\n"


def test_the_last_entry_that_fits_counts(tmp_path):
    text = entry(implementation='"mlp"', visible=0.3, reason='"noisy"')
    text += entry(group='"reference *"', ratio=0.05, reason='"so it is"')
    text += entry(benchmark='"*other*"', ratio=0.9, reason='"another one"')
    limits = LimitTable(CPU_LIMITS, rules(tmp_path, text))(measurement(group="reference forward"))
    assert (limits.visible, limits.ratio) == (0.3, 0.05)
    assert limits.absolute == CPU_LIMITS.absolute


def test_the_table_has_an_earlier_name(tmp_path):
    text = entry(benchmark='"*"', ratio=0.07, reason='"so it is"')
    earlier = rules(tmp_path, text.replace("perfgate", "kan_impls"))
    assert earlier == rules(tmp_path, text)


@pytest.mark.parametrize(("key", "visible"), [("cpu_x", 0.3), ("cuda_x", CPU_LIMITS.visible)])
def test_a_limit_may_be_that_of_some_devices(tmp_path, key, visible):
    text = entry(device='"cpu_*"', visible=0.3, reason='"a shared machine"')
    assert LimitTable(CPU_LIMITS, rules(tmp_path, text), key)(measurement()).visible == visible


def test_all_patterns_of_an_entry_must_fit(tmp_path):
    text = entry(implementation='"mlp"', group='"growth *"', visible=0.3, reason='"noisy"')
    found = LimitTable(CPU_LIMITS, rules(tmp_path, text))(measurement(group="reference forward"))
    assert found == CPU_LIMITS


def test_a_group_is_the_heading_that_users_see(tmp_path):
    text = entry(group='"Linear *"', visible=0.3, reason='"noisy"')
    table = LimitTable(CPU_LIMITS, rules(tmp_path, text))
    handed = {"fullname": "a", "group": "Linear forward", "stats": {"median": 1.0, "rounds": 5}}
    assert table(parse_benchmark(handed)).visible == 0.3
    assert table(parse_benchmark({**handed, "group": None})) == CPU_LIMITS


def test_an_entry_that_fits_nothing_is_found(tmp_path):
    text = entry(implementation='"mlp"', visible=0.3, reason='"fits"')
    text += entry(implementation='"mpl"', visible=0.3, reason='"mistyped"')
    text += entry(device='"cuda_*"', visible=0.3, reason='"of another device"')
    table = LimitTable(CPU_LIMITS, rules(tmp_path, text), "cpu_x")
    assert [rule.reason for rule in table.idle([measurement()])] == ["mistyped"]


def test_an_entry_counts_until_the_day_before_it_expires(tmp_path):
    fields = {"implementation": '"mlp"', "visible": 0.3, "reason": '"a driver"'}
    assert rules(tmp_path, entry(**fields, expires="2026-11-25"))
    with pytest.raises(LimitsError, match=r"limits 1 expired on 2026-11-24 \(a driver\)"):
        rules(tmp_path, entry(**fields, expires="2026-11-24"))


@pytest.mark.parametrize(
    "text",
    ["tool = 1", "[tool]\nperfgate = []", "[tool.perfgate]\nlimits = 1", "x = " + "[" * 9999],
)
def test_a_table_of_another_kind_is_an_error(tmp_path, text):
    with pytest.raises(LimitsError, match="expected"):
        rules(tmp_path, text)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"visible": 0.3}, "reason is None; expected a sentence"),
        ({"visible": 0.3, "reason": '"  "'}, "reason is '  '"),
        ({"visable": 0.3, "reason": '"x"'}, "visable is no key of a limit; expected some of"),
        ({"visible": -1, "reason": '"x"'}, "visible is -1; expected a fraction"),
        ({"visible": "1" + "0" * 400, "reason": '"x"'}, "expected a fraction"),
        ({"visible": "true", "reason": '"x"'}, "visible is True"),
        ({"memory_bytes": 1.5, "reason": '"x"'}, "expected a whole number of bytes"),
        ({"reason": '"x"'}, "limits nothing"),
        ({"visible": 0.3, "reason": '"x"', "expires": '"soon"'}, "expected a date"),
        ({"visible": 0.3, "reason": '"x"', "implementation": 3}, "expected a pattern"),
    ],
)
def test_an_entry_that_cannot_be_meant_is_an_error(tmp_path, fields, message):
    with pytest.raises(LimitsError, match=message.replace("(", r"\(")):
        rules(tmp_path, entry(**{"implementation": '"mlp"', **fields}))


def test_an_entry_that_selects_nothing_is_an_error(tmp_path):
    with pytest.raises(LimitsError, match="selects nothing"):
        rules(tmp_path, entry(visible=0.3, reason='"x"'))


@pytest.mark.parametrize("text", ["[tool.perfgate]\nlimits = 3", "[tool.perfgate.limits]\na = 1"])
def test_another_shape_is_an_error(tmp_path, text):
    with pytest.raises(LimitsError, match="array of tables"):
        rules(tmp_path, text)


def test_damaged_toml_is_an_error(tmp_path):
    with pytest.raises(LimitsError, match="expected TOML"):
        rules(tmp_path, "[tool")


def test_no_file_is_no_rule(tmp_path):
    assert read_rules(tmp_path / "pyproject.toml") == []
