/* Kills the process with SIGKILL exactly before, after or in the middle of the N-th file-changing call on chosen files.
 *
 * Preloaded (LD_PRELOAD) into the program under test. Environment:
 *   CRASH_MATCH  only calls on paths that contain this text count
 *   CRASH_AT     number of the call (from 1) at which the process dies; 0 or unset: never
 *   CRASH_WHEN   "before" (the call does not happen), "after" (it does), "half" (half the bytes of a write go in;
 *                like "before" for a call that writes nothing)
 *   CRASH_LOG    one line a counted call is added to this file: number, call, path
 * Counted: write, pwrite, fsync, fdatasync, ftruncate, rename, unlink. Linux, 64 bit.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long counted;

static void die(void) {
    syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    for (;;) pause();
}

static const char *setting(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

static void note(long number, const char *call, const char *path) {
    const char *log = setting("CRASH_LOG");
    if (!*log) return;
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%ld %s %s\n", number, call, path);
    long fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (fd < 0) return;
    syscall(SYS_write, fd, line, (size_t)length);
    syscall(SYS_close, fd);
}

/* 1 where this call is the one to die at; counts it where its path matches. */
static int due(const char *call, const char *path) {
    const char *match = setting("CRASH_MATCH");
    if (!*match || !path || !strstr(path, match)) return 0;
    long number = atomic_fetch_add(&counted, 1) + 1;
    note(number, call, path);
    return number == atol(setting("CRASH_AT"));
}

static int due_fd(const char *call, int fd) {
    if (!*setting("CRASH_MATCH")) return 0;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return due(call, path);
}

static int when(const char *moment) { return strcmp(setting("CRASH_WHEN"), moment) == 0; }

/* Do `call` around which the process may have to die; `half` is what is done instead for CRASH_WHEN=half. */
#define AROUND(is_due, half, call)        \
    int is_due_ = (is_due);               \
    if (is_due_ && when("half")) {        \
        half;                             \
        die();                            \
    }                                     \
    if (is_due_ && !when("after")) die(); \
    long result = (call);                 \
    if (is_due_) die();                   \
    return result

ssize_t write(int fd, const void *data, size_t count) {
    AROUND(due_fd("write", fd), syscall(SYS_write, fd, data, count / 2), syscall(SYS_write, fd, data, count));
}

ssize_t pwrite64(int fd, const void *data, size_t count, off64_t at) {
    AROUND(due_fd("pwrite", fd), syscall(SYS_pwrite64, fd, data, count / 2, at),
           syscall(SYS_pwrite64, fd, data, count, at));
}

ssize_t pwrite(int fd, const void *data, size_t count, off_t at) { return pwrite64(fd, data, count, at); }

int fsync(int fd) { AROUND(due_fd("fsync", fd), (void)0, syscall(SYS_fsync, fd)); }

int fdatasync(int fd) { AROUND(due_fd("fdatasync", fd), (void)0, syscall(SYS_fdatasync, fd)); }

int ftruncate64(int fd, off64_t length) { AROUND(due_fd("ftruncate", fd), (void)0, syscall(SYS_ftruncate, fd, length)); }

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

int rename(const char *from, const char *to) {
    AROUND(due("rename", to), (void)0, syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}

int renameat(int from_fd, const char *from, int to_fd, const char *to) {
    AROUND(due("rename", to), (void)0, syscall(SYS_renameat2, from_fd, from, to_fd, to, 0));
}

int unlink(const char *path) { AROUND(due("unlink", path), (void)0, syscall(SYS_unlinkat, AT_FDCWD, path, 0)); }
