# SPDX-License-Identifier: GPL-2.0-only
"""Charts of a capture.

Data goes from the queries (`traffic`, `owners`, `depth`, `offsets`: rows to binned numbers) by
`panels` (numbers to one chart) and `figure` (charts to a page) to `output` (page to an image).
"""
