/* SPDX-License-Identifier: Apache-2.0 */
/**
 * bpf.h - classic BPF programs as libpcap compiles them: which frames a capture wants
 *
 * DOC: Theory of Operation
 *
 * An accumulator A, an index register X and 16 words of memory, all zero at first; a program loads from the
 * frame, calculates, compares and returns. Jumps only go forward, so a program ends after at most as many
 * steps as it has instructions. bpf_check() makes sure of everything that does not depend on the frame;
 * bpf_run() checks the rest, and a program that reads beyond the frame or divides by zero returns 0.
 *
 * Results are those of libpcap's bpf_filter(), which check_bpf.c holds it against. What the kernel adds
 * (ancillary data at negative offsets) is out of reach like any other place beyond the frame.
 */
#ifndef BPF_H
#define BPF_H

#include "base.h"

enum { BPF_MEM_WORDS = 16 };

/**
 * bpf_check() - May this program be run?
 * @prog: instructions
 * @n:    how many; 1..FP_BPF_MAX
 * @at:   out: the instruction that is wrong
 *
 * Return: NULL, or what is wrong, for people.
 */
const char *bpf_check(const struct fp_bpf *prog, uint32_t n, uint32_t *at);

/**
 * bpf_run() - What a program says about a frame
 * @prog: has passed bpf_check()
 * @data: the frame
 * @len:  bytes at @data
 *
 * Return: 0: not wanted.
 */
uint32_t bpf_run(const struct fp_bpf *prog, const uint8_t *data, uint32_t len);

#endif /* BPF_H */
