# SPDX-License-Identifier: GPL-2.0-only
"""Charts of a capture.

Data goes from the queries (`traffic`, `owners`, `depth`, `offsets`: rows to binned numbers) by the
panels (numbers to one chart), `figure` (charts to a page) and `frame` (what stands around them) to
`output` (page to an image).
"""
