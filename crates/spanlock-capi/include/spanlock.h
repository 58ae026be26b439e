/*
 * spanlock: locks for ranges of bytes.
 *
 * Disjoint ranges never wait for each other; conflicting requests are granted in order of arrival; a cycle
 * of owners that wait for one another ends with SPANLOCK_DEADLOCK instead of a hang.
 *
 *     spanlock_lock *file = spanlock_lock_new("file");
 *     spanlock_guard *guard;
 *     if (spanlock_wait(file, 0, 4096, SPANLOCK_EXCLUSIVE, NULL, SPANLOCK_FOREVER, &guard) != SPANLOCK_OK)
 *         fprintf(stderr, "%s\n", spanlock_message());
 *     spanlock_guard_release(guard);
 *     spanlock_lock_free(file);
 *
 * Threads: any thread may use any handle. What a function takes as a pointer to const, several threads may use
 * at once; what it takes as a pointer to non-const, one thread at a time. A guard may be released by another
 * thread than the one that asked. A handle is freed once, when no call uses it any more.
 * After fork(2) a child must not use a lock that other threads were using at that moment.
 *
 * Errors: a call that fails has changed nothing, and says why in spanlock_message().
 */

#ifndef SPANLOCK_H
#define SPANLOCK_H

/* Made by cbindgen from crates/spanlock-capi/src: `cargo test -p spanlock-capi` says if it is out of date. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// A timeout without end.
#define SPANLOCK_FOREVER UINT64_MAX

// Ranges that are asked for together: all of them are granted, at one moment, or none. It cannot
// be part of a deadlock if its owner holds nothing else.
typedef struct spanlock_batch spanlock_batch;

// A range that is held. `spanlock_guard_release` lets it go; any thread may.
typedef struct spanlock_guard spanlock_guard;

// A lock: for one file, device or table.
typedef struct spanlock_lock spanlock_lock;

// An owner: a transaction, a client, a job. It never conflicts with itself, whichever threads ask
// for it, and what its requests wait for is looked at for deadlocks.
//
// A request without an owner (NULL) is its own: a thread that holds a range so, and waits for one
// that conflicts, waits for itself, for ever. So give an owner to whoever holds one range while it
// asks for another.
typedef struct spanlock_owner spanlock_owner;

// A request under way. Free it with `spanlock_request_free`, whatever became of it.
typedef struct spanlock_request spanlock_request;

// What a call answers: one of the SPANLOCK_ statuses. `spanlock_message` says more.
typedef int32_t spanlock_status;

// In which mode a range is asked for: SPANLOCK_ADD, SPANLOCK_BLOCK or SPANLOCK_EXCLUSIVE.
typedef int32_t spanlock_mode;

// What is called when a request is answered: with SPANLOCK_OK and the guard, which is the
// callback's from then on, or with SPANLOCK_DEADLOCK and NULL (`spanlock_message` says more).
//
// It runs on the thread that made it possible: the one that asks, or the one that released the
// range, before that call returns. So it should be short, and must not wait for what that thread
// holds. It may call this library, also to cancel this request or others.
typedef void (*spanlock_granted)(void *context, spanlock_status status, spanlock_guard *guard);

// Done.
#define SPANLOCK_OK 0

// Somebody is in the way, and the request was not to wait.
#define SPANLOCK_BUSY 1

// The time was over first. Nothing is held.
#define SPANLOCK_TIMED_OUT 2

// Whoever is waited for waits for this owner. Nothing new is held; let go of what the owner holds,
// and ask for all of it at once, as a batch.
#define SPANLOCK_DEADLOCK 3

// An argument is out of range or NULL. Nothing has happened.
#define SPANLOCK_INVALID 4

// A fault of the library itself. Nothing new is held.
#define SPANLOCK_PANIC 5

// Goes with other adders: readers, misses of a cache.
#define SPANLOCK_ADD 0

// Goes with other blockers: direct writes.
#define SPANLOCK_BLOCK 1

// Goes with nobody.
#define SPANLOCK_EXCLUSIVE 2

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Why the last call of this thread that failed did so, as a sentence. It is there until the next
// one that fails; do not free it.
const char *spanlock_message(void);

// The name of a status, as "SPANLOCK_OK". Do not free it.
const char *spanlock_status_name(spanlock_status status);

// A new lock; `name`, for messages, may be NULL. NULL if `name` is no UTF-8.
spanlock_lock *spanlock_lock_new(const char *name);

// Frees the handle. Guards and requests keep the lock itself for as long as they need it. NULL is
// allowed.
void spanlock_lock_free(spanlock_lock *lock);

// A new owner; `name`, for messages, may be NULL. NULL if `name` is no UTF-8.
spanlock_owner *spanlock_owner_new(const char *name);

// Frees the handle. What its requests hold, they go on holding. NULL is allowed.
void spanlock_owner_free(spanlock_owner *owner);

// Asks for `length` bytes from `offset` on (0: to the end), and waits for at most `timeout_ns`
// nanoseconds (SPANLOCK_FOREVER: without end) until nobody who came before is in the way.
// Conflicting requests are granted in order of arrival. SPANLOCK_OK: `*guard` holds the bytes.
// SPANLOCK_TIMED_OUT, SPANLOCK_DEADLOCK (of an owner only), SPANLOCK_INVALID: `*guard` is NULL.
spanlock_status spanlock_wait(const spanlock_lock *lock,
                              uint64_t offset,
                              uint64_t length,
                              spanlock_mode mode,
                              const spanlock_owner *owner,
                              uint64_t timeout_ns,
                              spanlock_guard **guard);

// As `spanlock_wait`, but SPANLOCK_BUSY if anybody holds, waits or is just asking in a mode that
// conflicts.
spanlock_status spanlock_try(const spanlock_lock *lock,
                             uint64_t offset,
                             uint64_t length,
                             spanlock_mode mode,
                             const spanlock_owner *owner,
                             spanlock_guard **guard);

// Who holds and who waits, for how long and for whom, as text with a drawing. Free it with
// `spanlock_text_free`. NULL if `lock` is.
char *spanlock_snapshot(const spanlock_lock *lock);

// Frees what `spanlock_snapshot` gave. NULL is allowed.
void spanlock_text_free(char *text);

// Lets go of the range, and of the guard. NULL is allowed.
void spanlock_guard_release(spanlock_guard *guard);

// The first byte that is held. (0 if `guard` is NULL.)
uint64_t spanlock_guard_first(const spanlock_guard *guard);

// The last byte that is held. (0 if `guard` is NULL.)
uint64_t spanlock_guard_last(const spanlock_guard *guard);

// The mode in which it is held. (-1 if `guard` is NULL.)
spanlock_mode spanlock_guard_mode(const spanlock_guard *guard);

// Makes an exclusive guard one that adds or blocks, without letting go. Whoever waits for that
// goes on.
spanlock_status spanlock_guard_downgrade(spanlock_guard *guard, spanlock_mode to);

// Changes the mode if nobody is in the way; else SPANLOCK_BUSY, and it is as it was.
spanlock_status spanlock_guard_try_convert(spanlock_guard *guard, spanlock_mode to);

// Extends what is held to `length` bytes from `offset` on (0: to the end) if nobody is in the way;
// else SPANLOCK_BUSY, and it is as it was.
spanlock_status spanlock_guard_try_extend(spanlock_guard *guard, uint64_t offset, uint64_t length);

// Gives back all but `length` bytes from `offset` on (0: to the end of what is held).
spanlock_status spanlock_guard_shrink(spanlock_guard *guard, uint64_t offset, uint64_t length);

// Makes two guards of one: `guard` keeps the bytes before `at`, `*tail` gets the others. No byte
// is let go of. `at` lies within what is held, and is not its first byte.
spanlock_status spanlock_guard_split(spanlock_guard *guard, uint64_t at, spanlock_guard **tail);

// A batch without parts.
spanlock_batch *spanlock_batch_new(void);

// Frees it. NULL is allowed.
void spanlock_batch_free(spanlock_batch *batch);

// One more part: `length` bytes of `lock` from `offset` on (0: to the end).
spanlock_status spanlock_batch_part(spanlock_batch *batch,
                                    const spanlock_lock *lock,
                                    uint64_t offset,
                                    uint64_t length,
                                    spanlock_mode asked);

// Waits for all parts, as `spanlock_wait` for one; a timeout of 0 is a try, and SPANLOCK_BUSY its
// failure. `guards` has room for `count` guards, the number of parts; they come in the order of
// the parts. The batch can be used again.
spanlock_status spanlock_batch_wait(const spanlock_batch *batch,
                                    const spanlock_owner *owner,
                                    uint64_t timeout_ns,
                                    spanlock_guard **guards,
                                    size_t count);

// Asks for `length` bytes from `offset` on (0: to the end), and returns; `granted` is called with
// `context` when the request is answered: exactly once, perhaps before this returns, unless it is
// cancelled first. It has its place in the queue when this returns. `*request` is a handle to cancel
// it by, for a deadline say, and has to be freed; if `request` is NULL, there is none.
spanlock_status spanlock_request_start(const spanlock_lock *lock,
                                       uint64_t offset,
                                       uint64_t length,
                                       spanlock_mode mode,
                                       const spanlock_owner *owner,
                                       spanlock_granted granted,
                                       void *context,
                                       spanlock_request **request);

// Gives the request up. True: it had not been answered, and its callback is not going to be
// called. False: it was answered (the callback may be running still), or cancelled before, or is
// NULL.
bool spanlock_request_cancel(const spanlock_request *request);

// Gives the request up, unless it was answered, and frees the handle. NULL is allowed.
void spanlock_request_free(spanlock_request *request);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SPANLOCK_H */
