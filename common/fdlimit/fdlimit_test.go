package fdlimit

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestShares(t *testing.T) {
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &was)
	for _, c := range []struct {
		limit                    uint64
		pipes, clients, segments int
	}{
		{16384, 14336, 1024, 16352},
		{1024, 640, 192, 992},
		{128, 80, 24, 120},
	} {
		l := was
		l.Cur = min(c.limit, was.Max)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
			t.Fatal(err)
		}
		if l.Cur == c.limit && (Pipes() != c.pipes || Clients() != c.clients || Segments() != c.segments) {
			t.Errorf("%+v: pipes end at %d, segments at %d, %d clients", c, Pipes(), Segments(), Clients())
		}
		// What zinit-server has beside what zinit-pid1 has as well, and what lasts a
		// moment, has to fit in.
		if rest := Segments() - Pipes() - Clients(); rest < 16 {
			t.Errorf("of %d descriptors %d are left", c.limit, rest)
		}
	}
}
