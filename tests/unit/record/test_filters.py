# SPDX-License-Identifier: GPL-2.0-only
"""What the user asks for, as numbers that the kernel programs compare."""

import os
import threading
from dataclasses import replace

import pytest

from analyze.errors import IorecError
from analyze.metadata import Filters
from iorec.kernel.names import KernelNames
from iorec.record.filters import filter_options, resolve_filters, resolve_layers

NAMES = KernelNames({0: "read", 1: "write", 34: "driver", 35: "driver"}, {}, {}, False)
EVERYTHING = Filters((), (), (), (), (), None, include_self=False)


def refusal(filters: Filters) -> IorecError:
    with pytest.raises(IorecError) as caught:
        resolve_filters(filters, NAMES)
    return caught.value


def test_an_operation_stands_for_every_number_of_its_name() -> None:
    assert resolve_filters(replace(EVERYTHING, op=("driver", "read")), NAMES).ops == (34, 35, 0)
    assert refusal(replace(EVERYTHING, op=("trim",))).hint == "there are: read, write, driver"


def test_names_of_threads_and_globs_of_them_go_separate_ways() -> None:
    found = resolve_filters(replace(EVERYTHING, comm=("fio", "post*", "x?")), NAMES)
    assert (found.comms, found.comm_globs) == (("fio",), ("post*", "x?"))


def test_a_name_that_the_kernel_would_cut_off_is_refused_with_what_it_keeps() -> None:
    assert resolve_filters(replace(EVERYTHING, comm=("é" * 7 + "x",)), NAMES).comms  # 15 bytes
    error = refusal(replace(EVERYTHING, comm=("é" * 7 + "xy",)))
    assert "keeps 15 bytes of it, not 16" in error.message
    assert error.hint.endswith("-c 'éééééééx', -c 'ééééééé*'")


def test_more_names_than_the_kernels_map_holds_are_refused() -> None:
    names = [f"task{number}" for number in range(65)]
    assert len(resolve_filters(replace(EVERYTHING, comm=tuple(names[:64])), NAMES).comms) == 64
    assert "at most 64" in refusal(replace(EVERYTHING, comm=tuple(names))).hint


def test_a_thread_is_no_process() -> None:
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait)
    thread.start()
    try:
        error = refusal(replace(EVERYTHING, pid=(thread.native_id or 0,)))
    finally:
        go_on.set()
        thread.join()
    assert error.hint == f"its process is {os.getpid()}: -p {os.getpid()}"


def test_the_recorder_itself_is_left_out_unless_it_is_wanted() -> None:
    assert resolve_filters(EVERYTHING, NAMES).excluded_pid == os.getpid()
    assert resolve_filters(replace(EVERYTHING, include_self=True), NAMES).excluded_pid is None


def test_layers_are_in_their_order_each_once() -> None:
    assert resolve_layers(["bio,request", "bio"]) == ("request", "bio")
    with pytest.raises(IorecError, match="no layer 'scsi'"):
        resolve_layers(["scsi"])


def test_filters_are_said_as_the_options_that_give_them() -> None:
    filters = Filters(("sda", "nvme*"), (7,), ("a b",), (), ("read",), 60_000, include_self=False)
    said = "-d sda -d 'nvme*' -p 7 -c 'a b' --op read --min-latency '60.0 µs'"
    assert filter_options(filters) == said
    assert filter_options(EVERYTHING) == ""
