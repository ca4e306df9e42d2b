/* SPDX-License-Identifier: GPL-2.0-only */
/* BCC wants a version; ours is the first with ring buffers, whatever kernel runs. */
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 8, 0)
