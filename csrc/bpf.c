/* SPDX-License-Identifier: Apache-2.0 */
/**
 * bpf.c - checks and runs classic BPF programs
 */
#include "bpf.h"

/* Every instruction there is; the codes are class | size or operation | mode or source. */
enum {
	LD_IMM = 0x00,
	LD_W_ABS = 0x20,
	LD_H_ABS = 0x28,
	LD_B_ABS = 0x30,
	LD_W_IND = 0x40,
	LD_H_IND = 0x48,
	LD_B_IND = 0x50,
	LD_MEM = 0x60,
	LD_LEN = 0x80,
	LDX_IMM = 0x01,
	LDX_MEM = 0x61,
	LDX_LEN = 0x81,
	LDX_MSH = 0xb1, /* 4 * (byte & 0xf): the length of an IPv4 header */
	ST = 0x02,
	STX = 0x03,
	ADD_K = 0x04,
	ADD_X = 0x0c,
	SUB_K = 0x14,
	SUB_X = 0x1c,
	MUL_K = 0x24,
	MUL_X = 0x2c,
	DIV_K = 0x34,
	DIV_X = 0x3c,
	OR_K = 0x44,
	OR_X = 0x4c,
	AND_K = 0x54,
	AND_X = 0x5c,
	LSH_K = 0x64,
	LSH_X = 0x6c,
	RSH_K = 0x74,
	RSH_X = 0x7c,
	NEG = 0x84,
	MOD_K = 0x94,
	MOD_X = 0x9c,
	XOR_K = 0xa4,
	XOR_X = 0xac,
	JA = 0x05,
	JEQ_K = 0x15,
	JEQ_X = 0x1d,
	JGT_K = 0x25,
	JGT_X = 0x2d,
	JGE_K = 0x35,
	JGE_X = 0x3d,
	JSET_K = 0x45,
	JSET_X = 0x4d,
	RET_K = 0x06,
	RET_A = 0x16,
	TAX = 0x07,
	TXA = 0x87,
	WORD_BITS = 32
};

/* ---- checking ---- */

static const char *check_jump(uint32_t jt, uint32_t jf, uint32_t left)
{
	return jt < left && jf < left ? NULL : "jumps out of the program, or backwards";
}

static const char *check_insn(const struct fp_bpf *i, uint32_t left)
{
	switch (i->code) {
	case LD_IMM:
	case LD_W_ABS:
	case LD_H_ABS:
	case LD_B_ABS:
	case LD_W_IND:
	case LD_H_IND:
	case LD_B_IND:
	case LD_LEN:
	case LDX_IMM:
	case LDX_LEN:
	case LDX_MSH:
	case ADD_K:
	case ADD_X:
	case SUB_K:
	case SUB_X:
	case MUL_K:
	case MUL_X:
	case DIV_X:
	case OR_K:
	case OR_X:
	case AND_K:
	case AND_X:
	case LSH_X:
	case RSH_X:
	case NEG:
	case MOD_X:
	case XOR_K:
	case XOR_X:
	case RET_K:
	case RET_A:
	case TAX:
	case TXA: return NULL;
	case LD_MEM:
	case LDX_MEM:
	case ST:
	case STX: return i->k < BPF_MEM_WORDS ? NULL : "memory beyond the last word";
	case DIV_K:
	case MOD_K: return i->k ? NULL : "divides by zero";
	case LSH_K:
	case RSH_K: return i->k < WORD_BITS ? NULL : "shifts by more than a word";
	case JA: return check_jump(i->k, 0, left);
	case JEQ_K:
	case JEQ_X:
	case JGT_K:
	case JGT_X:
	case JGE_K:
	case JGE_X:
	case JSET_K:
	case JSET_X: return check_jump(i->jt, i->jf, left);
	default: return "unknown instruction";
	}
}

const char *bpf_check(const struct fp_bpf *prog, uint32_t n, uint32_t *at)
{
	*at = 0;
	if (n == 0 || n > FP_BPF_MAX)
		return "no instruction, or too many";
	for (uint32_t i = 0; i < n; i++) {
		const char *wrong = check_insn(&prog[i], n - 1 - i);

		*at = i;
		if (wrong)
			return wrong;
	}
	/* Jumps stay inside, so this is the only way to run off the end. */
	return prog[n - 1].code == RET_K || prog[n - 1].code == RET_A ? NULL : "does not end with a return";
}

