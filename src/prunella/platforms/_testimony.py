"""What a process looks like from outside: where its threads wait, and what it said last."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

_LINES = 20
_BYTES = 4096


def of_process(pid: int, log: Path) -> str:
    """State, threads by where they wait in the kernel, open descriptors, the end of its output."""
    said = [f"pid {pid}: {_state(pid)}", *_waits(pid)]
    if (count := _descriptor_count(pid)) is not None:
        said.append(f"{count} open descriptors")
    if output := _end_of(log):
        said += ["its last output:", *output]
    return "\n".join(said)[-_BYTES:]


def _state(pid: int) -> str:
    status = _read(Path(f"/proc/{pid}/status"))
    state = next((line for line in status.splitlines() if line.startswith("State:")), "")
    return state.removeprefix("State:").strip() or "gone"


def _waits(pid: int) -> list[str]:
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []
    places = Counter(_read(thread / "wchan") or "running" for thread in threads)
    places["running"] += places.pop("0", 0)
    return [f"{count} threads in {place}" for place, count in places.most_common(5) if count]


def _descriptor_count(pid: int) -> int | None:
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return None


def _end_of(log: Path) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    lines = ("".join(c for c in line if c.isprintable()) for line in text.splitlines())
    return [line for line in lines if line][-_LINES:]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
