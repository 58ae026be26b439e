/*
 * A small block device over a file, with several queues: writes need not be aligned to its blocks.
 *
 * A write of whole blocks goes to the file as it is. One that is not aligned reads its blocks, changes a part and
 * writes them back. Two queues that do so in one block at the same time lose an update: each writes back the
 * other's old bytes. A range lock answers it:
 *
 *   - an unaligned write takes its blocks exclusively, from before it reads to after it has written;
 *   - an aligned write adds: it goes beside others, and waits only for unaligned ones in its blocks.
 *
 * The writing is done by another thread, as with asynchronous I/O: the guard travels with the job, and the thread
 * that completes it lets the range go.
 *
 *   block_cache            with the lock: every update is there at the end
 *   block_cache --no-lock  without: says how many are lost
 */
#define _GNU_SOURCE
#include "spanlock.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK = 512, BLOCKS = 64, QUEUES = 4, WRITES = 2000 };

static void check(spanlock_status status, const char *what) {
    if (status != SPANLOCK_OK) {
        fprintf(stderr, "%s: %s: %s\n", what, spanlock_status_name(status), spanlock_message());
        exit(1);
    }
}

/* A write under way. */
struct job {
    uint64_t offset;
    size_t length;
    unsigned char bytes[BLOCK];
    spanlock_guard *guard;
    struct job *next;
};

/* The file, and the thread that writes to it. */
struct device {
    int fd;
    spanlock_lock *ranges; /* NULL: without a lock */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct job *first, **last;
    int left;     /* jobs that were not completed yet */
    bool closing;
};

static void submit(struct device *device, struct job *job) {
    pthread_mutex_lock(&device->mutex);
    job->next = NULL;
    *device->last = job;
    device->last = &job->next;
    pthread_cond_broadcast(&device->changed);
    pthread_mutex_unlock(&device->mutex);
}

static void *complete(void *argument) {
    struct device *device = argument;
    pthread_mutex_lock(&device->mutex);
    for (;;) {
        while (device->first == NULL && !device->closing)
            pthread_cond_wait(&device->changed, &device->mutex);
        struct job *job = device->first;
        if (job == NULL)
            break;
        device->first = job->next;
        if (device->first == NULL)
            device->last = &device->first;
        pthread_mutex_unlock(&device->mutex);

        if (pwrite(device->fd, job->bytes, job->length, (off_t)job->offset) != (ssize_t)job->length) {
            perror("pwrite");
            exit(1);
        }
        spanlock_guard_release(job->guard); /* by this thread, not by the one that asked */
        free(job);

        pthread_mutex_lock(&device->mutex);
        device->left--;
        pthread_cond_broadcast(&device->changed);
    }
    pthread_mutex_unlock(&device->mutex);
    return NULL;
}

static struct job *new_job(struct device *device, uint64_t offset, size_t length) {
    struct job *job = calloc(1, sizeof *job);
    if (job == NULL)
        abort();
    job->offset = offset;
    job->length = length;
    pthread_mutex_lock(&device->mutex);
    device->left++;
    pthread_mutex_unlock(&device->mutex);
    return job;
}

/* Adds one to a number of 8 bytes within a block: reads the block, changes it, writes it back. */
static void add_one(struct device *device, uint64_t offset) {
    uint64_t block = offset / BLOCK * BLOCK, number;
    struct job *job = new_job(device, block, BLOCK);
    if (device->ranges != NULL)
        check(spanlock_wait(device->ranges, block, BLOCK, SPANLOCK_EXCLUSIVE, NULL, SPANLOCK_FOREVER, &job->guard),
              "an unaligned write");
    if (pread(device->fd, job->bytes, BLOCK, (off_t)block) != BLOCK) {
        perror("pread");
        exit(1);
    }
    memcpy(&number, job->bytes + (offset - block), sizeof number);
    number++;
    memcpy(job->bytes + (offset - block), &number, sizeof number);
    submit(device, job); /* the next one of this block waits until it is written */
}

struct aligned {
    struct device *device;
    struct job *job;
};

