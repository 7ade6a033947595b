"""The benchmark of reading from a URL runs, at toy size, and its rows are what they say they are."""

import pytest
from printed import numbers

from benchmarks import remote


@pytest.mark.slow
def test_reading_from_a_url_is_measured(made_once, capsys):
    assert remote.main([str(made_once), "--wanted", "20", "--epoch", "400", "--rounds", "1", "--workers", "1"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert "cores, load average" in head and ", commit " in head
    opened, _, rows, read, needed = lines[:5]
    assert numbers(opened[80:])[:1] == numbers(lines[1][80:])[:1] == [6] and numbers(rows[80:])[0] == 1
    requests, fetched = numbers(read[80:])[:2]
    chunks, stored, times, times_in_all = (*numbers(needed[:80]), *numbers(needed[80:])[:3])
    files, odd = divmod(requests - chunks, 2)  # of each one index, 36 bytes, and its receipt
    assert 5 <= chunks <= 9 and 3 <= files <= 5 and not odd and files * 36 < fetched - stored < files * (36 + 1000)
    assert times == round(fetched / stored, 4) < times_in_all < 2
    speeds = {line[:80].strip(): numbers(line[80:]) for line in lines[5:]}
    names = ["disk", "web", "web, 20 ms before each answer", "S3", "S3, 20 ms before each answer"]
    names.append("S3, 20 ms before each answer, cached by a former epoch")
    assert list(speeds) == [f"ECGLoader, {workers} workers: {name}" for workers in (0, 1) for name in names]
    assert all(speed[0] > 0 for speed in speeds.values())
