/* orphans N: leave N processes to the init, have them end at the same time, and
 * print in how many microseconds all of them are reaped. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

int main(int argc, char **argv) {
	int n = argc > 1 ? atoi(argv[1]) : 0, hold[2];
	pid_t *pids = mmap(0, (n + 1) * sizeof *pids, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (n < 1 || pids == MAP_FAILED || pipe(hold)) return 2;
	pid_t parent = fork();
	if (parent == 0) {
		for (int i = 0; i < n; i++) {
			pid_t pid = fork();
			if (pid < 0) _exit(1);
			if (pid > 0) {
				pids[i] = pid;
			} else {
				char c;
				close(hold[1]);
				read(hold[0], &c, 1);
				_exit(0);
			}
		}
		_exit(0);
	}
	int status;
	if (parent < 0 || waitpid(parent, &status, 0) < 0 || status) return 1;
	double start = now();
	close(hold[1]);
	for (int i = 0; i < n; i++)
		while (kill(pids[i], 0) == 0 || errno != ESRCH) usleep(100);
	printf("%.0f\n", now() - start);
	return 0;
}
