"""A network as C: what it says, and that compilers take it."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from prunit.errors import ConfigError, DataError
from prunit.mcu import litert
from prunit.mcu.csource import CSource, c_source, method_of
from prunit.mcu.flatbuffer import flatbuffer_of
from tests.mcu.drawn import residual

pytest.importorskip("ai_edge_litert")

DATA_ARENA = 12_345


def made(name: str = "net", notes: tuple[str, ...] = ()) -> tuple[CSource, bytes, np.ndarray, np.ndarray]:
    data = flatbuffer_of(residual())
    x = np.random.default_rng(5).integers(-128, 128, (1, 12, 12, 3), dtype=np.int8)
    y = litert.answers(data, x)[0]
    return c_source(data, name, arena_bytes=DATA_ARENA, x_int8_1=x, y_int8_1=y, notes=notes), data, x, y


def array_of(source: str, name: str) -> list[int]:
    found = re.search(rf"{name}\[(\d+)\] = {{([^}}]*)}}", source)
    assert found
    values = [int(each) for each in found[2].replace("\n", " ").split(",") if each.strip()]
    assert len(values) == int(found[1])
    return values


def test_what_the_files_hold() -> None:
    found, data, x, y = made()
    assert bytes(array_of(found.source, "net_model")) == data
    assert array_of(found.source, "net_test_input") == x.ravel().tolist()
    assert array_of(found.source, "net_test_output") == y.ravel().tolist()
    for line in (
        f"#define NET_MODEL_BYTES {len(data)}u",
        "#define NET_ARENA_BYTES 12345u",
        "#define NET_INPUT_SCALE 0.05f",
        "#define NET_INPUT_ZERO_POINT (0)",
        "#define NET_OUTPUT_ZERO_POINT (-128)",
        "#define NET_INPUT_SHAPE {1, 12, 12, 3}",
        "#define NET_OUTPUT_BYTES 216u",
        "#define NET_OPERATORS 3",
        "(resolver).AddAdd(); (resolver).AddConv2D(); (resolver).AddDepthwiseConv2D();",
    ):
        assert line in found.header


@pytest.mark.parametrize(("compiler", "standard"), [("gcc", "c11"), ("g++", "c++11")])
def test_compilers_take_it(compiler: str, standard: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    found, data, x, y = made(notes=("of a folder that ends in \\", "two\nlines"))
    (tmp_path / "net.h").write_text(found.header)
    (tmp_path / "net.c").write_text(found.source)
    main = (
        '#include <stdio.h>\n#include "net.h"\n'
        "int main(void) { int n = 0; unsigned i; const int shape[] = NET_INPUT_SHAPE;\n"
        "for (i = 0; i < NET_MODEL_BYTES; ++i) n += net_model[i];\n"
        "for (i = 0; i < NET_INPUT_BYTES; ++i) n += net_test_input[i];\n"
        "for (i = 0; i < NET_OUTPUT_BYTES; ++i) n += net_test_output[i];\n"
        'printf("%d %d %d %.4f", n, (int)((unsigned long long)net_model % 16), shape[3], (double)NET_INPUT_SCALE);\n'
        "return 0; }\n"
    )
    (tmp_path / "main.c").write_text(main)
    options = ["-Wall", "-Wextra", "-Werror", "-pedantic", f"-std={standard}"]
    language = ["-x", "c++" if compiler == "g++" else "c"]
    command = [compiler, *options, *language, "net.c", "main.c", "-o", "test"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    said = subprocess.run([str(tmp_path / "test")], check=True, capture_output=True, text=True, timeout=60).stdout
    assert said == f"{sum(data) + int(x.astype(int).sum()) + int(y.astype(int).sum())} 0 3 0.0500"


def test_names_of_methods() -> None:
    codes = ("CONV_2D", "MEAN", "FULLY_CONNECTED", "AVERAGE_POOL_2D", "RESIZE_NEAREST_NEIGHBOR", "PADV2", "RELU6")
    expected = ["Conv2D", "Mean", "FullyConnected", "AveragePool2D", "ResizeNearestNeighbor", "PadV2", "Relu6"]
    assert [method_of(code) for code in codes] == [f"Add{each}" for each in expected]


def test_a_compiled_network_registers_the_accelerator() -> None:
    pytest.importorskip("ethosu.vela")
    from prunit.mcu.parts import part
    from prunit.mcu.vela import compiled

    _, data, x, y = made()
    found = c_source(compiled(data, part("ethos-u55-128")).data, "npu", arena_bytes=DATA_ARENA, x_int8_1=x, y_int8_1=y)
    assert "#define NPU_REGISTER(resolver) (resolver).AddEthosU();" in found.header


def test_what_is_refused() -> None:
    with pytest.raises(ConfigError, match="'my-net' is no identifier"):
        made("my-net")
    _, data, x, y = made()
    with pytest.raises(DataError, match=r"the output of 'net' is int8 \(1, 6, 6, 6\), got int8 \(1, 5"):
        c_source(data, "net", arena_bytes=1, x_int8_1=x, y_int8_1=y[:, :5])
