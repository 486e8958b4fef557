//go:build linux

package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// The table of `make compare-proxies`: zinit-proxyd side by side with those of
// HAProxy, nginx (stream), socat and systemd-socket-proxyd that are installed.
// Floors are no proxy at all, and the simplest one in Go: two io.Copy for each
// connection. Everything is TCP over the loopback interface; clients and the
// backend are in this process. Each measurement takes all proxies in turn, so
// that what else the machine does falls on all; shown are medians of the rounds.

const (
	proxyRounds = 3
	proxyBytes  = 1 << 30 // of a measurement of throughput
	proxyConns  = 3000    // of one of connections
	proxyTrips  = 5000    // of one of latency
	proxyIdle   = 500     // connections that do nothing
)

func init() {
	if filepath.Base(os.Args[0]) == "copyproxy" {
		copyProxy(os.Args[1], os.Args[2])
	}
}

// copyProxy is the simplest proxy.
func copyProxy(listen, backend string) {
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		panic(err)
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			panic(err)
		}
		go func() {
			defer c.Close()
			b, err := net.Dial("tcp", backend)
			if err != nil {
				return
			}
			defer b.Close()
			go func() {
				io.Copy(b, c)
				b.(*net.TCPConn).CloseWrite()
			}()
			io.Copy(c, b)
			c.(*net.TCPConn).CloseWrite()
		}()
	}
}

// proxyPeer is something in front of the backend.
type proxyPeer struct {
	name    string
	address string
	pids    func() []int // of its processes; nil where there are none
}

// proxyBench is the backend and all that stands before it.
type proxyBench struct {
	b       *testing.B
	dir     string
	backend string
	peers   []proxyPeer
}

func BenchmarkProxies(b *testing.B) {
	dir, err := os.MkdirTemp("", "z")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	p := &proxyBench{b: b, dir: dir}
	p.serve()
	p.peers = append(p.peers, proxyPeer{name: "direct", address: p.backend})
	p.zinit()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	p.add("io.Copy", func(listen string) *exec.Cmd {
		return &exec.Cmd{Path: self, Args: []string{"copyproxy", listen, p.backend}}
	})
	p.add("haproxy", func(listen string) *exec.Cmd {
		return exec.Command("haproxy", "-db", "-f", p.file("haproxy.cfg", `
global
  maxconn 4000
defaults
  mode tcp
  option splice-auto
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen bench
  bind `+listen+`
  server backend `+p.backend+"\n"))
	})
	if _, err := os.Stat("/usr/lib/nginx/modules/ngx_stream_module.so"); err == nil {
		p.add("nginx", func(listen string) *exec.Cmd {
			return exec.Command("nginx", "-p", dir, "-e", "/dev/null", "-c", p.file("nginx.conf", `
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
worker_processes auto;
daemon off;
pid nginx.pid;
events { worker_connections 4000; }
stream { server { listen `+listen+`; proxy_pass `+p.backend+`; } }
`))
		})
	}
	p.add("socat", func(listen string) *exec.Cmd {
		host, port, _ := net.SplitHostPort(listen)
		return exec.Command("socat", "TCP-LISTEN:"+port+",bind="+host+",fork,reuseaddr,backlog=1024", "TCP:"+p.backend)
	})
	p.add("systemd", func(listen string) *exec.Cmd {
		ln, err := net.Listen("tcp", listen)
		if err != nil {
			b.Fatal(err)
		}
		defer ln.Close()
		f, err := ln.(*net.TCPListener).File()
		if err != nil {
			b.Fatal(err)
		}
		cmd := exec.Command("sh", "-c", `LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@"`, "/lib/systemd/systemd-socket-proxyd", "--connections-max=4000", p.backend)
		cmd.ExtraFiles = []*os.File{f}
		return cmd
	})
	p.table()
}

func (p *proxyBench) file(name, text string) string {
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		p.b.Fatal(err)
	}
	return path
}

