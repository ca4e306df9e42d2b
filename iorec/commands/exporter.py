# SPDX-License-Identifier: GPL-2.0-only
"""The command `iorec exporter`."""

import sys
from importlib.util import find_spec
from typing import Annotated

import typer

from iorec.commands.looking import look_on
from iorec.options import (
    DEFAULT_BUFFER,
    BufferSize,
    Cgroups,
    Comms,
    Devices,
    MinLatency,
    Ops,
    Pids,
    Quiet,
    RecordedLayers,
    Syscalls,
    Verbose,
)

# As often as the frames of a capture: a scrape is rarely more often.
_PERIOD_S = 1.0

EPILOG = """\b
Examples:
  sudo iorec exporter                          http://127.0.0.1:9435/metrics
  sudo iorec exporter --listen '[::]:9435' -d nvme0n1 --by-cgroup
"""


def exporter(
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where to serve; of IPv6 [HOST]:PORT.")
    ] = "127.0.0.1:9435",
    by_cgroup: Annotated[
        bool, typer.Option("--by-cgroup", help="Metrics of each cgroup, too: 128, and the others.")
    ] = False,
    layer: RecordedLayers = None,
    device: Devices = None,
    pid: Pids = None,
    comm: Comms = None,
    cgroup: Cgroups = None,
    op: Ops = None,
    syscall: Syscalls = None,
    min_latency: MinLatency = None,
    buffer_size: BufferSize = DEFAULT_BUFFER,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Serve metrics of all I/Os to Prometheus, until Ctrl-C: latencies, bytes, errors, losses.

    Nothing is kept. Whoever reaches the address may read them, and sees the names of devices and,
    if asked for, of cgroups.
    """
    from analyze.errors import IorecError
    from iorec import __version__
    from iorec.host.privileges import check_privileges
    from iorec.live.form import Serving
    from iorec.live.listen import listen_at, url_of
    from iorec.live.session import View
    from iorec.record.filters import make_filters, resolve_layers, why_lacking
    from iorec.record.settings import Settings, buffer_bytes

    layers = resolve_layers(layer or ["request"])
    settings = Settings(
        layers=layers,
        lacking=why_lacking(layer or []),
        filters=make_filters(
            layers, device, pid, comm, cgroup, op, min_latency, syscall, include_self=False
        ),
        buffer_bytes=buffer_bytes(buffer_size),
        command=("iorec", "exporter"),
        version=__version__,
        has_cmdlines=False,
        is_quiet=quiet,
        is_verbose=verbose,
    )
    if find_spec("prometheus_client") is None:
        raise IorecError(
            "the exporter needs the Python package prometheus_client",
            f"install it: {sys.executable} -m pip install prometheus_client",
        )
    with listen_at(listen) as listener:
        check_privileges()
        fd = listener.fileno()
        view = View("iorec.live.metrics", Serving(fd, by_cgroup), _PERIOD_S, fds=(fd,))
        look_on(view, settings, says=[f"serving {url_of(listener)}/metrics"])
