/* SPDX-License-Identifier: Apache-2.0 */
/**
 * fuzz_bpf.c - a filter of anything, over a frame of anything
 *
 * The first byte: how many instructions of 8 bytes follow. The rest is the frame.
 */
#include "../bpf.h"
#include "check.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fp_bpf prog[UINT8_MAX];
	uint32_t n, at;
	uint8_t *frame;

	if (size < 1 || size < 1 + (size_t)data[0] * sizeof(prog[0]))
		return 0;
	n = data[0];
	memcpy(prog, data + 1, n * sizeof(prog[0]));
	data += 1 + n * sizeof(prog[0]);
	size -= 1 + n * sizeof(prog[0]);
	if (bpf_check(prog, n, &at))
		return 0;
	/* In a block of its own size, so that AddressSanitizer sees a byte too much. */
	frame = malloc(size);
	REQUIRE(frame != NULL || size == 0);
	if (size)
		memcpy(frame, data, size);
	bpf_run(prog, frame, (uint32_t)size);
	free(frame);
	return 0;
}
