# SPDX-License-Identifier: GPL-2.0-only
"""Prints one line for each I/O, as BCC's biosnoop does: `python -m tests.bench.biosnoop`."""

import signal
from pathlib import Path
from typing import Any

from iorec.kernel.btf import KernelTypes
from iorec.kernel.compile import import_bcc, instructions_of
from iorec.kernel.header import kernel_header
from iorec.kernel.libbpf import attach_program, load_tracing_program

_PROGRAMS = {
    "on_complete": "block_rq_complete",
    "on_issue": "block_rq_issue",
    "on_start": "block_io_start",
}


def main() -> None:
    """Until Ctrl-C."""
    bcc = import_bcc()
    with KernelTypes() as kernel:
        header = kernel_header(kernel, has_bios=False)
        targets = {name: kernel.tracepoint_id(place) for name, place in _PROGRAMS.items()}
    source = Path(__file__).with_suffix(".c").read_text()
    module = bcc.BPF(text=header + source)
    events = module[b"events"]

    def show(_: int, data: Any, __: int) -> None:
        event = events.event(data)
        print(
            f"{event.now_ns} {event.comm.decode()} {event.pid} {event.dev} {event.cmd_flags} "
            f"{event.sector} {event.bytes} {event.queue_ns} {event.latency_ns}"
        )

    events.open_perf_buffer(show, page_cnt=64)
    for name, target in targets.items():
        instructions = bytes(instructions_of(bcc, module, name))
        attach_program(load_tracing_program(name, instructions, target), name)
    # An exception in BCC's callback would be lost.
    stopped: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: stopped.append(number))
    print("tracing", flush=True)
    while not stopped:
        module.perf_buffer_poll(timeout=100)


if __name__ == "__main__":
    main()