/* ---- running ---- */

/* @size bytes at @at, or false beyond the frame. The sum of two 32-bit words does not overflow 64 bits. */
static bool load(const uint8_t *data, uint32_t len, uint64_t at, uint32_t size, uint32_t *value)
{
	if (at + size > len)
		return false;
	switch (size) {
	case 1: *value = data[at]; break;
	case 2: *value = be16_host(be16_load(data + at)); break;
	default: *value = be32_host(be32_load(data + at));
	}
	return true;
}

/* Return: false when it cannot be done. */
static bool calculate(uint32_t code, uint32_t *a, uint32_t b)
{
	switch (code) {
	case ADD_K:
	case ADD_X: *a += b; break;
	case SUB_K:
	case SUB_X: *a -= b; break;
	case MUL_K:
	case MUL_X: *a *= b; break;
	case OR_K:
	case OR_X: *a |= b; break;
	case AND_K:
	case AND_X: *a &= b; break;
	case XOR_K:
	case XOR_X: *a ^= b; break;
	case LSH_K:
	case LSH_X: *a = b < WORD_BITS ? *a << b : 0; break;
	case RSH_K:
	case RSH_X: *a = b < WORD_BITS ? *a >> b : 0; break;
	case DIV_K:
	case DIV_X:
		if (b == 0)
			return false;
		*a /= b;
		break;
	case MOD_K:
	case MOD_X:
		if (b == 0)
			return false;
		*a %= b;
		break;
	default: *a = 0U - *a; /* NEG */
	}
	return true;
}

static bool compare(uint32_t code, uint32_t a, uint32_t b)
{
	switch (code) {
	case JEQ_K:
	case JEQ_X: return a == b;
	case JGT_K:
	case JGT_X: return a > b;
	case JGE_K:
	case JGE_X: return a >= b;
	default: return a & b; /* JSET */
	}
}

uint32_t bpf_run(const struct fp_bpf *prog, const uint8_t *data, uint32_t len)
{
	enum { CLASS = 0x07, JMP = 0x05, SOURCE_X = 0x08 };
	uint32_t a = 0, x = 0, mem[BPF_MEM_WORDS] = { 0 };

	for (const struct fp_bpf *i = prog;; i++) {
		const uint32_t operand = i->code & SOURCE_X ? x : i->k;
		bool ok = true;

		switch (i->code) {
		case RET_K: return i->k;
		case RET_A: return a;
		case LD_IMM: a = i->k; break;
		case LD_LEN: a = len; break;
		case LD_MEM: a = mem[i->k]; break;
		case LD_W_ABS: ok = load(data, len, i->k, 4, &a); break;
		case LD_H_ABS: ok = load(data, len, i->k, 2, &a); break;
		case LD_B_ABS: ok = load(data, len, i->k, 1, &a); break;
		case LD_W_IND: ok = load(data, len, (uint64_t)x + i->k, 4, &a); break;
		case LD_H_IND: ok = load(data, len, (uint64_t)x + i->k, 2, &a); break;
		case LD_B_IND: ok = load(data, len, (uint64_t)x + i->k, 1, &a); break;
		case LDX_IMM: x = i->k; break;
		case LDX_LEN: x = len; break;
		case LDX_MEM: x = mem[i->k]; break;
		case LDX_MSH:
			ok = load(data, len, i->k, 1, &x);
			x = (x & 0xf) * 4;
			break;
		case ST: mem[i->k] = a; break;
		case STX: mem[i->k] = x; break;
		case TAX: x = a; break;
		case TXA: a = x; break;
		case JA: i += i->k; break;
		default:
			if ((i->code & CLASS) == JMP)
				i += compare(i->code, a, operand) ? i->jt : i->jf;
			else
				ok = calculate(i->code, &a, operand);
		}
		if (!ok)
			return 0;
	}
}
