/* A file system that lacks a call, for a process that preloads this. NO_LINK=ERRNO: hard links between folders fail (BeeGFS 1, FUSE 18 or 95);
   NO_FLOCK=ERRNO: locks fail (38 on Lustre without them, 37 on NFS without lockd). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>

static int lacks(const char *name) {
    const char *number = getenv(name);
    if (number) errno = atoi(number);
    return number != NULL;
}

int link(const char *from, const char *to) {
    if (lacks("NO_LINK")) return -1;
    return ((int (*)(const char *, const char *))dlsym(RTLD_NEXT, "link"))(from, to);
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    if (lacks("NO_LINK")) return -1;
    return ((int (*)(int, const char *, int, const char *, int))dlsym(RTLD_NEXT, "linkat"))(from_folder, from, to_folder, to, flags);
}

int flock(int file, int operation) {
    if (lacks("NO_FLOCK")) return -1;
    return ((int (*)(int, int))dlsym(RTLD_NEXT, "flock"))(file, operation);
}
