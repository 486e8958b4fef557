package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

// hostileServer is a zinit of its own for such clients.
type hostileServer struct {
	*stage
	t      *testing.T
	dir    string
	bin    string
	socket string
	// How it was when it was started.
	server, pid1 int
	pids         map[string]int
	fds          []string // what zinit-server and zinit-pid1 have open
	memory       int64
}

// newHostileServer starts one with services that run, one that prints without
// end, and one to start and stop.
func newHostileServer(t *testing.T, bin string) *hostileServer {
	h := newHostileStage(t, bin)
	for name, exec := range map[string]string{
		"db": "sleep 1000", "web": "sleep 1000", "talk": "svc lines=1000000000:1ms", "flip": "sleep 1000",
	} {
		text := fmt.Sprintf("[service]\nexec = %q\n[logging]\nbuffer_lines = 1000\n[lifecycle]\nstop_signal = \"SIGKILL\"\n", exec)
		if err := os.WriteFile(h.dir+"/services/"+name+".toml", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	k := h.launch("zinit-server")
	if err := eventually(patience, func() error {
		c, err := net.Dial("unix", h.socket)
		if err == nil {
			c.Close()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	c := h.client()
	if _, err := c.Wait(t.Context(), client.Options{}, client.ForRunning, "db", "web", "talk", "flip"); err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(t.Context(), client.Options{}, func(ipc.Moved) {}, "flip"); err != nil {
		t.Fatal(err)
	}
	if err := eventually(patience, func() error { // then its files are open
		lines := 0
		params := ipc.LogsParams{Names: []string{"talk"}, Lines: 1}
		err := c.Logs(t.Context(), params, func(ipc.LogLine) error { lines++; return nil })
		if err == nil && lines == 0 {
			err = errors.New("talk has printed nothing")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	info, err := c.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h.server, h.pid1 = info.Pid, k.cmd.Process.Pid
	h.pids = h.running(c)
	c.Close()
	if err := eventually(patience, func() error { // it watches its files when it is up for a while
		if h.fds = h.settled(); !slices.Contains(h.fds, "zinit-server anon_inode:inotify") {
			return errors.New("zinit-server does not watch its files")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	h.memory = pss(t, h.server)
	return h
}

// newHostileStage is one that is not started yet, without services.
func newHostileStage(t *testing.T, bin string) *hostileServer {
	root := shortTempDir(t)
	h := &hostileServer{t: t, dir: root, bin: bin, socket: filepath.Join(root, "z.sock")}
	h.stage = &stage{mark: "ZINIT_STORY=" + root}
	if err := os.Mkdir(root+"/services", 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.close(t, root) })
	return h
}

// launch starts a program of zinit, whose log goes to zinit.log.
func (h *hostileServer) launch(program string, args ...string) *keeper {
	h.t.Helper()
	log, err := os.OpenFile(h.dir+"/zinit.log", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		h.t.Fatal(err)
	}
	defer log.Close()
	k := &keeper{cmd: h.command(program, args...), ended: make(chan struct{})}
	k.cmd.Stderr = log
	if err := k.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	go func() {
		k.cmd.Wait()
		close(k.ended)
	}()
	h.keepers = append(h.keepers, k)
	return k
}

func (h *hostileServer) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(h.bin, program), args...)
	cmd.Dir = h.dir
	cmd.Env = []string{
		"PATH=" + h.bin + ":" + os.Getenv("PATH"), "HOME=" + h.dir, h.mark, "GORACE=atexit_sleep_ms=0",
		"ZINIT_SOCKET=" + h.socket, "ZINIT_CONFIG_DIR=" + h.dir + "/services",
	}
	return cmd
}

func (h *hostileServer) client() *client.Client {
	h.t.Helper()
	c, err := client.Dial(h.t.Context(), h.socket)
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

func (h *hostileServer) running(c *client.Client) map[string]int {
	h.t.Helper()
	services, err := c.Status(h.t.Context(), "db", "web", "talk")
	if err != nil {
		h.t.Fatal(err)
	}
	pids := map[string]int{}
	for _, s := range services {
		pids[s.Name] = s.Pid
	}
	return pids
}

// openFds lists the descriptors of zinit-server and zinit-pid1, sorted, as a
// line each: what is open, without numbers of pipes, sockets and log segments.
func (h *hostileServer) openFds() (open []string) {
	h.t.Helper()
	numbers := regexp.MustCompile(`\d+`)
	for program, pid := range map[string]int{"zinit-server": h.server, "zinit-pid1": h.pid1} {
		links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil || len(links) == 0 {
			h.t.Fatalf("%s has no descriptors", program)
		}
		for _, link := range links {
			if to, err := os.Readlink(link); err == nil {
				open = append(open, program+" "+numbers.ReplaceAllString(to, ""))
			}
		}
	}
	slices.Sort(open)
	return open
}

// settled returns the descriptors when the last connection has been closed.
func (h *hostileServer) settled() []string {
	if err := eventually(4*patience, func() error {
		// Accepted sockets have the path that the one that listens was bound to
		// (proc_net_unix(5)), before it was given its name.
		b, err := os.ReadFile("/proc/net/unix")
		if n := strings.Count(string(b), " "+h.socket+"~\n"); err == nil && n != 1 {
			err = fmt.Errorf("%d connections are left", n-1)
		}
		return err
	}); err != nil {
		h.t.Error(err)
	}
	return h.openFds()
}

// pss is the memory of a process that it has not in common with others, in
// bytes (proc_pid_smaps(5)).
func pss(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^Pss:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		t.Fatalf("no Pss in %s", b)
	}
	kib, _ := strconv.ParseInt(string(m[1]), 10, 64)
	return kib << 10
}

// moreMemory is how much more the server may have afterwards: what its heap has
// grown to for the 16 MiB of answers that one client may leave unread, and the
// copies of them on the way there, goes back to the system only by and by. The
// race detector takes several times as much.
func moreMemory() int64 {
	if os.Getenv("ZINIT_TEST_RACE") != "" {
		return 640 << 20
	}
	return 160 << 20
}

// unharmed looks that all is as it was.
func (h *hostileServer) unharmed(t *testing.T) {
	t.Helper()
	fds := h.settled()
	eventually(patience, func() error { // the pipes of what has ended are closed by and by
		if fds = h.openFds(); !slices.Equal(fds, h.fds) {
			return errors.New("not yet")
		}
		return nil
	})
	start := time.Now()
	c := h.client()
	pids := h.running(c)
	info, err := c.Info(t.Context())
	c.Close()
	switch took := time.Since(start); {
	case err != nil:
		t.Fatal(err)
	case took > 10*time.Second:
		t.Errorf("an ordinary client had to wait for %v", took)
	case info.Pid != h.server || info.ServerRestarts > 0:
		t.Fatalf("zinit-server is %d, was %d", info.Pid, h.server)
	case !maps.Equal(pids, h.pids):
		t.Fatalf("the services are %v, were %v", pids, h.pids)
	}
	if !slices.Equal(fds, h.fds) {
		t.Errorf("open are:\n%s\nand were:\n%s", strings.Join(fds, "\n"), strings.Join(h.fds, "\n"))
	}
	if now := pss(t, h.server); now > h.memory+moreMemory() {
		t.Errorf("zinit-server has %d KiB of memory, had %d", now>>10, h.memory>>10)
	}
}

// rawClient is a connection on which anything may be said.
type rawClient struct {
	*net.UnixConn
	t *testing.T
}

// dial connects, and says hello if wanted.
func (h *hostileServer) dial(t *testing.T, hello bool) rawClient {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: h.socket})
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(2 * patience))
	t.Cleanup(func() { conn.Close() })
	c := rawClient{conn, t}
	if hello {
		c.send(helloFrame)
		if kind, body, err := c.read(); kind != 0 || err != nil {
			t.Fatalf("no hello but kind %d, %v, %v", kind, body, err)
		}
	}
	return c
}

func (c rawClient) send(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// read returns the next frame; io.EOF when the server has hung up.
func (c rawClient) read() (kind int, body map[string]any, err error) {
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		if errors.Is(err, syscall.ECONNRESET) { // it hung up with something unread
			err = io.EOF
		}
		return 0, nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(c, b); err != nil {
		return 0, nil, err
	}
	var parts []any
	if err := msgpack.Unmarshal(b, &parts); err != nil {
		return 0, nil, err
	}
	return int(parts[0].(int8)), parts[1].(map[string]any), nil
}

// answer reads until a request is answered, and says how: "end", "response" or
// the kind and words of an error.
func (c rawClient) answer(id int64) string {
	c.t.Helper()
	for {
		kind, body, err := c.read()
		if err != nil {
			return err.Error()
		}
		if got, err := strconv.ParseInt(fmt.Sprint(body["id"]), 10, 64); err != nil || got != id {
			c.t.Fatalf("an answer to %v, not %d: %v", body["id"], id, body)
		}
		switch kind {
		case 2:
			return "response"
		case 3:
			return fmt.Sprintf("%v: %v", body["kind"], body["message"])
		case 5:
			return "end"
		}
	}
}

func (c rawClient) hungUp() {
	c.t.Helper()
	if kind, body, err := c.read(); err != io.EOF {
		c.t.Errorf("the server has not hung up: kind %d, %v, %v", kind, body, err)
	}
}

// framed puts its length before a payload.
func framed(payload []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...)
}

// frame is the wire form of a message, whatever it is.
func frame(kind, body any) []byte {
	b, err := msgpack.Marshal([]any{kind, body})
	if err != nil {
		panic(err)
	}
	return framed(b)
}

func request(id any, method string, params any) []byte {
	return frame(1, map[string]any{"id": id, "method": method, "params": params})
}

var helloFrame = frame(0, map[string]any{"protocol": 1, "role": "client", "version": "hostile"})
