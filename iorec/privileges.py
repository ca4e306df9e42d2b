"""Checks that this process may load and attach kernel programs."""

from pathlib import Path

from analyze.errors import IorecError

# include/uapi/linux/capability.h
_CAP_SYS_ADMIN = 21
_NEEDED = {"CAP_PERFMON": 38, "CAP_BPF": 39}


def check_privileges() -> None:
    """Raises IorecError that names the missing capabilities."""
    status = Path("/proc/self/status").read_text()
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    if effective >> _CAP_SYS_ADMIN & 1:
        return
    missing = [name for name, bit in _NEEDED.items() if not effective >> bit & 1]
    if missing:
        raise IorecError(
            f"recording needs {' and '.join(missing)}, which this process lacks",
            "run it as root: sudo iorec record ...",
        )
