/* SPDX-License-Identifier: Apache-2.0 */
/**
 * fence.h - the word that says whether this node may forward, read before each group of transmissions
 *
 * DOC: Theory of Operation
 *
 * Role and term stand in one 64-bit word, so that nobody ever sees one without the other.
 *
 *   writer    what it may do                                            when
 *   control   any role, any term that is not older                      fence_set()
 *   pulse     ACTIVE -> PASSIVE, same term, nothing else                a higher term was heard; this node hangs
 *
 * Prohibited: pulse setting ACTIVE. Ceasing to forward needs no permission; beginning to needs the role
 * machine.
 *
 * The word is worth something only until the lease ends (lease.h), which the pulse thread renews. Who wakes from a
 * stop looks at the lease and then at the word, and only then at the clock: a lease renewed after the word was
 * read would speak for a word that is not that one any more.
 *
 * The two may race: control sets ACTIVE while pulse hears a higher term. Each writes its own word first and
 * then looks at the other's (all seq_cst), so at least one of them sees both, and fences.
 */
#ifndef FENCE_H
#define FENCE_H

#include <errno.h>

#include "base.h"

enum { FENCE_ROLE_BITS = 3 };

/**
 * TERM_MAX - The highest term that anybody may name; flexha/units.py has the same
 *
 * No pair gets there: with a reign every microsecond it would take eight years. But a broken peer may name any
 * number, and what it names is followed and written to disk. So what comes in is refused above this limit,
 * which is far below what the word holds.
 */
#define TERM_MAX (UINT64_C(1) << 48)
static_assert(TERM_MAX < UINT64_MAX >> FENCE_ROLE_BITS, "a term fits beside the role, with room above");

struct fence {
	CACHE_ALIGNED _Atomic uint64_t word;
	_Atomic uint64_t heard_term; /* highest term that the peer claimed as ACTIVE */
	_Atomic uint64_t lease_until_ns;
};

enum fence_says { FENCE_CLOSED, FENCE_OPEN, FENCE_EXPIRED };

static inline uint64_t fence_word(uint32_t role, uint64_t term)
{
	return term << FENCE_ROLE_BITS | role;
}

static inline uint32_t fence_role(uint64_t word)
{
	return (uint32_t)(word & ((1u << FENCE_ROLE_BITS) - 1));
}

static inline uint64_t fence_term(uint64_t word)
{
	return word >> FENCE_ROLE_BITS;
}

/* Acquire: pairs with fence_set(), so what control wrote before it changed the role is seen. */
static inline uint64_t fence_read(const struct fence *f)
{
	return atomic_load_explicit(&((struct fence *)(uintptr_t)f)->word, memory_order_acquire);
}

static inline bool fence_is_active(const struct fence *f)
{
	return fence_role(fence_read(f)) == FP_ROLE_ACTIVE;
}

static inline uint64_t fence_lease(const struct fence *f)
{
	return atomic_load_explicit(&((struct fence *)(uintptr_t)f)->lease_until_ns, memory_order_acquire);
}

/**
 * fence_renew() - The word may be believed until then
 *
 * Context: pulse thread, after it has lowered the fence if that was due; control before that thread starts.
 */
static inline void fence_renew(struct fence *f, uint64_t until_ns)
{
	atomic_store_explicit(&f->lease_until_ns, until_ns, memory_order_release);
}

/**
 * fence_lower() - Stop forwarding if a term above ours was heard
 *
 * Context: pulse thread, control thread.
 * Return:  true if this call fenced an ACTIVE node.
 */
static inline bool fence_lower(struct fence *f)
{
	uint64_t word = atomic_load(&f->word);

	while (fence_role(word) == FP_ROLE_ACTIVE && fence_term(word) < atomic_load(&f->heard_term)) {
		if (atomic_compare_exchange_weak(&f->word, &word,
						 fence_word(FP_ROLE_PASSIVE, fence_term(word))))
			return true;
	}
	return false;
}

/**
 * fence_yield() - Stop forwarding, whatever was heard
 *
 * Context: pulse thread.
 * Return:  true if this call fenced an ACTIVE node.
 */
static inline bool fence_yield(struct fence *f)
{
	uint64_t word = atomic_load(&f->word);

	while (fence_role(word) == FP_ROLE_ACTIVE) {
		if (atomic_compare_exchange_weak(&f->word, &word,
						 fence_word(FP_ROLE_PASSIVE, fence_term(word))))
			return true;
	}
	return false;
}

/**
 * fence_heard() - The peer claims to be ACTIVE in @term
 *
 * Context: pulse thread, the only writer of heard_term.
 * Return:  true if that fenced an ACTIVE node.
 */
static inline bool fence_heard(struct fence *f, uint64_t term)
{
	if (term > atomic_load_explicit(&f->heard_term, memory_order_relaxed))
		atomic_store(&f->heard_term, term);
	return fence_lower(f);
}

/**
 * fence_set() - Set role and term
 *
 * Context: control thread.
 * Return:  0; -ESTALE for a term older than ours, or for ACTIVE in a term older than one heard.
 */
static inline int fence_set(struct fence *f, uint32_t role, uint64_t term)
{
	if (term < fence_term(atomic_load(&f->word)))
		return -ESTALE;
	if (role == FP_ROLE_ACTIVE && term < atomic_load(&f->heard_term))
		return -ESTALE;
	atomic_store(&f->word, fence_word(role, term));
	return fence_lower(f) ? -ESTALE : 0;
}

#endif /* FENCE_H */
