/* Every function of the header, as a C program uses it. Run by tests/run, also under valgrind and AddressSanitizer. */
#define _POSIX_C_SOURCE 200809L
#include "spanlock.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND 1000000000ull

#define CHECK(what)                                                                                     \
    do {                                                                                                \
        if (!(what)) {                                                                                  \
            fprintf(stderr, "%s:%d: not so: %s (message: %s)\n", __FILE__, __LINE__, #what,             \
                    spanlock_message());                                                                \
            exit(1);                                                                                    \
        }                                                                                               \
    } while (0)
#define OK(call) CHECK((call) == SPANLOCK_OK)

static bool said(const char *part) { return strstr(spanlock_message(), part) != NULL; }

static void ranges_and_modes(void) {
    spanlock_lock *lock = spanlock_lock_new("file");
    spanlock_guard *one, *two, *none = (spanlock_guard *)1;
    OK(spanlock_wait(lock, 0, 100, SPANLOCK_ADD, NULL, SPANLOCK_FOREVER, &one));
    OK(spanlock_try(lock, 50, 100, SPANLOCK_ADD, NULL, &two));
    CHECK(spanlock_guard_first(two) == 50 && spanlock_guard_last(two) == 149 && spanlock_guard_mode(two) == SPANLOCK_ADD);
    CHECK(spanlock_try(lock, 99, 1, SPANLOCK_BLOCK, NULL, &none) == SPANLOCK_BUSY && none == NULL);
    CHECK(spanlock_wait(lock, 99, 0, SPANLOCK_EXCLUSIVE, NULL, 1000, &none) == SPANLOCK_TIMED_OUT && none == NULL);
    spanlock_guard_release(two);
    spanlock_guard_release(one);
    OK(spanlock_try(lock, 10, 0, SPANLOCK_EXCLUSIVE, NULL, &one));
    CHECK(spanlock_guard_last(one) == UINT64_MAX);
    spanlock_lock_free(lock); /* the guard keeps it */
    spanlock_guard_release(one);
}

static void bad_input(void) {
    spanlock_lock *lock = spanlock_lock_new(NULL);
    spanlock_guard *guard;
    CHECK(spanlock_try(NULL, 0, 1, SPANLOCK_ADD, NULL, &guard) == SPANLOCK_INVALID && said("the lock is NULL"));
    CHECK(spanlock_try(lock, 0, 1, SPANLOCK_ADD, NULL, NULL) == SPANLOCK_INVALID && said("place for the answer is NULL"));
    CHECK(spanlock_try(lock, 0, 1, 7, NULL, &guard) == SPANLOCK_INVALID && said("7 is no mode"));
    CHECK(spanlock_wait(lock, UINT64_MAX, 2, SPANLOCK_ADD, NULL, 0, &guard) == SPANLOCK_INVALID && said("past the last offset"));
    CHECK(spanlock_lock_new("\xff") == NULL && said("the name is no UTF-8"));
    CHECK(spanlock_request_start(lock, 0, 1, SPANLOCK_ADD, NULL, NULL, NULL, NULL) == SPANLOCK_INVALID && said("no callback"));
    OK(spanlock_try(lock, 10, 10, SPANLOCK_ADD, NULL, &guard));
    CHECK(spanlock_guard_downgrade(guard, SPANLOCK_BLOCK) == SPANLOCK_INVALID && said("cannot be downgraded"));
    CHECK(spanlock_guard_shrink(guard, 5, 2) == SPANLOCK_INVALID && said("not a part of"));
    CHECK(spanlock_guard_try_extend(guard, 12, 100) == SPANLOCK_INVALID && said("does not contain"));
    spanlock_guard *tail;
    CHECK(spanlock_guard_split(guard, 10, &tail) == SPANLOCK_INVALID && tail == NULL && said("cannot be split at 10"));
    CHECK(spanlock_guard_split(guard, 20, &tail) == SPANLOCK_INVALID && said("cannot be split at 20"));
    CHECK(spanlock_guard_first(guard) == 10 && spanlock_guard_last(guard) == 19);
    CHECK(spanlock_guard_mode(NULL) == -1 && said("the guard is NULL"));
    CHECK(strcmp(spanlock_status_name(SPANLOCK_INVALID), "SPANLOCK_INVALID") == 0);
    spanlock_guard_release(guard);
    spanlock_guard_release(NULL);
    spanlock_lock_free(lock);
    spanlock_lock_free(NULL);
}

