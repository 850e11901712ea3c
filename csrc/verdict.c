/* SPDX-License-Identifier: Apache-2.0 */
/**
 * verdict.c - names of the verdicts
 */
#include "verdict.h"

static const struct {
	const char *name;
	const char *help;
	enum verdict_class class;
} verdicts[] = {
#define X(id, name, class, help) [V_##id] = { #name, help, VERDICT_##class },
	VERDICTS(X)
#undef X
};

static_assert(ARRAY_SIZE(verdicts) == V_COUNT, "verdict.h has one row for each verdict");

const char *verdict_name(uint32_t verdict)
{
	return verdict < V_COUNT ? verdicts[verdict].name : NULL;
}

const char *verdict_help(uint32_t verdict)
{
	return verdict < V_COUNT ? verdicts[verdict].help : NULL;
}

bool verdict_is_drop(uint32_t verdict)
{
	return verdict < V_COUNT && verdicts[verdict].class == VERDICT_DROP;
}
