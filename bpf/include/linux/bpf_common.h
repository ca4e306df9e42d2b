/* SPDX-License-Identifier: GPL-2.0-only */
/* Included by BCC; iorec needs nothing of it. */
