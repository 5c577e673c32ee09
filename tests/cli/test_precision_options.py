"""`--precision` and `--max-drop`: for all variants, for single ones, over a file's settings."""

from pathlib import Path
from typing import Any

import pytest

from prunit.cli.options import Options, config_of
from prunit.errors import ConfigError
from prunit.recipe.config import PrecisionConfig


def asked(*texts: str, max_drop: float | None = None, file: Path | None = None) -> PrecisionConfig:
    nothing: list[Any] = [None] * 10
    return config_of(Options(*nothing, precision=list(texts), max_drop=max_drop), file, None).precision


def test_of_all_variants_and_of_single_ones() -> None:
    found = asked("int8,fp32", "macs-1-4=int8", "dense=fp32, bf16", max_drop=1.5)
    assert found.wanted == ("int8", "fp32")
    assert found.by_variant == {"macs-1-4": ("int8",), "dense": ("fp32", "bf16")}
    assert [found.of(name) for name in ("macs-1-4", "macs-1-2")] == [("int8",), ("int8", "fp32")]
    assert found.max_drop == 1.5


def test_twice_is_once_and_both_options_add_up() -> None:
    assert asked("int8,int8", "FP32").wanted == ("int8", "fp32")
    assert asked().wanted == ("fp32",)


def test_options_go_before_a_file(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text('[precision]\nwanted = ["bf16"]\nmax_drop = 2\n')
    assert asked(file=tmp_path / "b.toml").wanted == ("bf16",)
    found = asked("int8", file=tmp_path / "b.toml")
    assert (found.wanted, found.max_drop) == (("int8",), 2)


@pytest.mark.parametrize("text", ["int4", "int8;fp32", "macs-1-4=", "macs-1-4=float"])
def test_what_is_no_precision_is_refused_with_those_there_are(text: str) -> None:
    with pytest.raises(ConfigError, match="'fp32', 'bf16' or 'int8'"):
        asked(text)
