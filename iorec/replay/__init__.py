# SPDX-License-Identifier: GPL-2.0-only
"""Does the I/Os of a capture again on another device, at their times, and says how faithfully.

A feeder process reads rows in time order, makes SQEs of them and places these in memory that it
shares with the loop, ahead of it; the loop only looks at the clock and hands over what is due. It
is a C file (`pace.c`), compiled where there is a compiler, or else Python. Meanwhile an ordinary
recorder runs on the target in a process of its own, and its capture says what really happened.

What is changed on the target's queue is written down before, in a file that is locked while the
replay runs: the next replay finds those of killed ones and puts everything back.
"""
