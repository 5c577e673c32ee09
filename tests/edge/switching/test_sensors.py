"""What a device says of itself, from made-up kernel files."""

from pathlib import Path

import pytest

from prunit.edge.switching.sensors import Readings, read


def device(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


BOARD = {
    "proc/meminfo": "MemTotal: 4000 kB\nMemAvailable:    2000 kB\n",
    "proc/loadavg": "1.50 1.00 0.50 1/200 4242\n",
    "proc/cpuinfo": "processor : 0\nmodel name : A\n\nprocessor : 1\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "900000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "1800000\n",
    "sys/class/thermal/thermal_zone0/temp": "61000\n",
    "sys/class/thermal/thermal_zone0/trip_point_0_type": "passive\n",
    "sys/class/thermal/thermal_zone0/trip_point_0_temp": "80000\n",
    "sys/class/power_supply/BAT0/type": "Battery\n",
    "sys/class/power_supply/BAT0/capacity": "42\n",
    "sys/class/power_supply/BAT0/status": "Discharging\n",
    "sys/class/power_supply/AC/type": "Mains\n",
}


def test_all_sensors(tmp_path: Path) -> None:
    found = read(device(tmp_path, BOARD))
    assert found == Readings(2_048_000, 0.75, 0.5, 61.0, False, 0.42)
    assert found.throttled  # half its clock with work to do


@pytest.mark.parametrize(
    ("file", "text", "name", "value"),
    [
        ("sys/fs/cgroup/memory.max", "1000000", "memory_bytes", 2_048_000),  # nothing says what is used of it
        ("sys/class/thermal/thermal_zone0/temp", "81000", "hot", True),
        ("sys/class/thermal/thermal_zone0/temp", "nonsense", "celsius", None),
        ("sys/class/thermal/thermal_zone0/temp", "999999999", "celsius", None),
        ("sys/class/power_supply/BAT0/status", "Charging", "battery", None),
        ("sys/class/power_supply/BAT0/capacity", "", "battery", None),
        ("proc/cpuinfo", "", "load", None),
        ("proc/meminfo", "MemAvailable: many kB", "memory_bytes", None),
        ("sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "0", "clock", None),
    ],
)
def test_a_sensor_that_changes_or_fails(tmp_path: Path, file: str, text: str, name: str, value: object) -> None:
    assert getattr(read(device(tmp_path, BOARD | {file: text})), name) == value


@pytest.mark.parametrize(
    "prefix", ["memory.max memory.current", "memory/memory.limit_in_bytes memory/memory.usage_in_bytes"]
)
def test_a_control_group_may_leave_less(tmp_path: Path, prefix: str) -> None:
    limit, used = (f"sys/fs/cgroup/{name}" for name in prefix.split())
    assert read(device(tmp_path, BOARD | {limit: "1000000", used: "400000"})).memory_bytes == 600_000
    assert read(device(tmp_path, BOARD | {limit: "max", used: "400000"})).memory_bytes == 2_048_000
    assert read(device(tmp_path, BOARD | {limit: str(1 << 62), used: "400000"})).memory_bytes == 2_048_000


def test_no_sensor_at_all(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert found == Readings()
    assert not found.throttled
    assert isinstance(read(), Readings)  # and this machine, whatever it has
