"""What Vela says of networks, and what of it is to be distrusted."""

from dataclasses import replace

import pytest

from prunit.errors import ConfigError, ModelError
from prunit.mcu import vela
from prunit.mcu.flatbuffer import flatbuffer_of
from prunit.mcu.parts import PARTS, part
from tests.mcu.drawn import residual, unary

pytest.importorskip("ethosu.vela")
pytest.importorskip("ai_edge_litert")

U55 = part("ethos-u55-128")


def test_figures_of_a_network() -> None:
    network = residual()
    found = vela.compiled(flatbuffer_of(network), U55).check()
    assert sum(layer.cycles for layer in found.layers) == found.cycles
    assert {layer.name for layer in found.layers} >= {"stem", "deep", "point", "both", "end"}
    pixels = 12 * 12
    assert found.macs == pixels * (27 * 9 + 9 * 9 + 81) + 36 * 81 * 6
    assert 2 * pixels * 9 <= found.sram_bytes < 10 * pixels * 9
    assert 0 < found.flash_bytes < len(found.data)
    assert found.latency_ms == found.cycles / 500e6 * 1e3
    assert U55.described in found.described
    assert vela.version() in found.described


def test_size_takes_less_memory() -> None:
    data = flatbuffer_of(residual(32, 32))
    small = vela.compiled(data, U55, optimise="Size").check()
    assert small.sram_bytes < vela.compiled(data, U55).sram_bytes


@pytest.mark.parametrize("name", [name for name, each in PARTS.items() if each.kind == "ethos-u"])
def test_every_part_reports_cycles_and_memory(name: str) -> None:
    vela.compiled(flatbuffer_of(residual()), part(name)).check()


def test_operators_left_to_the_cpu_are_named() -> None:
    found = vela.compiled(unary("COS"), U55)
    assert found.left_to_cpu == (vela.LeftToCpu("COS", "made"),)
    with pytest.raises(ModelError, match="ethos-u55-128 does not run COS of 'made'"):
        found.check()


def test_figures_of_nothing_are_refused() -> None:
    found = vela.compiled(flatbuffer_of(residual()), U55)
    with pytest.raises(ModelError, match="reports no cycles"):
        replace(found, cycles=0).check()
    with pytest.raises(ModelError, match="reports no SRAM"):
        replace(found, sram_bytes=0).check()


def test_what_vela_cannot_compile_is_one_line() -> None:
    with pytest.raises(ModelError, match="no TensorFlow Lite flatbuffer"):
        vela.compiled(b"something else", U55)
    with pytest.raises(ConfigError, match="not for 'tflm'"):
        vela.compiled(flatbuffer_of(residual()), part("tflm"))
    with pytest.raises(ModelError, match=r"^Vela refuses the network for .*Does_Not_Exist") as caught:
        vela.compiled(flatbuffer_of(residual()), replace(U55, system_config="Does_Not_Exist"))
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="longer than"):
        vela.compiled(flatbuffer_of(residual()), U55, timeout_s=0.01)


def test_floats_are_refused() -> None:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(flatbuffer_of(residual()), 0)
    model.subgraphs[0].tensors[0].type = schema.TensorType.FLOAT32
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    with pytest.raises(ModelError, match="tensor 'x0' is float32"):
        vela.compiled(bytes(builder.Output()), U55)