/* On whichever thread made it possible; so it must not wait. */
static void granted(void *context, spanlock_status status, spanlock_guard *guard) {
    struct aligned *aligned = context;
    check(status, "an aligned write");
    aligned->job->guard = guard;
    submit(aligned->device, aligned->job);
    free(aligned);
}

/* A whole block. It is written when its range is granted; the caller goes on at once. */
static void write_block(struct device *device, uint64_t offset, unsigned char fill) {
    struct job *job = new_job(device, offset, BLOCK);
    memset(job->bytes, fill, BLOCK);
    if (device->ranges == NULL) {
        submit(device, job);
        return;
    }
    struct aligned *aligned = malloc(sizeof *aligned);
    if (aligned == NULL)
        abort();
    *aligned = (struct aligned){device, job};
    check(spanlock_request_start(device->ranges, offset, BLOCK, SPANLOCK_ADD, NULL, granted, aligned, NULL),
          "an aligned write");
}

struct queue {
    struct device *device;
    int number;
    pthread_t thread;
};

/* Each queue counts in a number of its own in every block of the first half, and fills blocks of the second. */
static void *write_some(void *argument) {
    struct queue *queue = argument;
    for (int i = 0; i < WRITES; i++) {
        uint64_t block = (uint64_t)(i % (BLOCKS / 2));
        add_one(queue->device, block * BLOCK + (uint64_t)queue->number * 8);
        write_block(queue->device, (BLOCKS / 2 + block) * BLOCK, (unsigned char)(i + queue->number));
    }
    return NULL;
}

int main(int argc, char **argv) {
    bool with_lock = !(argc > 1 && strcmp(argv[1], "--no-lock") == 0);
    char path[] = "/tmp/block_cache.XXXXXX";
    struct device device = {.fd = mkstemp(path), .ranges = with_lock ? spanlock_lock_new("device") : NULL,
                            .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    device.last = &device.first;
    if (device.fd < 0 || unlink(path) != 0 || ftruncate(device.fd, BLOCKS * BLOCK) != 0) {
        perror(path);
        return 1;
    }

    pthread_t completer;
    struct queue queues[QUEUES];
    pthread_create(&completer, NULL, complete, &device);
    for (int i = 0; i < QUEUES; i++) {
        queues[i] = (struct queue){.device = &device, .number = i};
        pthread_create(&queues[i].thread, NULL, write_some, &queues[i]);
    }
    for (int i = 0; i < QUEUES; i++)
        pthread_join(queues[i].thread, NULL);
    pthread_mutex_lock(&device.mutex);
    while (device.left > 0)
        pthread_cond_wait(&device.changed, &device.mutex);
    device.closing = true;
    pthread_cond_broadcast(&device.changed);
    pthread_mutex_unlock(&device.mutex);
    pthread_join(completer, NULL);

    uint64_t counted = 0, mixed = 0;
    unsigned char bytes[BLOCK];
    for (int block = 0; block < BLOCKS; block++) {
        if (pread(device.fd, bytes, BLOCK, (off_t)block * BLOCK) != BLOCK) {
            perror("pread");
            return 1;
        }
        for (int i = 0; block < BLOCKS / 2 && i < QUEUES; i++) {
            uint64_t number;
            memcpy(&number, bytes + i * 8, sizeof number);
            counted += number;
        }
        for (int i = 0; block >= BLOCKS / 2 && i < BLOCK; i++)
            mixed += bytes[i] != bytes[0];
    }
    uint64_t written = (uint64_t)QUEUES * WRITES;
    printf("%s: %llu unaligned writes, %llu of them lost; %llu aligned ones, %llu bytes of a block that are not its last writer's\n",
           with_lock ? "with the lock" : "without a lock", (unsigned long long)written,
           (unsigned long long)(written - counted), (unsigned long long)written, (unsigned long long)mixed);

    if (with_lock) {
        char *text = spanlock_snapshot(device.ranges);
        printf("afterwards: %s\n", text);
        spanlock_text_free(text);
    }
    spanlock_lock_free(device.ranges);
    close(device.fd);
    return with_lock && counted != written;
}
