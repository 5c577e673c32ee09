"""Figures with their units, exact where they are counted."""

import pytest

from prunit.units import bytes_of_text, written


@pytest.mark.parametrize(
    ("value", "figure", "text"),
    [
        (0, "params", "0 params"),
        (271_450, "params", "271,450 params"),
        (40_551_808.0, "macs", "40,551,808 macs"),
        (512, "weight_bytes", "512 B"),
        (1_000, "weight_bytes", "1 KB"),
        (1_003, "activation_bytes", "1.003 KB"),
        (65_536, "activation_bytes", "65.536 KB"),
        (1_000_040, "weight_bytes", "1.00004 MB"),
        (12_500_000_000, "weight_bytes", "12.5 GB"),
        (0.4123, "latency_ms", "0.412 ms"),
        (1.5, "energy_mj", "1.5 mJ"),
    ],
)
def test_a_figure_is_written_with_its_unit(value: float, figure: str, text: str) -> None:
    assert written(value, figure) == text


@pytest.mark.parametrize("value", [1, 999, 1_000, 65_536, 1_234_567, 10**9 + 1])
def test_bytes_read_back_as_they_were(value: int) -> None:
    assert bytes_of_text(written(value, "weight_bytes")) == value