static void conversions(void) {
    spanlock_lock *lock = spanlock_lock_new(NULL);
    spanlock_guard *guard, *tail, *other;
    OK(spanlock_try(lock, 0, 100, SPANLOCK_EXCLUSIVE, NULL, &guard));
    OK(spanlock_guard_split(guard, 60, &tail));
    CHECK(spanlock_guard_last(guard) == 59 && spanlock_guard_first(tail) == 60);
    OK(spanlock_guard_downgrade(guard, SPANLOCK_ADD));
    OK(spanlock_try(lock, 0, 60, SPANLOCK_ADD, NULL, &other));
    CHECK(spanlock_guard_try_convert(guard, SPANLOCK_EXCLUSIVE) == SPANLOCK_BUSY);
    spanlock_guard_release(other);
    OK(spanlock_guard_try_convert(guard, SPANLOCK_EXCLUSIVE));
    OK(spanlock_try(lock, 100, 10, SPANLOCK_ADD, NULL, &other));
    CHECK(spanlock_guard_try_extend(guard, 0, 110) == SPANLOCK_BUSY);
    spanlock_guard_release(other);
    OK(spanlock_guard_shrink(tail, 80, 0));
    CHECK(spanlock_guard_first(tail) == 80 && spanlock_guard_last(tail) == 99);
    OK(spanlock_guard_try_extend(guard, 0, 70));
    CHECK(spanlock_guard_last(guard) == 69);
    spanlock_guard_release(guard);
    spanlock_guard_release(tail);
    spanlock_lock_free(lock);
}

static void owners(void) {
    spanlock_lock *lock = spanlock_lock_new("rows");
    spanlock_owner *one = spanlock_owner_new("one"), *two = spanlock_owner_new("two");
    spanlock_guard *a, *b, *nested;
    OK(spanlock_wait(lock, 0, 1, SPANLOCK_EXCLUSIVE, one, SPANLOCK_FOREVER, &a));
    OK(spanlock_wait(lock, 0, 1, SPANLOCK_EXCLUSIVE, one, 0, &nested)); /* no conflict with oneself */
    OK(spanlock_wait(lock, 1, 1, SPANLOCK_EXCLUSIVE, two, SPANLOCK_FOREVER, &b));
    spanlock_guard_release(nested);
    spanlock_guard_release(a);
    spanlock_guard_release(b);
    spanlock_owner_free(one);
    spanlock_owner_free(two);
    spanlock_lock_free(lock);
}

/* What a callback has been told. */
struct told {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int calls;
    spanlock_status status;
    spanlock_guard *guard;
    spanlock_request **to_cancel; /* another one that it gives up */
    bool cancelled;
};
#define NOTHING_TOLD {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER}

static void tell(void *context, spanlock_status status, spanlock_guard *guard) {
    struct told *told = context;
    pthread_mutex_lock(&told->mutex);
    told->calls++;
    told->status = status;
    told->guard = guard;
    if (told->to_cancel != NULL)
        told->cancelled = spanlock_request_cancel(*told->to_cancel);
    pthread_cond_signal(&told->changed);
    pthread_mutex_unlock(&told->mutex);
}

static void callbacks(void) {
    spanlock_lock *lock = spanlock_lock_new(NULL);
    spanlock_guard *holder;
    spanlock_request *first, *second, *third;
    struct told at_once = NOTHING_TOLD, later = NOTHING_TOLD, never = NOTHING_TOLD, nor = NOTHING_TOLD;

    OK(spanlock_request_start(lock, 0, 10, SPANLOCK_EXCLUSIVE, NULL, tell, &at_once, NULL));
    CHECK(at_once.calls == 1 && at_once.status == SPANLOCK_OK);
    holder = at_once.guard;

    OK(spanlock_request_start(lock, 5, 10, SPANLOCK_EXCLUSIVE, NULL, tell, &later, &first));
    OK(spanlock_request_start(lock, 0, 0, SPANLOCK_ADD, NULL, tell, &never, &second));
    OK(spanlock_request_start(lock, 14, 1, SPANLOCK_ADD, NULL, tell, &nor, &third));
    CHECK(later.calls == 0 && never.calls == 0 && nor.calls == 0);
    CHECK(spanlock_request_cancel(second) && !spanlock_request_cancel(second));
    spanlock_request_free(second);
    later.to_cancel = &third; /* the callback gives up who is behind it */

    spanlock_guard_release(holder); /* calls back on this thread */
    CHECK(later.calls == 1 && later.status == SPANLOCK_OK && spanlock_guard_first(later.guard) == 5);
    CHECK(later.cancelled && never.calls == 0);
    CHECK(!spanlock_request_cancel(first));
    spanlock_request_free(first);
    spanlock_guard_release(later.guard);
    CHECK(nor.calls == 0);
    spanlock_request_free(third);
    spanlock_lock_free(lock);
}

