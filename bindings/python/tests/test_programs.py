"""The command line and the examples, as their user starts them."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PATIENCE, REPO, RTD, Daemon, die_with_us, message, wait_until

import rtcore

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
HAS_MATPLOTLIB = importlib.util.find_spec("matplotlib") is not None


def _run(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rtcore", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)


def test_stats_listen_and_send(daemon: Daemon) -> None:
    command = [sys.executable, "-m", "rtcore", "listen", daemon.name, "b.routed", "--count", "2"]
    listening = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for arguments in (["hello"], ["00ff", "--hex"]):
        said = _run("send", daemon.name, "a.routed", *arguments)
        assert said.returncode == 0 and said.stdout.startswith("sent as number 1"), said
    out, _ = listening.communicate(timeout=PATIENCE)
    lines = [line for line in out.splitlines() if not line.startswith("event")]
    assert "b'hello'" in lines[0] and "b'\\x00\\xff'" in lines[1] and "b.routed from a.routed" in lines[0]
    assert listening.returncode == 0

    said = _run("stats", daemon.name)
    assert said.returncode == 0 and "a.routed" in said.stdout and "running" in said.stdout
    assert f'"instance": "{daemon.name}"' in _run("stats", daemon.name, "--json").stdout


def test_what_fails_says_why(daemon: Daemon) -> None:
    for arguments, text in (
        (["stats", "no-such"], "no statistics page"),
        (["listen", daemon.name, "none"], "no endpoint 'none'; there are: c.in, a.routed"),
        (["listen", daemon.name, "b.stop"], "use rtctl listen"),
        (["send", daemon.name, "b.routed", "x"], "use rtctl send"),
        (["send", daemon.name, "a.direct", "x", "--timeout", "0.05"], "process `b` is not connected"),
    ):
        said = _run(*arguments)
        assert said.returncode == 1 and text in said.stderr and "Traceback" not in said.stderr, said


def test_plot(daemon: Daemon, a: rtcore.Session, b: rtcore.Session, tmp_path: Path) -> None:
    sender, inbox = a.sender("a.routed"), b.inbox(["b.routed"])
    sender.wait_for_receiver(PATIENCE)
    for _ in range(20):
        sender.send(b"x")
        message(inbox)
    wait_until(lambda: rtcore.histogram(daemon.name, "a.routed").total == 20)
    file = tmp_path / "plot.png"
    said = _run("plot", daemon.name, "-o", str(file))
    if HAS_MATPLOTLIB:
        assert said.returncode == 0 and file.read_bytes().startswith(b"\x89PNG")
    else:
        assert said.returncode == 1 and "pip install matplotlib" in said.stderr
        assert "Traceback" not in said.stderr


@pytest.fixture
def examples(tmp_path: Path) -> Iterator[str]:
    """configs/examples.toml under a name of its own."""
    name = f"pyex{os.getpid()}"
    text = (REPO / "configs/examples.toml").read_text()
    own = f'name = "{name}"\nsocket = "{tmp_path}/ex.sock"'
    text = text.replace('name = "examples"', own, 1).replace("/rtd-examples.console", f"/{name}")
    text = text.replace("cpu = 0", f"cpu = {min(os.sched_getaffinity(0))}")
    (tmp_path / "ex.toml").write_text(text)
    command = [RTD, "run", str(tmp_path / "ex.toml")]
    if os.geteuid() != 0:
        command.append("--allow-degraded")
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=die_with_us,
    )
    assert process.stdout is not None and process.stdout.readline().startswith("READY")
    yield name
    process.send_signal(signal.SIGTERM)
    process.wait(PATIENCE)
    process.stdout.close()


def _example(instance: str, name: str, *args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RTD_INSTANCE": instance}
    command = [sys.executable, str(EXAMPLES / name), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=3 * PATIENCE, env=environment)


def test_the_bench_drives_a_controller_and_checks_its_deadlines(examples: str) -> None:
    said = _example(examples, "bench.py", "--seconds", "1", "--max-ms", "1000")
    assert said.returncode == 0, said
    assert "PASS" in said.stdout and "set points" in said.stdout
    said = _example(examples, "bench.py", "--seconds", "1", "--max-ms", "0.000001")
    assert said.returncode == 1 and "FAIL" in said.stdout, said


def test_the_panel_shows_latencies_while_they_come(examples: str) -> None:
    bench = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "bench.py"), "--seconds", "3", "--max-ms", "10000"],
        env={**os.environ, "RTD_INSTANCE": examples},
        stdout=subprocess.DEVNULL,
    )
    said = _example(examples, "panel.py", "--route", "setpoints", "--text", "--updates", "4")
    assert bench.wait(PATIENCE) == 0
    assert said.returncode == 0, said
    assert "setpoints" in said.stdout and "p99" in said.stdout and "#" in said.stdout


def test_the_example_of_the_readme_prints_what_comes(examples: str) -> None:
    _, block = (REPO / "README.md").read_text().split("```python\n", 1)
    script = block.split("```", 1)[0]
    environment = {**os.environ, "RTD_INSTANCE": examples, "PYTHONUNBUFFERED": "1"}
    drive = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert drive.stdout is not None
    with rtcore.Session("controller", instance=examples) as session:
        sender = session.sender("controller.setpoints")
        sender.wait_for_receiver(PATIENCE)
        sender.send(b"x")
        for line in drive.stdout:
            if line.startswith("Message("):
                break
        else:
            pytest.fail("it printed no message")
        drive.terminate()
        drive.wait(PATIENCE)
    drive.stdout.close()


def test_the_round_trip_is_measured(tmp_path: Path) -> None:
    environment = {**os.environ, "RTD": RTD}
    command = [sys.executable, str(EXAMPLES / "roundtrip.py"), "--calls", "200"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=3 * PATIENCE, env=environment)
    assert said.returncode == 0, said
    assert "direct" in said.stdout and "routed" in said.stdout and "p99" in said.stdout
