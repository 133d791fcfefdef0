// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

#pragma once

#include "types.h"

// A header without options (RFC 791, 3.1).
struct ipv4 {
	__u8 version_length;
	__u8 service;
	__be16 total;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__be16 check;
	__be32 source;
	__be32 destination;
};
