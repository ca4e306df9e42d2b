# SPDX-License-Identifier: GPL-2.0-only
"""Runs a recorder with a flight recorder behind it."""

from analyze.capture_name import CaptureName
from analyze.errors import IorecError
from iorec.kernel.probes import Probes
from iorec.record.flight import Flight
from iorec.record.flight_files import FlightFiles
from iorec.record.prepared import Prepared
from iorec.record.recording import joined_error, left_spools_error, run_recorder
from iorec.record.segment import Nowhere
from iorec.record.settings import FlightPlan
from iorec.store.folder import Folder
from iorec.store.origin import Origin
from iorec.store.result import FlightResult


def record_flight(
    prepared: Prepared, plan: FlightPlan, folder: Folder, output: CaptureName
) -> FlightResult:
    """Records in memory, and into the folder whenever a trigger fires."""
    files = FlightFiles(folder, output, plan.kept)
    files.check(plan.triggers)
    flights = []

    def make_flight(probes: Probes, origin: Origin) -> Flight:
        flights.append(Flight(plan, prepared, probes, origin, files))
        return flights[0]

    with prepared.progress:
        recorded = run_recorder(prepared, lambda _: Nowhere(), make_beside=make_flight)
        left = files.wait()
    failures = [error for error in (recorded.failure, *flights[0].failures.values()) if error]
    if left:
        failures.append(left_spools_error(left, is_forced=False))
    if folder.is_deleted:
        failures.append(
            IorecError(
                f"the folder {folder.path} was deleted, with the captures in it",
                "record into a folder that stays",
            )
        )
    exit_status = None
    if prepared.workload is not None:
        exit_status = prepared.workload.end(prepared.signals)
    return FlightResult(
        files.captures,
        recorded.last and recorded.last[1],
        exit_status,
        joined_error(failures) if failures else None,
    )
