package main

import (
	"encoding/binary"
	"math"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// maxHanded is how many descriptors go with one message (SCM_MAX_FD of unix(7) is
// 253).
const maxHanded = 128

// forkers are threads that fork runs. A fork copies the table of descriptors, and
// execve closes one by one what the child is not to have; in pid1's table are two
// pipes of each service, which made a fork the slower the more services there
// were: 0.13 ms for each 1,000 descriptors. So each of these threads has a table of
// its own, and is handed the descriptors of one child at a time over a socket.
//
// Such a thread can run Go, as long as what the runtime has opened for itself is
// in its table, too: it is not to be made before the runtime has its poller. What
// it calls must open and close by itself all else that it uses.
type forkers struct {
	// give and take are the ends of the socket; a message is the number of a job
	// with the descriptors of its child. there has a token for each message: who
	// waited for it in the kernel would keep one of the runtime's processors until
	// that takes it away.
	give, take int
	there      chan struct{}

	mu     sync.Mutex
	number uint64
	jobs   map[uint64]*job // given and not yet taken
}

// startForkers makes n threads that run jobs, each with the descriptors of the
// child. It returns when their tables are apart. Those of old are not in them: the
// runtime's and the standard ones are all that they need.
func startForkers(n int, old []int, run func(j *job, files []int)) (*forkers, error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := &forkers{give: p[0], take: p[1], there: make(chan struct{}, n), jobs: map[uint64]*job{}}
	var apart sync.WaitGroup
	apart.Add(n)
	for range n {
		go f.start(&apart, old, run)
	}
	apart.Wait()
	return f, nil
}

// start makes this thread one of those that fork.
func (f *forkers) start(apart *sync.WaitGroup, old []int, run func(*job, []int)) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// Its table is what /proc/PID/fd shows: it is held until another is found.
		defer runtime.UnlockOSThread()
		go f.start(apart, old, run)
		apart.Wait()
		return
	}
	if ownTable() {
		for _, fd := range old {
			unix.Close(fd)
		}
		unix.Close(f.give)
	}
	apart.Done()
	f.loop(run)
}

func (f *forkers) loop(run func(*job, []int)) {
	control := make([]byte, unix.CmsgSpace(4*maxHanded))
	for range f.there {
		if j, fds := f.next(control); j != nil {
			if files := j.place(fds); files != nil {
				run(j, files)
			} else {
				go run(j, j.Files) // on a thread that has them all
			}
			for _, fd := range fds {
				unix.Close(fd)
			}
		}
	}
}

// ownTable gives this thread a table of descriptors of its own. Where it may not,
// as in a container without close_range(2), forks are only slower.
func ownTable() bool {
	return unix.CloseRange(math.MaxInt32, math.MaxInt32, unix.CLOSE_RANGE_UNSHARE) == nil || unix.Unshare(unix.CLONE_FILES) == nil
}

// hand gives a job to one of the threads, and says whether it could.
func (f *forkers) hand(j *job) bool {
	var fds []int
	for _, fd := range j.Files {
		if fd >= 0 {
			fds = append(fds, fd)
		}
	}
	if f == nil || len(fds) > maxHanded || len(f.there) == cap(f.there) {
		return false
	}
	f.mu.Lock()
	f.number++
	n := f.number
	f.jobs[n] = j
	f.mu.Unlock()
	if unix.Sendmsg(f.give, binary.NativeEndian.AppendUint64(nil, n), unix.UnixRights(fds...), nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL) == nil {
		f.there <- struct{}{}
		return true
	}
	f.taken(n)
	return false
}

func (f *forkers) taken(n uint64) *job {
	f.mu.Lock()
	defer f.mu.Unlock()
	j := f.jobs[n]
	delete(f.jobs, n)
	return j
}

// next takes a job and the descriptors of its child.
func (f *forkers) next(control []byte) (j *job, fds []int) {
	var number [8]byte
	n, oobn, _, _, err := unix.Recvmsg(f.take, number[:], control, unix.MSG_CMSG_CLOEXEC)
	if err != nil || n < len(number) {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(control[:oobn])
	if err == nil && len(messages) == 1 {
		fds, _ = unix.ParseUnixRights(&messages[0])
	}
	return f.taken(binary.NativeEndian.Uint64(number[:])), fds
}

// place puts the descriptors that came with a job where they belong in the child.
// It returns nil if some are missing: this process has no room for more.
func (j *job) place(fds []int) []int {
	files := make([]int, 0, len(j.Files))
	for _, fd := range j.Files {
		if fd >= 0 {
			if len(fds) == 0 {
				return nil
			}
			fd, fds = fds[0], fds[1:]
		}
		files = append(files, fd)
	}
	return files
}
