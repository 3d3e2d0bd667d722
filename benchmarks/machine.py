"""What processes cost on this machine, from /proc (Linux)."""

import os
import statistics
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """What a process and its descendants have used until now."""

    cpu: float
    """Seconds of processor time."""
    switches: int
    """Context switches, of all threads."""
    memory: int
    """Bytes of memory now; what several share counts once (PSS)."""


def usage(pid: int) -> Usage:
    """Of a process with all its descendants."""
    cpu, switches, memory = 0.0, 0, 0
    for process in _family(pid):
        with suppress(OSError):
            after_name = (process / "stat").read_text().rpartition(")")[2].split()
            cpu += (int(after_name[11]) + int(after_name[12])) / _TICK
            for thread in (process / "task").iterdir():
                switches += sum(_numbers(thread / "status", ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")))
            memory += sum(_numbers(process / "smaps_rollup", ("Pss",))) * 1024
    return Usage(cpu, switches, memory)


def fdatasync_ms(folder: Path, times: int = 100) -> float:
    """The median of what one fdatasync of 4 KB takes below this folder, in milliseconds."""
    took = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(times):
            file.write(b"x" * 4096)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


def load() -> float:
    """How many processes wanted a processor in the last minute, on average."""
    return os.getloadavg()[0]


def _family(pid: int) -> Iterable[Path]:
    process = Path(f"/proc/{pid}")
    yield process
    children: list[str] = []
    with suppress(OSError):
        for thread in (process / "task").iterdir():
            children += (thread / "children").read_text().split()
    for child in children:
        yield from _family(int(child))


def _numbers(path: Path, names: tuple[str, ...]) -> Iterable[int]:
    for line in path.read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in names:
            yield int(rest.split()[0])
