/* The least that has to be done, to compare zinit with.
 *
 * floor supervise N SERVICE FIFO [CGROUP]
 *                                  start N services named s0, s1, …, and again
 *                                  whichever ends; SIGTERM ends them all. With
 *                                  CGROUP, a directory, each has a session, two
 *                                  pipes for what it prints and a cgroup in there
 * floor store FILE CMD ARG…        store what CMD prints with splice(2)
 * floor connect SOCKET             connect, and exit */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t ending;

static struct service {
	pid_t pid;
	char name[20];
	int out[2];
} *services;
static int count, isolated, cgroups = -1;

/* It leads a process group, in which all is that is not isolated. */
static void terminate(int sig) {
	if (ending) return;
	ending = 1;
	if (!isolated) kill(0, sig);
	else
		for (int i = 0; i < count; i++) kill(-services[i].pid, sig);
}

static pid_t spawn(char **argv, int out) {
	pid_t pid = vfork();
	if (pid == 0) {
		if (out >= 0) dup2(out, 1);
		execv(argv[0], argv);
		_exit(127);
	}
	return pid;
}

/* vfork(2) with clone3(2), which has no wrapper and must not be called by one that
 * returns: parent and child are on one stack. */
static inline __attribute__((always_inline)) pid_t vforkInto(struct clone_args *args) {
#ifdef __x86_64__
	long r;
	__asm__ volatile("syscall" : "=a"(r) : "0"(SYS_clone3), "D"(args), "S"(sizeof *args) : "rcx", "r11", "memory");
	return r;
#else
	register long x0 __asm__("x0") = (long)args, x1 __asm__("x1") = sizeof *args, x8 __asm__("x8") = SYS_clone3;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x1), "r"(x8) : "memory");
	return x0;
#endif
}

static __attribute__((noinline, noreturn)) void execIsolated(char **argv, int out, int err) {
	setsid();
	dup2(out, 1);
	dup2(err, 2);
	execv(argv[0], argv);
	_exit(127);
}

static pid_t spawnIsolated(char **argv, struct service *s) {
	int out[2], err[2];
	if (pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC) || mkdirat(cgroups, s->name, 0755)) return -1;
	int cgroup = openat(cgroups, s->name, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct clone_args args = {.flags = CLONE_VM | CLONE_VFORK | CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = cgroup};
	pid_t pid = vforkInto(&args);
	if (pid == 0) execIsolated(argv, out[1], err[1]);
	close(cgroup);
	close(out[1]);
	close(err[1]);
	s->out[0] = out[0];
	s->out[1] = err[0];
	return pid;
}

static int supervise(int n, char *service, char *fifo, char *cgroup) {
	services = calloc(n, sizeof *services);
	if (cgroup) {
		isolated = 1;
		if ((cgroups = open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) return 3;
	}
	for (int left = n; left > 0;) {
		struct service *s = services;
		if (count < n) {
			s += count;
			snprintf(s->name, sizeof s->name, "s%d", count);
		} else {
			pid_t pid = waitpid(-1, 0, 0);
			if (pid < 0 && errno != EINTR) return 4;
			while (s < services + n && s->pid != pid) s++;
			if (s == services + n) continue;
			if (isolated) {
				close(s->out[0]);
				close(s->out[1]);
				unlinkat(cgroups, s->name, AT_REMOVEDIR);
			}
			if (ending) {
				left--;
				continue;
			}
		}
		char *argv[] = {service, fifo, s->name, 0};
		if ((s->pid = isolated ? spawnIsolated(argv, s) : spawn(argv, -1)) < 0) return 3;
		if (count < n) count++;
	}
	return 0;
}

static int store(char *file, char **argv) {
	int ends[2], fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || pipe2(ends, O_CLOEXEC)) return 3;
	pid_t pid = spawn(argv, ends[1]);
	close(ends[1]);
	while (!ending && splice(ends[0], 0, fd, 0, 1 << 20, SPLICE_F_MOVE) > 0) {
	}
	return waitpid(pid, 0, 0) == pid ? 0 : 4;
}

static int reach(char *path) {
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	strncpy(to.sun_path, path, sizeof to.sun_path - 1);
	return connect(fd, (struct sockaddr *)&to, sizeof to) ? 3 : 0;
}

int main(int argc, char **argv) {
	struct sigaction on = {.sa_handler = terminate};
	sigaction(SIGTERM, &on, 0);
	if (argc > 4 && !strcmp(argv[1], "supervise")) return supervise(atoi(argv[2]), argv[3], argv[4], argv[5]);
	if (argc > 3 && !strcmp(argv[1], "store")) return store(argv[2], argv + 3);
	if (argc == 3 && !strcmp(argv[1], "connect")) return reach(argv[2]);
	return 2;
}
