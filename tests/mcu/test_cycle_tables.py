"""A table of single layers against networks compiled whole; what it keeps."""

import json
from pathlib import Path

import numpy as np
import pytest

from prunit.mcu import tables, vela
from prunit.mcu.flatbuffer import flatbuffer_of
from prunit.mcu.layers import KINDS, Drawing, LayerShape
from prunit.mcu.parts import part
from prunit.mcu.tables import CycleTable, default_folder

U55 = part("ethos-u55-128")


@pytest.fixture
def vela_here() -> None:
    pytest.importorskip("ethosu.vela")
    pytest.importorskip("ai_edge_litert")


def network(width: int) -> Drawing:
    drawing = Drawing("net")
    end = drawing.input(16, 16, 3)
    read = 3
    for index in range(4):
        shape = LayerShape("conv", 16, 16, read, width, (3, 3), first=not index)
        end, read = drawing.layer(shape, end, name=f"conv{index}"), width
    end = drawing.layer(LayerShape("mean", 16, 16, width, width), end, name="mean")
    drawing.layer(LayerShape("linear", 1, 1, width, 10), end, name="linear")
    return drawing


@pytest.mark.usefixtures("vela_here")
@pytest.mark.parametrize("name", ["ethos-u55-128", "ethos-u85-256"])
def test_the_sum_is_nearly_that_of_the_whole_network(name: str, tmp_path: Path) -> None:
    table = CycleTable(part(name), tmp_path)
    for width in (5, 16, 33):
        drawing = network(width)
        whole = vela.compiled(flatbuffer_of(drawing.network("linear")), table.part).check()
        assert table.cycles_of(list(drawing.layers.values())).sum() == pytest.approx(whole.cycles, rel=0.1)


@pytest.mark.usefixtures("vela_here")
def test_the_first_layer_is_another(tmp_path: Path) -> None:
    inner, first = CycleTable(U55, tmp_path).cycles_of(
        [LayerShape("conv", 16, 16, 3, 8, (3, 3), first=first) for first in (False, True)]
    )
    drawing = network(8)
    whole = vela.compiled(flatbuffer_of(drawing.network("linear")), U55)
    in_network = next(row.cycles for row in whole.layers if row.name == "conv0")
    assert first == pytest.approx(in_network, rel=0.2)  # there nothing hides the fetch of its weights
    assert inner != first


@pytest.mark.usefixtures("vela_here")
def test_every_kind_of_layer_has_cycles(tmp_path: Path) -> None:
    layers = [
        LayerShape(kind, 1, 1, 8, 8) if kind == "linear" else LayerShape(kind, 8, 8, 8, 8, (2, 2)) for kind in KINDS
    ]
    assert (CycleTable(U55, tmp_path).cycles_of(layers) > 0).all()


@pytest.mark.usefixtures("vela_here")
def test_what_was_measured_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [LayerShape("conv", 8, 8, 8, width, (3, 3)) for width in (8, 16)]
    first = CycleTable(U55, tmp_path)
    found = first.cycles_of([*layers, layers[0]])
    assert found.shape == (3,)
    assert found[0] == found[2] < found[1]
    assert first.fill(layers) == 0

    monkeypatch.setattr(tables, "compiled", None)  # a second compilation would fail
    np.testing.assert_array_equal(CycleTable(U55, tmp_path).cycles_of(layers), found[:2])
    assert U55.system_config in first.file.name
    assert vela.version() in first.file.name


@pytest.mark.usefixtures("vela_here")
def test_a_broken_file_is_measured_anew(tmp_path: Path) -> None:
    layer = LayerShape("conv", 8, 8, 8, 8, (3, 3))
    table = CycleTable(U55, tmp_path)
    found = table.cycles_of([layer])
    table.file.write_text("[[1")
    np.testing.assert_array_equal(CycleTable(U55, tmp_path).cycles_of([layer]), found)
    assert len(json.loads(table.file.read_text())) == 1


@pytest.mark.usefixtures("vela_here")
def test_what_another_process_measured_meanwhile_stays(tmp_path: Path) -> None:
    one, other = CycleTable(U55, tmp_path), CycleTable(U55, tmp_path)
    one.fill([LayerShape("conv", 8, 8, 8, 8, (3, 3))])
    other.fill([LayerShape("conv", 8, 8, 8, 16, (3, 3))])
    assert len(CycleTable(U55, tmp_path)) == 2


def test_few_sizes_and_layers_in_a_call() -> None:
    layers = [LayerShape("conv", size, size, 8, width) for size in range(4, 20) for width in range(1, 31)]
    calls = list(tables._calls(layers))
    assert sorted(map(str, [layer for call in calls for layer in call])) == sorted(map(str, layers))
    assert max(map(len, calls)) <= 64
    assert max(len({layer.height for layer in call}) for call in calls) <= 6


def test_where_tables_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNIT_CACHE", "/own")
    monkeypatch.setenv("XDG_CACHE_HOME", "/shared")
    assert default_folder() == Path("/own/mcu")
    monkeypatch.delenv("PRUNIT_CACHE")
    assert default_folder() == Path("/shared/prunit/mcu")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_folder() == Path.home() / ".cache" / "prunit" / "mcu"
