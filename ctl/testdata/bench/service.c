/* service FIFO NAME [BYTES]
 *
 * What the benchmarks start: says in FIFO that it is up, and pauses. With
 * BYTES it prints so many first, in lines of 100 bytes and writes of 4096, and
 * one last line, waits until the pipe is empty, and says that as well. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

struct record {
	int64_t at; /* CLOCK_MONOTONIC, nanoseconds */
	int32_t pid;
	char name[20];
};

static void say(int fd, const char *name) {
	struct record r = {.pid = getpid()};
	struct timespec t;
	strncpy(r.name, name, sizeof r.name - 1);
	clock_gettime(CLOCK_MONOTONIC, &t);
	r.at = t.tv_sec * 1000000000ll + t.tv_nsec;
	if (write(fd, &r, sizeof r) != sizeof r) _exit(4);
}

static void print(const char *p, size_t n) {
	while (n > 0) {
		ssize_t w = write(1, p, n);
		if (w <= 0) _exit(5);
		p += w, n -= w;
	}
}

int main(int argc, char **argv) {
	static char text[102400]; /* whole lines and whole writes */
	int fd = argc < 3 ? -1 : open(argv[1], O_WRONLY | O_CLOEXEC);
	if (fd < 0) return 3;
	say(fd, argv[2]);
	if (argc > 3) {
		long long left = atoll(argv[3]);
		int waiting = 0;
		for (size_t i = 0; i < sizeof text; i++) text[i] = i % 100 == 99 ? '\n' : 'a' + i / 100 % 26;
		for (size_t at = 0; left > 0; at = (at + 4096) % sizeof text, left -= 4096)
			print(text + at, left < 4096 ? left : 4096);
		print("last\n", 5);
		while (ioctl(1, FIONREAD, &waiting) == 0 && waiting > 0)
			nanosleep(&(struct timespec){.tv_nsec = 20000}, 0);
		say(fd, argv[2]);
	}
	close(fd);
	for (;;) pause();
}
