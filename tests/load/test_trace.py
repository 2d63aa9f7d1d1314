from pathlib import Path

import pytest

from autotune.errors import ConfigError
from autotune.load.trace import TraceRow, read_trace, trace_rate_rps


def written(folder: Path, text: str, name: str = "trace.jsonl") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_rows_are_put_in_order_and_begin_at_zero(tmp_path: Path) -> None:
    rows = read_trace(
        written(
            tmp_path,
            '{"timestamp_s": 12.5, "input_tokens": 7, "output_tokens": 3}\n\n{"timestamp_s": 10, "x": 1}\n',
        )
    )
    assert rows == (TraceRow(0, None, None), TraceRow(2.5, 7, 3))
    assert trace_rate_rps(rows) == 0.4


def test_mooncakes_milliseconds_are_seconds(tmp_path: Path) -> None:
    text = (
        '{"timestamp": 0, "input_length": 6755, "output_length": 500, "hash_ids": [1]}\n'
        '{"timestamp": 3000, "input_length": 1, "output_length": 2}'
    )
    assert read_trace(written(tmp_path, text)) == (TraceRow(0, 6755, 500), TraceRow(3, 1, 2))
    milliseconds = '{"timestamp_ms": 5}\n{"timestamp_ms": 505}'
    assert read_trace(written(tmp_path, milliseconds, "ms.jsonl"))[1].at_s == pytest.approx(0.5)


def test_azures_dates_are_read_from_csv(tmp_path: Path) -> None:
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.500000,4808,10\n2023-11-16 18:15:50.000000,110,27\n"
    )
    assert read_trace(written(tmp_path, text, "azure.csv")) == (
        TraceRow(0, 4808, 10),
        TraceRow(3.5, 110, 27),
    )


def test_burstgpts_failed_requests_are_left_out(tmp_path: Path) -> None:
    text = (
        "Timestamp,Model,Request tokens,Response tokens\n5,ChatGPT,472,18\n45,ChatGPT,10,0\n118,GPT-4,9,8\n"
    )
    assert [row.at_s for row in read_trace(written(tmp_path, text, "burst.csv"))] == [0, 113]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"timestamp_s": 1}', "two requests or more"),
        ('{"timestamp_s": 1}\n{"timestamp_s": 1}', "at different times"),
        ('{"timestamp_s": 1}\n[2]', ":2: is not a JSON object"),
        ('{"timestamp_s": 1}\n{', ":2: is not a JSON object"),
        ('{"timestamp_s": 1}\n{"at": 3}', "has no timestamp"),
        ('{"timestamp_s": "soon"}', "neither seconds nor a date"),
        ('{"timestamp_s": 1, "input_tokens": 0}', "input_tokens is 0"),
        ("a,b\n1,2\n", ":2: has no timestamp"),
    ],
)
def test_a_trace_that_is_not_understood_names_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_trace(written(tmp_path, text))


def test_a_trace_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_trace(tmp_path / "none.csv")
