/* SPDX-License-Identifier: Apache-2.0 */
/**
 * channel.h - the sync connection once it stands: a thread that owns the socket, the records of TLS and a lane
 *
 *   socket -> raw -> tls_open() -> in: frames -> lane_take(), or control (fp_channel_take)
 *   socket <- out <- tls_seal() <------------- lane_put(), lane_ack(), or control (fp_channel_send)
 *
 * Control (Python) has made the connection and knows who the peer is. Frames are worked off in their order,
 * whoever takes them: behind one that is for control nothing is, until control has taken it, and given the lane
 * its mode again.
 *
 * One lock for everything. The thread gives it away while it sleeps, and whenever control asks for it. Bounds: in
 * holds a frame, a read and a record; when it is full nothing is read. out has what control and the lane put there: the
 * lane's window bounds its part, and control is told how much waits.
 */
#ifndef CHANNEL_H
#define CHANNEL_H

#include <pthread.h>

#include "bytes.h"
#include "lane.h"
#include "tls_record.h"

/**
 * struct fp_channel - A connection
 * @cfg:      as control said
 * @lock:     everything below but the descriptors
 * @wanted:   how many wait for @lock
 * @thread:   detached; ends after fp_channel_close()
 * @wake_fd:  wakes it
 * @tell_fd:  wakes control
 * @read, @seal: the keys
 * @asks:     enum fp_ask, of keys
 * @raw:      records, as far as they have come
 * @in:       frames, likewise
 * @out:      what is to be sent
 * @lane:     the short way
 * @bytes_in, @bytes_out: of the socket
 * @ended:    enum fp_end; then nothing is read or written any more
 * @error:    which
 * @closing:  control is through with it
 * @linger_ns: until then what waits is sent
 */
struct fp_channel {
	struct fp_channel_cfg cfg;
	pthread_mutex_t lock;
	_Atomic uint32_t wanted;
	pthread_t thread;
	int wake_fd, tell_fd;
	struct tls_half read, seal;
	uint32_t asks;
	struct bytes raw, in, out;
	struct lane lane;
	uint64_t bytes_in, bytes_out;
	uint32_t ended;
	int32_t error;
	bool closing;
	uint64_t linger_ns;
};

enum { CHANNEL_TAKE = 65536 }; /* bytes at a time, so that one turn of control is short */

/**
 * channel_make() - All of it but its thread
 *
 * Arguments are as of fp_channel_open(). @out->cfg.fd is -1: the socket is the caller's, until it is put there.
 * Return: 0, -EINVAL or -ENOMEM, -EMFILE.
 */
int channel_make(fp_dp *dp, const struct fp_channel_cfg *cfg, const uint8_t *plain, uint32_t n_plain,
		 const uint8_t *rest, uint32_t n_rest, struct fp_channel **out);

/* channel_lock() - For control: the thread gives way */
void channel_lock(struct fp_channel *ch);

void channel_unlock(struct fp_channel *ch);

/**
 * channel_ready() - Bytes of whole frames that are for control, from ch->in.at on
 * @cap: one frame, or no more than so many
 */
size_t channel_ready(const struct fp_channel *ch, size_t cap);

/* channel_put() - Send, or keep what cannot be sent yet; -ENOMEM, -EPIPE */
int channel_put(struct fp_channel *ch, uint8_t type, const uint8_t *data, size_t n);

/* channel_wake() - The thread is to look */
void channel_wake(struct fp_channel *ch);

/* channel_tell() - Control is to look */
void channel_tell(struct fp_channel *ch);

/**
 * channel_pass() - The thread's: everything that can be done now, @ch->lock being held
 * @readable: there may be something to read
 */
void channel_pass(struct fp_channel *ch, bool readable);

/* channel_run() - The thread; frees @ch at its end */
void *channel_run(void *ch);

void channel_free(struct fp_channel *ch);

#endif /* CHANNEL_H */
