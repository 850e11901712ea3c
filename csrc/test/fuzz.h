/* SPDX-License-Identifier: Apache-2.0 */
/**
 * fuzz.h - the entry point of every fuzz_*.c
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif /* FUZZ_H */
