import os
import pathlib
import subprocess

SCRIPT = pathlib.Path(__file__).parents[3] / "deploy" / "loopback_haproxy.sh"


def test_ports_without_an_address_get_this_machine_s(tmp_path: pathlib.Path) -> None:
    config = tmp_path / "haproxy.cfg"
    config.write_text(
        "frontend prometheus\n    bind :9101\nlisten stats\n  bind *:8404\nfrontend http\n    bind 127.0.0.1:8000\n    log x\n"
    )
    done = subprocess.run(
        [str(SCRIPT), "-db", "-f", str(config), "-sf", "1", "2"],
        env=os.environ | {"FOVEA_HAPROXY_BINARY": "/bin/echo"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.strip() for line in config.read_text().splitlines() if "bind" in line] == [
        "bind 127.0.0.1:9101",
        "bind 127.0.0.1:8404",
        "bind 127.0.0.1:8000",
    ]
    assert done.stdout == f"-db -f {config} -sf 1 2\n"
