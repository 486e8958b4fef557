/* The least that has to be done, to compare zinit with.
 *
 * floor supervise N SERVICE FIFO   start N services named s0, s1, …, and again
 *                                  whichever ends; SIGTERM ends them all
 * floor store FILE CMD ARG…        store what CMD prints with splice(2)
 * floor connect SOCKET             connect, and exit */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t ending;

/* It leads a process group, in which all that it starts is. */
static void terminate(int sig) {
	if (!ending) {
		ending = 1;
		kill(0, sig);
	}
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

static int supervise(int n, char *service, char *fifo) {
	pid_t *pids = calloc(n, sizeof *pids);
	char(*names)[20] = calloc(n, sizeof *names);
	int left = n;
	for (int i = 0; i < n; i++) {
		snprintf(names[i], sizeof names[i], "s%d", i);
		pids[i] = spawn((char *[]){service, fifo, names[i], 0}, -1);
	}
	while (left > 0) {
		pid_t pid = waitpid(-1, 0, 0);
		if (pid < 0 && errno != EINTR) return 4;
		for (int i = 0; pid > 0 && i < n; i++)
			if (pids[i] == pid) {
				if (ending) left--;
				else pids[i] = spawn((char *[]){service, fifo, names[i], 0}, -1);
				break;
			}
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
	if (argc == 5 && !strcmp(argv[1], "supervise")) return supervise(atoi(argv[2]), argv[3], argv[4]);
	if (argc > 3 && !strcmp(argv[1], "store")) return store(argv[2], argv + 3);
	if (argc == 3 && !strcmp(argv[1], "connect")) return reach(argv[2]);
	return 2;
}
