"""Many devices are probed at once: what comes back is a profile, or one line that says what to do."""

import json
import os
import sys
from pathlib import Path

import pytest

from prunit.edge.measuring.fleet import FleetDevice, probe_fleet, read_fleet
from prunit.edge.measuring.profile import DeviceProfile, LayerList, LayerShape, Window
from prunit.errors import ConfigError, DeviceError, FileError
from tests.cli.running import prunit

LAYERS = LayerList(
    model="two layers",
    layers=(
        LayerShape(inputs=3, outputs=8, inputs_fixed=True, window=Window(size=(4, 4), kernel=(3, 3), padding=(1, 1))),
        LayerShape(inputs=8, outputs=4, outputs_fixed=True),
    ),
)
HERE = f"{sys.executable} -m prunit"


@pytest.fixture
def ssh(tmp_path: Path) -> str:
    """In the place of an ssh client: the command runs in a shell here, and the host `gone` cannot be reached."""
    file = tmp_path / "ssh"
    file.write_text(
        """#!/bin/sh
while [ "$1" != -- ]; do echo "$1" >> "$0.log"; shift; done
echo "host $2" >> "$0.log"
if [ "$2" = gone ]; then echo "ssh: connect to host gone port 22: No route to host" >&2; exit 255; fi
exec sh -c "$3"
""",
        encoding="utf-8",
    )
    file.chmod(0o755)
    return str(file)


def listed(folder: Path, text: str) -> Path:
    file = folder / "fleet.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_every_device_measures_and_one_that_fails_holds_up_no_other(
    tmp_path: Path, ssh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "of the device"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    devices = [
        FleetDevice(name="one", host="me@first", command=HERE, options=("-p", "2222")),
        FleetDevice(name="gone", host="gone", command=HERE),
        FleetDevice(name="bare", host="third", command="no-such-prunit"),
        FleetDevice(name="old", host="fourth", command="echo {} ; true"),
        FleetDevice(name="broken", host="fifth", command=f"{HERE} --no-such-option"),
    ]
    seen: list[str] = []
    found = probe_fleet(devices, LAYERS, tmp_path / "out", ssh=ssh, on_device=lambda one: seen.append(one.device.name))
    by_name = {each.device.name: each for each in found}
    assert sorted(seen) == sorted(by_name)
    assert (by_name["one"].problem, by_name["one"].new) == ("", True)
    profile = DeviceProfile.read(by_name["one"].file)
    assert None not in profile.points_of(LAYERS.layers)
    assert "No route to host" in by_name["gone"].problem
    assert "install prunit[edge]" in by_name["bare"].problem
    assert by_name["old"].problem
    assert "exit status 2" in by_name["broken"].problem
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["one.json"]
    assert not list(place.iterdir()), "something was left on a device"
    log = Path(f"{ssh}.log").read_text(encoding="utf-8")
    assert "BatchMode=yes" in log
    assert "2222" in log
    assert "host me@first" in log


def test_what_is_there_and_covers_the_layers_is_kept(tmp_path: Path, ssh: str) -> None:
    device = FleetDevice(name="one", host="first", command=HERE)
    (first,) = probe_fleet([device], LAYERS, tmp_path, ssh=ssh)
    before = first.file.read_bytes()
    (again,) = probe_fleet([device], LAYERS, tmp_path, ssh="no-such-ssh")
    assert (again.new, again.problem, again.file.read_bytes()) == (False, "", before)
    wider = LAYERS.model_copy(update={"layers": (*LAYERS.layers, LayerShape(inputs=16, outputs=4, outputs_fixed=True))})
    (more,) = probe_fleet([device], wider, tmp_path, ssh=ssh)
    assert more.new
    assert probe_fleet([device], LAYERS, tmp_path, ssh=ssh)[0].new is False
    other = device.model_copy(update={"threads": 2})
    with pytest.raises(DeviceError, match="install an ssh client"):
        probe_fleet([other], LAYERS, tmp_path, ssh=str(tmp_path / "no-such-ssh"))
    with pytest.raises(DeviceError, match="install an ssh client"):
        probe_fleet([device], LAYERS, tmp_path, ssh=str(tmp_path / "no-such-ssh"), fresh=True)
    with pytest.raises(FileError, match="cannot make the folder"):
        probe_fleet([device], LAYERS, first.file / "out", ssh=ssh)


