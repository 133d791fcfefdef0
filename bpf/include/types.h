// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

// The kernel's names for integers, and the values of linux/bpf.h, that more than one of the
// programs needs. Whatever else of the kernel's is used stands with the program that uses it.

#pragma once

#include <stdbool.h>

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_F_NO_PREALLOC = 1,
	BPF_NOEXIST = 1,
	BPF_LOCAL_STORAGE_GET_F_CREATE = 1,
};

// A structure of which only some members are declared: where they are is found in the BTF of
// the kernel that the program is loaded into.
#define RELOCATED __attribute__((preserve_access_index))
