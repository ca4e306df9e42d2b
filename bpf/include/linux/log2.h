/* SPDX-License-Identifier: GPL-2.0 */
/* Included by BCC; iorec needs nothing of it. */