def test_nobody_goes_to_a_device_like_another_or_without_a_host(tmp_path: Path) -> None:
    devices = [
        FleetDevice(name="copied"),
        FleetDevice(name="alike", like="copied"),
    ]
    (found,) = probe_fleet(devices, LAYERS, tmp_path, ssh=str(tmp_path / "no-such-ssh"))
    assert found.device.name == "copied"
    assert "it has no host: give it one, or copy its profile to" in found.problem


def test_a_device_that_takes_too_long_is_told(tmp_path: Path, ssh: str) -> None:
    device = FleetDevice(name="slow", host="first", command="exec sleep 30 ; true")
    (found,) = probe_fleet([device], LAYERS, tmp_path, ssh=ssh, longest_s=0.5)
    assert "TimeoutExpired" in found.problem
    assert not found.file.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "device: Field required"),
        ("device = []", "at least 1"),
        ("[[device]]\nhost = 'h'", "name: Field required"),
        ("[[device]]\nname = 'a/b'\nhost = 'h'", "device 'a/b': write its name with the letters A-Z"),
        ("[[device]]\nname = 'my pi'\nhost = 'h'", "device 'my pi': write its name with the letters A-Z"),
        ("[device]\nname = 'a'\nhost = 'h'", r"write \[\[device\]\], with two brackets"),
        ("[[devices]]\nname = 'a'\nhost = 'h'", r"'devices' is not known; each device is a table \[\[device\]\]"),
        ("[[device]]\nname = 'a'\nhost = '-oProxyCommand=x'", "host: String should match"),
        ("[[device]]\nname = 'a'\nhost = 'h'\nthreads = 0", "threads"),
        ("[[device]]\nname = 'a'\nhost = 'h'\nuser = 'me'", "user: Extra inputs"),
        (
            "[[device]]\nname = 'a'\nhost = 'h'\n[[device]]\nname = 'A'\nhost = 'i'",
            "'a' and 'A', whose names differ in case",
        ),
        ("[[device]]\nname = 'a'\nhost = 'h'\n[[device]]\nname = 'a'\nhost = 'i'", "two devices called 'a'"),
    ],
)
def test_a_list_that_is_none_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        read_fleet(listed(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="there is no list of devices"):
        read_fleet(tmp_path / "none.toml")
    with pytest.raises(FileError, match="is no list of devices"):
        read_fleet(listed(tmp_path, "[[device"))


def test_the_command_tells_a_line_for_each_device(tmp_path: Path, ssh: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    LAYERS.write(tmp_path / "layers.json")
    text = f"[[device]]\nname = 'one'\nhost = 'first'\ncommand = '{HERE}'\n[[device]]\nname = 'two'\nhost = 'gone'"
    fleet, out = listed(tmp_path, text), tmp_path / "profiles"
    arguments = ("probe-device", tmp_path / "layers.json", "--fleet", fleet, "--out", out)
    told = prunit(*arguments, "--json")
    assert told.code == 1
    assert [each["new"] for each in json.loads(told.out)] == [True, False]
    assert f"one: {out / 'one.json'}" in told.err
    assert "two: ssh gone: ssh: connect to host gone port 22: No route to host" in told.err
    assert f"latency=1/2@{out / 'one.json'}" in told.err
    assert "was there already" in prunit(*arguments).err
    assert "set threads of each device" in prunit(*arguments, "--threads", "2").complaint
    assert "it is a file" in prunit(*arguments[:-1], fleet).complaint