// add starts a proxy, if its program is there.
func (p *proxyBench) add(name string, command func(listen string) *exec.Cmd) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.b.Fatal(err)
	}
	listen := ln.Addr().String()
	ln.Close()
	cmd := command(listen)
	if cmd.Err != nil || name == "systemd" && unix.Access(cmd.Args[3], unix.X_OK) != nil {
		return
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		p.b.Fatal(err)
	}
	p.b.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
	})
	p.up(proxyPeer{name: name, address: listen, pids: func() []int { return benchTree(cmd.Process.Pid) }})
}

// up waits until a proxy works.
func (p *proxyBench) up(peer proxyPeer) {
	if err := eventually(benchPatience, func() error { return proxyVisit(peer.address) }); err != nil {
		p.b.Fatalf("%s: %v", peer.name, err)
	}
	p.peers = append(p.peers, peer)
}

// zinit starts a zinit with a proxy.
func (p *proxyBench) zinit() {
	bin, err := filepath.Abs(os.Getenv("ZINIT_TEST_BIN"))
	if err != nil {
		p.b.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.b.Fatal(err)
	}
	listen := ln.Addr().String()
	ln.Close()
	services := filepath.Join(p.dir, "services")
	if err := os.Mkdir(services, 0o755); err != nil {
		p.b.Fatal(err)
	}
	p.file("services/bench.toml", fmt.Sprintf("[service]\nexec = \"sleep 100000\"\n[xinet]\nlisten = [%q]\nbackend = %q\n", listen, p.backend))
	cmd := exec.Command(filepath.Join(bin, "zinit-server"), "--config-dir", services, "--socket", filepath.Join(p.dir, "z.sock"))
	if err := cmd.Start(); err != nil {
		p.b.Fatal(err)
	}
	p.b.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	p.up(proxyPeer{name: "zinit", address: listen, pids: func() []int {
		return slices.DeleteFunc(benchTree(cmd.Process.Pid), func(pid int) bool { return benchComm(pid) != "zinit-proxyd" })
	}})
}

// serve is the backend. The first byte of a client says what it wants: an
// answer and the end, answers to each byte, or as many bytes as there are.
func (p *proxyBench) serve() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.b.Fatal(err)
	}
	p.b.Cleanup(func() { ln.Close() })
	p.backend = ln.Addr().String()
	block := make([]byte, 256<<10)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				var b [1]byte
				for {
					if _, err := c.Read(b[:]); err != nil {
						return
					}
					switch b[0] {
					case 'v':
						c.Write(b[:])
						return
					case 't':
						c.Write(b[:])
					case 'm':
						for {
							if _, err := c.Write(block); err != nil {
								return
							}
						}
					}
				}
			}()
		}
	}()
}

// proxyVisit is a short connection.
func proxyVisit(address string) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("v")); err != nil {
		return err
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "v" {
		return fmt.Errorf("got %q, %w", got, err)
	}
	return nil
}