static void batches(void) {
    spanlock_lock *from = spanlock_lock_new("from"), *to = spanlock_lock_new("to");
    spanlock_guard *guards[2], *other;
    spanlock_batch *both = spanlock_batch_new();
    OK(spanlock_batch_part(both, from, 0, 100, SPANLOCK_ADD));
    OK(spanlock_batch_part(both, to, 0, 100, SPANLOCK_EXCLUSIVE));
    CHECK(spanlock_batch_wait(both, NULL, 0, guards, 1) == SPANLOCK_INVALID && said("2 parts, and there are 1 places"));
    OK(spanlock_batch_wait(both, NULL, SPANLOCK_FOREVER, guards, 2));
    CHECK(spanlock_guard_mode(guards[0]) == SPANLOCK_ADD && spanlock_guard_mode(guards[1]) == SPANLOCK_EXCLUSIVE);
    CHECK(spanlock_try(to, 0, 1, SPANLOCK_ADD, NULL, &other) == SPANLOCK_BUSY);
    spanlock_guard *again[2];
    CHECK(spanlock_batch_wait(both, NULL, 0, again, 2) == SPANLOCK_BUSY && again[0] == NULL && again[1] == NULL);
    CHECK(spanlock_batch_wait(both, NULL, 1000, again, 2) == SPANLOCK_TIMED_OUT);
    spanlock_guard_release(guards[0]);
    spanlock_guard_release(guards[1]);
    OK(spanlock_batch_wait(both, NULL, 0, again, 2));
    spanlock_guard_release(again[0]);
    spanlock_guard_release(again[1]);
    spanlock_batch_free(both);
    spanlock_lock_free(from);
    spanlock_lock_free(to);
}

/* Two owners that cross: exactly one is told. */
struct crossing {
    spanlock_lock *lock;
    spanlock_owner *owner;
    uint64_t first, second;
    pthread_barrier_t *both;
    spanlock_status status;
};

static void *cross(void *argument) {
    struct crossing *crossing = argument;
    spanlock_guard *held, *more;
    OK(spanlock_wait(crossing->lock, crossing->first, 1, SPANLOCK_EXCLUSIVE, crossing->owner, SPANLOCK_FOREVER, &held));
    pthread_barrier_wait(crossing->both);
    crossing->status =
        spanlock_wait(crossing->lock, crossing->second, 1, SPANLOCK_EXCLUSIVE, crossing->owner, 60 * SECOND, &more);
    if (crossing->status == SPANLOCK_DEADLOCK)
        CHECK(said("left") && said("right"));
    spanlock_guard_release(more);
    spanlock_guard_release(held);
    return NULL;
}

static void deadlocks(void) {
    spanlock_lock *lock = spanlock_lock_new("rows");
    spanlock_owner *left = spanlock_owner_new("left"), *right = spanlock_owner_new("right");
    pthread_barrier_t both;
    pthread_barrier_init(&both, NULL, 2);
    struct crossing one = {lock, left, 0, 1, &both, 0}, two = {lock, right, 1, 0, &both, 0};
    pthread_t thread;
    pthread_create(&thread, NULL, cross, &two);
    cross(&one);
    pthread_join(thread, NULL);
    CHECK((one.status == SPANLOCK_OK && two.status == SPANLOCK_DEADLOCK) ||
          (one.status == SPANLOCK_DEADLOCK && two.status == SPANLOCK_OK));
    pthread_barrier_destroy(&both);
    spanlock_owner_free(left);
    spanlock_owner_free(right);
    spanlock_lock_free(lock);
}

static void snapshots(void) {
    spanlock_lock *lock = spanlock_lock_new(NULL);
    spanlock_guard *guard;
    OK(spanlock_try(lock, 0, 4096, SPANLOCK_BLOCK, NULL, &guard));
    char *text = spanlock_snapshot(lock);
    CHECK(text != NULL && strstr(text, "0..4096") != NULL);
    spanlock_text_free(text);
    CHECK(spanlock_snapshot(NULL) == NULL);
    spanlock_guard_release(guard);
    spanlock_lock_free(lock);
}

int main(void) {
    ranges_and_modes();
    bad_input();
    conversions();
    owners();
    callbacks();
    batches();
    deadlocks();
    snapshots();
    puts("the interface for C: all as it should be");
    return 0;
}
