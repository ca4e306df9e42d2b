# SPDX-License-Identifier: GPL-2.0-only
"""Words the help of the screen of top."""

HELP = """\
iorec top: who does which I/O just now

 1 2 3 4   processes, devices, files, cgroups
 tab       the next of these
 < >       sort by the column before, after
 up down   choose a line; also page up, home...
 enter     look into the line: the files of a
           process, the processes of a device...
 escape    back out of it
 /         only lines that contain a text
 p, space  pause, and go on
 r         record into a file of this folder; r
           again ends it
 q         quit

An I/O counts when it has ended. IN FLIGHT is how
many were on average, BUSY the time with at least
one. The picture below: latencies of all I/Os, a
column for each interval, darker for more.

escape closes this"""