// each has n things done by some at a time.
func (p *proxyBench) each(at, n int, f func() error) time.Duration {
	began := time.Now()
	var all sync.WaitGroup
	for i := range at {
		all.Go(func() {
			for k := i; k < n; k += at {
				if err := f(); err != nil {
					p.b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	return time.Since(began)
}

// The measurements: what they are, and how.
type proxyMeasure struct {
	what string
	take func(p *proxyBench, peer proxyPeer) float64
}

func (p *proxyBench) measures() []proxyMeasure {
	return []proxyMeasure{
		{"GB/s, 1 connection", func(p *proxyBench, peer proxyPeer) float64 { rate, _ := p.bulk(peer, 1); return rate }},
		{"GB/s, 16 connections", func(p *proxyBench, peer proxyPeer) float64 { rate, _ := p.bulk(peer, 16); return rate }},
		{"CPU s/GB of the proxy", func(p *proxyBench, peer proxyPeer) float64 { _, cost := p.bulk(peer, 4); return cost }},
		{"connections/s, 1 at a time", func(p *proxyBench, peer proxyPeer) float64 {
			return proxyConns / p.each(1, proxyConns, func() error { return proxyVisit(peer.address) }).Seconds()
		}},
		{"connections/s, 16 at a time", func(p *proxyBench, peer proxyPeer) float64 {
			return proxyConns / p.each(16, proxyConns, func() error { return proxyVisit(peer.address) }).Seconds()
		}},
		{"CPU µs of the proxy a connection", func(p *proxyBench, peer proxyPeer) float64 {
			before := peer.cpu()
			p.each(16, proxyConns, func() error { return proxyVisit(peer.address) })
			return (peer.cpu() - before).Seconds() * 1e6 / proxyConns
		}},
		{"µs round trip", (*proxyBench).trip},
		{"KiB an idle connection", (*proxyBench).idle},
	}
}

// bulk downloads through some connections, and gives GB/s and the processor
// time of the proxy for each GB.
func (p *proxyBench) bulk(peer proxyPeer, at int) (rate, cost float64) {
	before := peer.cpu()
	took := p.each(at, at, func() error {
		c, err := net.Dial("tcp", peer.address)
		if err != nil {
			return err
		}
		defer c.Close()
		c.(*net.TCPConn).SetLinger(0)
		c.Write([]byte("m"))
		buf := make([]byte, 256<<10)
		for left := proxyBytes / at; left > 0; {
			n, err := c.Read(buf)
			if err != nil {
				return err
			}
			left -= n
		}
		return nil
	})
	return proxyBytes / took.Seconds() / 1e9, (peer.cpu() - before).Seconds() / (proxyBytes / 1e9)
}

// trip is how long a byte and its answer take on a connection.
func (p *proxyBench) trip(peer proxyPeer) float64 {
	c, err := net.Dial("tcp", peer.address)
	if err != nil {
		p.b.Fatal(err)
	}
	defer c.Close()
	b := []byte("t")
	return float64(p.each(1, proxyTrips, func() error {
		if _, err := c.Write(b); err != nil {
			return err
		}
		_, err := io.ReadFull(c, b)
		return err
	}).Microseconds()) / proxyTrips
}

// idle is the memory that connections take which have spoken and are silent,
// without that of the kernel.
func (p *proxyBench) idle(peer proxyPeer) float64 {
	before := peer.memory()
	for range proxyIdle {
		c, err := net.Dial("tcp", peer.address)
		if err != nil {
			p.b.Fatal(err)
		}
		defer c.Close()
		b := []byte("t")
		c.Write(b)
		if _, err := io.ReadFull(c, b); err != nil {
			p.b.Fatal(err)
		}
	}
	return (peer.memory() - before) / 1024 / proxyIdle
}

func (peer proxyPeer) cpu() (used time.Duration) {
	if peer.pids == nil {
		return 0
	}
	for _, pid := range peer.pids() {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(fields) < 15 {
			continue
		}
		for _, f := range fields[11:15] { // its own and that of its children
			n, _ := strconv.Atoi(f)
			used += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return used
}

// memory is in bytes (Pss of proc_pid_smaps(5)).
func (peer proxyPeer) memory() (sum float64) {
	if peer.pids == nil {
		return 0
	}
	for _, pid := range peer.pids() {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		for line := range strings.Lines(string(b)) {
			var kib float64
			if n, _ := fmt.Sscanf(line, "Pss: %f kB", &kib); n == 1 {
				sum += kib * 1024
			}
		}
	}
	return sum
}

func (p *proxyBench) table() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, peer := range p.peers {
		fmt.Fprintf(w, "%s\t", peer.name)
	}
	fmt.Fprintln(w, "  ")
	for _, m := range p.measures() {
		values := make([][]float64, len(p.peers))
		for range proxyRounds {
			for i, peer := range p.peers {
				values[i] = append(values[i], m.take(p, peer))
			}
		}
		for i := range p.peers {
			fmt.Fprintf(w, "%s\t", benchFigure(benchMedian(values[i])))
		}
		fmt.Fprintf(w, "  %s\n", m.what)
	}
	w.Flush()
}

func benchComm(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(string(b))
}

// benchTree is a process with all that descend from it.
func benchTree(pid int) []int {
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i]))
		for _, t := range tasks {
			b, _ := os.ReadFile(t)
			for _, f := range strings.Fields(string(b)) {
				if n, err := strconv.Atoi(f); err == nil {
					all = append(all, n)
				}
			}
		}
	}
	return all
}
