"""What the operating system says about a process: CPU time, memory, children. Linux from /proc; elsewhere from ps(1).

On Linux CPU time is exact to the nanosecond but for the time slice under way; ps elsewhere counts hundredths of a second,
and memory is the resident set there, which counts shared pages in full.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["ACCOUNTING", "MEMORY", "command_line", "cpu_ns", "descendants", "memory_kib", "peak_memory_kib"]

LINUX = sys.platform == "linux"
ACCOUNTING = "/proc/PID/task/*/schedstat" if LINUX else "ps -o cputime (10 ms steps)"
MEMORY = "PSS" if LINUX else "RSS"


def _ps(field: str, pid: int) -> str:
    return subprocess.run(["ps", "-o", f"{field}=", "-p", str(pid)], check=True, capture_output=True, text=True).stdout.strip()


def cpu_ns(pid: int) -> int:
    """User and system time that the process has used so far, over all its threads."""
    if LINUX:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)
    minutes, _, seconds = _ps("cputime", pid).rpartition(":")  # [[DD-]HH:]MM:SS.hh
    total = 0.0
    for part, unit in zip(reversed(minutes.replace("-", ":").split(":")), (60, 3600, 86400), strict=False):
        total += int(part) * unit
    return int((total + float(seconds)) * 1e9)


def _field_kib(file: str, name: str) -> int:
    for line in Path(file).read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise LookupError(f"{file} has no {name}")


def memory_kib(pid: int) -> int:
    """What the process holds now: its proportional share of memory (PSS), where the system knows it."""
    return _field_kib(f"/proc/{pid}/smaps_rollup", "Pss:") if LINUX else int(_ps("rss", pid))


def peak_memory_kib(pid: int) -> int:
    """The most that was ever resident (Linux), else what is resident now."""
    return _field_kib(f"/proc/{pid}/status", "VmHWM:") if LINUX else int(_ps("rss", pid))


def command_line(pid: int) -> str:
    if LINUX:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return _ps("command", pid)


def _parents() -> Iterator[tuple[int, int]]:
    if LINUX:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    stat = (entry / "stat").read_text()
                except (FileNotFoundError, ProcessLookupError):
                    continue  # ended meanwhile
                yield int(entry.name), int(stat.rpartition(")")[2].split()[1])
    else:
        listing = subprocess.run(["ps", "-axo", "pid=,ppid="], check=True, capture_output=True, text=True).stdout
        for line in listing.splitlines():
            pid, parent = line.split()
            yield int(pid), int(parent)


def descendants(pid: int) -> list[int]:
    """The process and all that it started, directly or not."""
    parents = dict(_parents())
    found = [pid]
    for known in found:  # grows while it is walked
        found += [child for child, parent in parents.items() if parent == known]
    return found
